"""What a plugin's heavy modules import. Re-exports only."""

from rlzoo._algorithm import Algorithm, Normalisation, TrainContext
from rlzoo._policy import (
    Gaussian,
    GaussianDiffusionPolicy,
    Policy,
    RectifiedFlowForm,
    RectifiedFlowPolicy,
    StepDistribution,
)
from rlzoo._reward import Reward
from rlzoo._types import (
    Batch,
    Crop,
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
    "Batch",
    "Crop",
    "Gaussian",
    "GaussianDiffusionPolicy",
    "Media",
    "Minibatch",
    "Normalisation",
    "Policy",
    "Prompt",
    "RectifiedFlowForm",
    "RectifiedFlowPolicy",
    "Reduction",
    "Reward",
    "Samples",
    "Schedule",
    "Scores",
    "StepDistribution",
    "TrainContext",
    "Trajectory",
    "Transitions",
]
