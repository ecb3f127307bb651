"""Options that every pretraining has. Importing this loads no torch: a plugin's light `__init__` inherits from it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from rlzoo.core.specs import Options


class PretrainingOptions(Options):
    """Base of a policy's options of `rlzoo pretrain`."""

    steps: Annotated[int, Field(ge=1, le=1_000_000_000)] = 100_000
    minutes: Annotated[float, Field(ge=0)] = 0.0
    """Stop after so much training time; 0: after `steps`."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """Adam's, after the warm-up."""
    final_learning_rate: Annotated[float, Field(gt=0, lt=1)] = 5e-5
    """Learning rate at the end of the budget, reached by a cosine."""
    warmup_steps: Annotated[int, Field(ge=1, le=1_000_000_000)] = 200
    weight_decay: Annotated[float, Field(ge=0)] = 1e-6
    grad_clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of a step's gradient."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the average of the weights that becomes the voice."""
    validate_every: Annotated[int, Field(ge=1, le=1_000_000_000)] = 2000
    """Judge held-out recordings every so many steps."""
    validation_utterances: Annotated[int, Field(ge=1, le=1_000_000_000)] = 4
    judges: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Rewards that score samples in validation and the recordings, with their options: judges.dnsmos={}, judges.wer={},
    judges.nisqa.checkpoint="nisqa.tar". Off by default: on a CPU they take longer than the samples."""
    log_every: Annotated[int, Field(ge=1, le=1_000_000_000)] = 20
    save_every: Annotated[int, Field(ge=1, le=1_000_000_000)] = 500
    half: bool = False
    """Store the voice's matrices in float16."""
    seed: int = 0
    device: str = "auto"


__all__ = ["PretrainingOptions"]
