"""Interface for a plugin's heavy modules. Re-exports only."""

from rlzoo.core.algorithm import Algorithm, Normalisation, TrainContext
from rlzoo.core.policy import (
    Gaussian,
    GaussianDiffusionPolicy,
    Policy,
    RectifiedFlowForm,
    RectifiedFlowPolicy,
    StepDistribution,
)
from rlzoo.core.reward import Reward
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
    "Batch",
    "Crop",
    "DenoisingBatch",
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
