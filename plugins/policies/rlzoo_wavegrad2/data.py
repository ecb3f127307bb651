"""Recorded speech as the trainer sees it: a corpus in memory, padded batches, random windows, log-mel spectra."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlzoo.audio import slaney_mel
from rlzoo.corpus import SpeechCorpus, SpeechItem, frame_durations
from rlzoo.errors import DataError
from rlzoo_wavegrad2.network import NetworkConfig
from rlzoo_wavegrad2.symbols import phone_ids


@dataclass(frozen=True)
class Utterance:
    """ids (P,), frames (P,) int64, wave (T·hop,); float16 where a corpus is kept, to halve its memory."""

    id: str
    text: str
    ids: Tensor
    frames: Tensor
    wave: Tensor


def to_utterance(item: SpeechItem, wave: Tensor, config: NetworkConfig, gain: float | None) -> Utterance:
    """`item` with its audio (L,) at the voice's rate, cut to whole frames; `gain` None: to a peak of 1, as published.

    DataError: shorter than a frame, times that do not fit, a phone that the table does not have.
    """
    total = len(wave) // config.hop
    frames = frame_durations(item.ends, config.hop / config.sample_rate, total)
    wave = wave[: total * config.hop]
    scale = gain if gain is not None else 1 / wave.abs().max().clamp(min=1e-4).item()
    ids = torch.tensor(phone_ids(item.phones))
    return Utterance(item.id, item.text, ids, torch.tensor(frames), (wave * scale).clamp(-1, 1))


def load_utterances(corpus: SpeechCorpus, config: NetworkConfig, gain: float | None = None) -> list[Utterance]:
    """Everything in memory but what is shorter than a frame; `gain` as in `to_utterance`."""
    loaded = ((item, item.load()) for item in corpus)
    whole = (to_utterance(item, wave, config, gain) for item, wave in loaded if len(wave) >= config.hop)
    found = [replace(utterance, wave=utterance.wave.half()) for utterance in whole]
    if not found:
        raise DataError(f"no usable recording in '{corpus.folder}'", "check metadata.csv and the phone times")
    return found


@dataclass(frozen=True)
class Batch:
    """ids (U, P), phones (U,), frames (U, P) of each phone, totals (U,) of each row, waves (U, T·hop) zero padded."""

    ids: Tensor
    phones: Tensor
    frames: Tensor
    totals: Tensor
    waves: Tensor


class Recordings:
    """Utterances end to end in four tensors on one device, so that a batch is made there by indexing alone."""

    def __init__(self, utterances: Sequence[Utterance], hop: int, device: torch.device) -> None:
        self.hop, self.device = hop, device
        self.phones = torch.tensor([len(u.ids) for u in utterances])  # sizes stay on the CPU: shapes follow from them
        self.totals = torch.tensor([len(u.wave) // hop for u in utterances])
        self.first_phone, self.first_frame = (sizes.cumsum(0) - sizes for sizes in (self.phones, self.totals))
        self.ids = torch.cat([u.ids for u in utterances]).to(device)
        self.frames = torch.cat([u.frames for u in utterances]).to(device)
        self.waves = torch.cat([u.wave for u in utterances]).view(-1, hop).to(device)

    def __len__(self) -> int:
        return len(self.phones)

    def batch(self, rows: Tensor) -> Batch:
        """Utterances `rows` (U,), int64 on the CPU."""
        phones, totals = self.phones[rows], self.totals[rows]
        phone, has_phone = self._places(self.first_phone[rows], phones)
        frame, has_frame = self._places(self.first_frame[rows], totals)
        waves = self.waves[frame].float() * has_frame[..., None]
        return Batch(
            self.ids[phone] * has_phone,
            phones.to(self.device),
            self.frames[phone] * has_phone,
            totals.to(self.device),
            waves.flatten(1),
        )

    def _places(self, first: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """First entries (U,) and sizes (U,) -> indices (U, M) and which are real; the others repeat the first."""
        count = torch.arange(int(sizes.max()), device=self.device)
        real = count < sizes.to(self.device)[:, None]
        return first.to(self.device)[:, None] + count * real, real


def draw_starts(totals: Tensor, size: int, count: int, generator: torch.Generator) -> Tensor:
    """First frames (U, count) of windows of `size` frames, uniform over where they fit; totals (U,) on the CPU."""
    room = (totals - size + 1).clamp(min=1)
    return (torch.rand(len(totals), count, generator=generator, dtype=torch.float64) * room[:, None]).long()


def windows(batch: Batch, hidden: Tensor, starts: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Windows of `size` frames from hidden (U, H, T): hidden (U·count, H, size), waves (U·count, size·hop).

    A row shorter than the window is zero padded, as published.
    """
    rows, channels, total = hidden.shape
    count = starts.shape[1]
    frame = starts[..., None] + torch.arange(size, device=hidden.device)  # (U, count, size)
    inside = frame < batch.totals[:, None, None]
    frame = frame.clamp(max=total - 1)
    index = frame[:, :, None].expand(rows, count, channels, size)
    cut = hidden[:, None].expand(rows, count, channels, total).gather(3, index) * inside[:, :, None]
    waves = batch.waves.view(rows, total, -1)[torch.arange(rows, device=hidden.device)[:, None, None], frame]
    return cut.flatten(0, 1), (waves * inside[..., None]).flatten(2).flatten(0, 1)


class LogMel(nn.Module):
    """(B, T·hop) -> (B, 40, T): log-mel magnitudes, one column per hidden frame."""

    def __init__(self, config: NetworkConfig, bands: int = 40) -> None:
        super().__init__()
        self.hop, self.window_size = config.hop, 4 * config.hop
        self.fft = 2 ** math.ceil(math.log2(self.window_size))
        banks = slaney_mel(config.sample_rate, self.fft, bands)
        self.banks: Tensor
        self.window: Tensor
        self.register_buffer("banks", banks)
        self.register_buffer("window", torch.hann_window(self.window_size))

    def forward(self, wave: Tensor) -> Tensor:
        """Natural logarithm of mel magnitudes, floor 1e-3."""
        side = (self.fft - self.hop) // 2
        padded = F.pad(wave, (side, self.fft - self.hop - side))
        spectrum = torch.stft(
            padded, self.fft, self.hop, self.window_size, self.window, center=False, return_complex=True
        ).abs()
        return (spectrum.transpose(1, 2) @ self.banks).clamp(min=1e-3).log().transpose(1, 2)


def mel_cepstral_distance(one: Tensor, other: Tensor, coefficients: int = 13) -> Tensor:
    """Log-mel spectra (..., M, T) at the same times -> mean distance in dB, loudness (c_0) left out.

    10 / ln 10 · sqrt(2 sum_d (c_d - c'_d)^2), d = 1 .. `coefficients` (Kubichek, 1993), without time warping.
    """
    bands = one.shape[-2]
    band = torch.arange(bands, device=one.device, dtype=one.dtype) + 0.5
    order = torch.arange(1, coefficients + 1, device=one.device, dtype=one.dtype)
    cosine = 2 / bands * torch.cos(math.pi / bands * order[:, None] * band)
    cepstrum = cosine @ (one - other)
    return (10 / math.log(10) * (2 * cepstrum.square().sum(-2)).sqrt()).mean()


def corpus_gain(corpus: SpeechCorpus) -> float:
    """One gain for all recordings: 19 of 20 peaks come out below 0.95, the loudest are clipped."""
    peaks = sorted(float(item.load().abs().max()) for item in corpus)
    return 0.95 / max(1e-4, peaks[int(0.95 * (len(peaks) - 1))])
