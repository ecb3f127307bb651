"""NISQA and NISQA-TTS as rewards."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self, TypeVar

import torch

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.assets import Asset, obtain
from rlzoo.audio import full_precision, normalise_level, require_rate
from rlzoo.errors import DataError
from rlzoo_nisqa import TTS, V2, NISQAOptions, NISQATTSOptions, SharedOptions
from rlzoo_nisqa.network import HINT, NISQA, Settings
from rlzoo_nisqa.spectrum import FrontEnd

O = TypeVar("O", bound=SharedOptions)
DIMENSIONS = ("mos", "noisiness", "discontinuity", "coloration", "loudness")


def load(path: Path) -> tuple[NISQA, Settings]:
    """A published `.tar` -> the network, frozen, and its settings. Raises DataError for anything else."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"'{path}' cannot be read as a checkpoint: {reason}", HINT) from error
    if not isinstance(content, dict) or not {"args", "model_state_dict"} <= content.keys():
        raise DataError(f"'{path}' has no 'args' and 'model_state_dict'", HINT)
    settings = Settings.of(content["args"])
    network = NISQA(settings)
    try:
        network.load_state_dict(content["model_state_dict"])
    except RuntimeError as error:
        raise DataError(f"'{path}' does not fit its own settings: {error}", HINT) from error
    return network.eval().requires_grad_(False), settings


class _Shared(Reward[O]):
    asset: ClassVar[Asset]
    name: ClassVar[str]
    outputs: ClassVar[int]

    def __init__(self, options: O) -> None:
        super().__init__(options)
        self.sample_rate = options.sample_rate
        path = obtain(self.asset, options.checkpoint)
        self.network, settings = load(path)
        if settings.outputs != self.outputs:
            raise DataError(f"'{path}' has {settings.outputs} outputs, '{self.name}' needs {self.outputs}", HINT)
        self.front_end = FrontEnd(settings)

    def to(self, device: torch.device | str) -> Self:
        """Move the network."""
        self.network.to(device)
        return self

    def _outputs(self, samples: Samples) -> torch.Tensor:
        rate = require_rate(samples, self.sample_rate, self.name)
        if not bool((samples.lengths > 0).all()):
            raise DataError(f"'{self.name}' was given an empty clip", "the policy predicts no duration for a prompt")
        if self.options.level_dbfs is not None:
            samples = normalise_level(samples, self.options.level_dbfs)
        device, half = samples.data.device, self.options.precision == "bfloat16"
        with full_precision(device):
            segments = [self.front_end(samples.row(row).float(), rate) for row in range(len(samples))]
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                scores: torch.Tensor = self.network(segments)
        return scores.float()


class NISQAReward(_Shared[NISQAOptions]):
    """NISQA v2: MOS, noisiness, discontinuity, coloration, loudness, each about 1 to 5, higher is better.

    Takes audio at its own rate unless the option `sample_rate` says otherwise; scores of different rates do not
    compare. The published code refuses clips beyond 52 s, this does not.
    """

    asset, name, outputs = V2, "nisqa", 5

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """(N, L) -> (N,), differentiable in the waveform; `parts` has all five dimensions."""
        parts = dict(zip(DIMENSIONS, self._outputs(samples).unbind(1), strict=True))
        return Scores(parts[self.options.part], parts)


class NISQATTSReward(_Shared[NISQATTSOptions]):
    """NISQA-TTS: naturalness of synthetic speech, about 1 to 5.

    Takes audio at its own rate unless the option `sample_rate` says otherwise.
    """

    asset, name, outputs = TTS, "nisqa-tts", 1

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """(N, L) -> (N,), differentiable in the waveform."""
        return Scores(self._outputs(samples)[:, 0])
