"""Recorded speech as the trainer sees it: utterances in memory, padded batches, random windows, log-mel spectra."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlzoo.corpus.speech import SpeechCorpus, frame_durations
from rlzoo.errors import DataError
from rlzoo_wavegrad2.network import NetworkConfig
from rlzoo_wavegrad2.symbols import phone_ids


@dataclass(frozen=True)
class Utterance:
    """ids (P,), frames (P,) int64, wave (T·hop,) float16 (to halve the memory of a corpus)."""

    id: str
    ids: Tensor
    frames: Tensor
    wave: Tensor


def load_utterances(corpus: SpeechCorpus, config: NetworkConfig, gain: float | None = None) -> list[Utterance]:
    """Everything in memory; `gain` None scales each recording to a peak of 1, as published."""
    found = []
    for item in corpus:
        wave = item.load()
        total = len(wave) // config.hop
        if total < 1:
            continue
        wave = wave[: total * config.hop]
        scale = gain if gain is not None else 1 / wave.abs().max().clamp(min=1e-4).item()
        frames = frame_durations(item.ends, config.hop / config.sample_rate, total)
        ids = torch.tensor(phone_ids(list(item.phones)))
        found.append(Utterance(item.id, ids, torch.tensor(frames), (wave * scale).clamp(-1, 1).half()))
    if not found:
        raise DataError(f"no usable recording in '{corpus.folder}'", "check metadata.csv and the phone times")
    return found


@dataclass(frozen=True)
class Batch:
    """ids (U, P), lengths (U,), frames (U, P), waves: one per utterance."""

    ids: Tensor
    lengths: Tensor
    frames: Tensor
    waves: list[Tensor]


def collate(utterances: list[Utterance], device: torch.device) -> Batch:
    """Pad phonemes to the longest row; waveforms stay single, they are cut into windows."""
    pad = nn.utils.rnn.pad_sequence
    lengths = torch.tensor([len(u.ids) for u in utterances])
    ids = pad([u.ids for u in utterances], batch_first=True)
    frames = pad([u.frames for u in utterances], batch_first=True)
    return Batch(ids.to(device), lengths.to(device), frames.to(device), [u.wave.float().to(device) for u in utterances])


class LogMel(nn.Module):
    """(B, T·hop) -> (B, 40, T): log-mel magnitudes, one column per hidden frame."""

    def __init__(self, config: NetworkConfig, bands: int = 40) -> None:
        super().__init__()
        from torchaudio.functional import melscale_fbanks

        self.hop, self.window_size = config.hop, 4 * config.hop
        self.fft = 2 ** math.ceil(math.log2(self.window_size))
        banks = melscale_fbanks(
            self.fft // 2 + 1, 0.0, config.sample_rate / 2, bands, config.sample_rate, "slaney", "slaney"
        )
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


def windows(
    batch: Batch, hidden: Tensor, size: int, count: int, hop: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`count` windows of `size` frames from each row: hidden (U·count, H, size), waves (U·count, size·hop).

    A row shorter than the window is zero padded, as published.
    """
    cut_hidden, cut_waves = [], []
    for row, wave in enumerate(batch.waves):
        total = len(wave) // hop
        for _ in range(count):
            start = int(torch.randint(max(1, total - size + 1), (1,), generator=generator))
            h = hidden[row, :, start : min(start + size, total)]
            w = wave[start * hop : (start + size) * hop]
            cut_hidden.append(F.pad(h, (0, size - h.shape[1])))
            cut_waves.append(F.pad(w, (0, size * hop - len(w))))
    return torch.stack(cut_hidden), torch.stack(cut_waves)


def corpus_gain(corpus: SpeechCorpus) -> float:
    """One gain for all recordings: 19 of 20 peaks come out below 0.95, the loudest are clipped."""
    peaks = sorted(float(item.load().abs().max()) for item in corpus)
    return 0.95 / max(1e-4, peaks[int(0.95 * (len(peaks) - 1))])
