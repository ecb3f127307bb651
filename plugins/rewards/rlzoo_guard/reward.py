"""Signal checks as a reward: 0 is clean, each broken limit subtracts up to 1. No weights, any rate, any device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.audio import active_power, require_rate, valid_mask
from rlzoo_guard import GuardOptions

FULL_SCALE = 0.999
FRAME_SECONDS = 0.02
SILENCE_DB = 40.0
SILENT_DBFS = -90.0
FFT = 1024


class GuardReward(Reward[GuardOptions]):
    """(N,) scores in [-6, 0]; `parts` has the six measurements and, as `penalty_...`, what each one cost.

    A measurement is compared with its limits, and the excess is divided by the limit's own scale and cut at 1, so that
    a policy just outside a limit still sees which way is better. A silent clip is all silence at -90 dBFS.
    """

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """N samples at any rate, N prompts -> (N,). Not differentiable."""
        rate = require_rate(samples, None, "guard")
        with torch.no_grad():
            measured = measure(samples, rate)
            letters = [max(1, sum(character.isalnum() for character in prompt.text)) for prompt in prompts]
            seconds = samples.lengths / rate
            measured["seconds_per_letter"] = seconds / torch.tensor(letters, device=seconds.device)
            penalties = self._penalties(measured, rate, [bool(prompt.text.strip()) for prompt in prompts])
        total = 0 - torch.stack(list(penalties.values())).sum(0)
        return Scores(total.float(), measured | {f"penalty_{name}": value for name, value in penalties.items()})

    def _penalties(self, measured: dict[str, Tensor], rate: int, has_text: list[bool]) -> dict[str, Tensor]:
        o = self.options
        level, pace, width = measured["level_dbfs"], measured["seconds_per_letter"], measured["bandwidth_hz"]
        widest = o.max_bandwidth * rate / 2
        paced = torch.tensor(has_text, device=pace.device)
        return {
            "clipped": _excess(measured["clipped"], o.max_clipped, scale=0.05),
            "dc": _excess(measured["dc"], o.max_dc, scale=0.1),
            "silence": _excess(measured["silence"], o.max_silence, scale=0.5),
            "level": _excess(level, o.max_level_dbfs, 10.0) + _excess(-level, -o.min_level_dbfs, 20.0),
            "bandwidth": _excess(width, widest, rate / 2 - widest + 1.0)
            + _excess(o.min_bandwidth_hz - width, 0.0, o.min_bandwidth_hz),
            "pace": paced
            * (
                _excess(pace, o.max_seconds_per_letter, o.max_seconds_per_letter)
                + _excess(o.min_seconds_per_letter - pace, 0.0, o.min_seconds_per_letter)
            ),
        }


def _excess(value: Tensor, limit: float, scale: float) -> Tensor:
    return ((value - limit) / scale).clamp(0, 1)


def measure(samples: Samples, rate: int) -> dict[str, Tensor]:
    """(N,) each: share clipped, absolute offset, share of silent frames, active level, 99 % bandwidth."""
    mask = valid_mask(samples.lengths, samples.data.shape[-1])
    count = samples.lengths.clamp(min=1)
    data = samples.data * mask
    level = 10 * active_power(samples).clamp(min=10 ** (SILENT_DBFS / 10)).log10()
    return {
        "clipped": (data.abs() >= FULL_SCALE).sum(1) / count,
        "dc": data.sum(1).abs() / count,
        "silence": _silence(data, mask, level, rate),
        "level_dbfs": level,
        "bandwidth_hz": _bandwidth(data, samples.lengths, rate),
    }


def _silence(data: Tensor, mask: Tensor, level: Tensor, rate: int) -> Tensor:
    size = max(1, round(rate * FRAME_SECONDS))
    padding = -data.shape[1] % size
    energy = F.pad(data.square(), (0, padding)).unflatten(1, (-1, size)).sum(2)
    count = F.pad(mask.float(), (0, padding)).unflatten(1, (-1, size)).sum(2)
    power = 10 * (energy / count.clamp(min=1)).clamp(min=1e-12).log10()
    silent = (power < level[:, None] - SILENCE_DB) | (power <= SILENT_DBFS)
    share: Tensor = (silent & (count > 0)).sum(1) / (count > 0).sum(1).clamp(min=1)
    return share


def _bandwidth(data: Tensor, lengths: Tensor, rate: int) -> Tensor:
    """(N, L), zero behind each row's end -> (N,) Hz below which 99 % of the power above 20 Hz lies; 0 for silence."""
    hop = FFT // 2
    frames = F.pad(data, (0, max(0, FFT - data.shape[1]))).unfold(1, FFT, hop)
    whole = valid_mask(((lengths - FFT) // hop).clamp(min=0) + 1, frames.shape[1])  # a short row is padded to one
    spectrum = torch.fft.rfft((frames * torch.hann_window(FFT, device=data.device)).double()).abs().square()
    spectrum = (spectrum * whole[..., None]).sum(1)
    frequency = torch.arange(spectrum.shape[1], device=data.device) * rate / FFT
    spectrum = spectrum * (frequency > 20)
    total = spectrum.sum(1)
    reached = spectrum.cumsum(1) >= 0.99 * total[:, None]
    edge: Tensor = frequency[reached.float().argmax(1)] * (total > 0)
    return edge.float()
