"""Interface for a plugin's heavy modules. Re-exports only."""

from rlzoo.core.algorithm import Algorithm, Normalisation, TrainContext
from rlzoo.core.observer import AudioSample, EndState, RunInfo, RunObserver
from rlzoo.core.policy import (
    Gaussian,
    GaussianDiffusionPolicy,
    Policy,
    RectifiedFlowForm,
    RectifiedFlowPolicy,
    StepDistribution,
)
from rlzoo.core.prompts import PromptSet
from rlzoo.core.reward import Reward, RewardFunction, reward_from
from rlzoo.core.types import (
    Batch,
    Crop,
    DenoisingBatch,
    Media,
    Minibatch,
    Prompt,
    Reduction,
    Samples,
    Schedule,
    Scores,
    Trajectory,
    Transitions,
)

__all__ = [
    "Algorithm",
    "AudioSample",
    "Batch",
    "Crop",
    "DenoisingBatch",
    "EndState",
    "Gaussian",
    "GaussianDiffusionPolicy",
    "Media",
    "Minibatch",
    "Normalisation",
    "Policy",
    "Prompt",
    "PromptSet",
    "RectifiedFlowForm",
    "RectifiedFlowPolicy",
    "Reduction",
    "Reward",
    "RewardFunction",
    "RunInfo",
    "RunObserver",
    "Samples",
    "Schedule",
    "Scores",
    "StepDistribution",
    "TrainContext",
    "Trajectory",
    "Transitions",
    "reward_from",
]
