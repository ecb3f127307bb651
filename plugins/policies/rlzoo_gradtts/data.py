"""Recorded speech as the trainer sees it: phones, frames, pitch and log-mel spectra, and random crops of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from rlzoo.corpus import SpeechCorpus, SpeechItem, frame_durations
from rlzoo.errors import DataError, PluginError
from rlzoo_gradtts.mel import Mel
from rlzoo_gradtts.network import REFERENCE_PITCH, NetworkConfig
from rlzoo_gradtts.phones import phone_ids
from rlzoo_gradtts.style import summarise


@dataclass(frozen=True)
class Utterance:
    """ids (P,), frames (P,) int64, log_pitch over 100 Hz of phones (P,) and contour of frames (T,), mel (M, T)."""

    id: str
    text: str
    ids: Tensor
    frames: Tensor
    log_pitch: Tensor
    contour: Tensor
    mel: Tensor
    clean: bool
    """True if the corpus calls the recording clean."""

    @cached_property
    def summary(self) -> Tensor:
        """(4 M,), see `summarise`."""
        return summarise(self.mel)


def to_utterance(
    item: SpeechItem, wave: Tensor, config: NetworkConfig, mel: Mel, quiet: Tensor | None = None
) -> Utterance:
    """`item` with its audio (L,) at the voice's rate, cut to whole frames.

    `quiet` (L,) is the same recording before its recording condition, if there is one: the pitch is measured there.
    DataError: too short for a spectrum, times that do not fit, a phone that the voice does not have.
    """
    total = len(wave) // config.hop
    if total < config.shortest:
        raise DataError(f"{len(wave)} samples, fewer than {config.shortest} frames of {config.hop}", "leave it out")
    frames = torch.tensor(frame_durations(item.ends, config.hop / config.sample_rate, total))
    contour = pitch_contour(wave if quiet is None else quiet, total, config)
    return Utterance(
        item.id,
        item.text,
        torch.tensor(phone_ids(item.phones)),
        frames,
        mean_pitch(contour, frames),
        contour,
        mel(wave)[:, :total],
        item.clean,
    )


def mean_pitch(contour: Tensor, frames: Tensor) -> Tensor:
    """Pitch of every frame (T,), frames of each phone (P,) -> mean pitch of each phone (P,); of an empty one, that of
    the frame where it would be."""
    phone = torch.repeat_interleave(torch.arange(len(frames)), frames)
    sums = torch.zeros(len(frames)).index_add_(0, phone, contour)
    here = contour[(frames.cumsum(0) - frames).clamp(max=len(contour) - 1)]
    return torch.where(frames > 0, sums / frames.clamp(min=1), here)


def pitch_contour(wave: Tensor, total: int, config: NetworkConfig) -> Tensor:
    """(T,): pitch of every frame as log(f / 100 Hz); in unvoiced stretches a line between their two ends.

    WORLD's DIO and StoneMask (Morise, 2009), one value a frame. PluginError if pyworld is missing.
    """
    try:
        import pyworld
    except ImportError as error:
        raise PluginError("pitch is measured by pyworld", "pip install 'rlzoo-speech[corpus]'") from error
    audio, rate = wave.cpu().double().numpy(), config.sample_rate
    coarse, times = pyworld.dio(audio, rate, f0_floor=50.0, f0_ceil=400.0, frame_period=1000 * config.hop / rate)
    hertz = pyworld.stonemask(audio, coarse, times, rate)[:total]
    voiced = np.flatnonzero(hertz > 0)
    if not len(voiced):
        return torch.zeros(total)
    known = np.log(hertz[voiced] / REFERENCE_PITCH)
    return torch.from_numpy(np.interp(np.arange(total), voiced, known)).float()


def load_utterances(corpus: SpeechCorpus, config: NetworkConfig) -> list[Utterance]:
    """Everything in memory but what is too short for a spectrum."""
    mel = Mel(config)
    loaded = ((item, item.load(), item.load_clean()) for item in corpus)
    shortest = config.shortest * config.hop
    found = [to_utterance(item, wave, config, mel, quiet) for item, wave, quiet in loaded if len(wave) >= shortest]
    if not found:
        raise DataError(f"no usable recording in '{corpus.folder}'", "check metadata.csv and the phone times")
    return found


@dataclass(frozen=True)
class Batch:
    """ids, frames, log_pitch (U, P) of which phones (U,) are real; contour (U, T); first frames (U,) of crops and their
    mel (U, M, W), of which sizes (U,) frames are real; summary (U, 4 M) of whole recordings and whether they are clean
    (U,)."""

    ids: Tensor
    phones: Tensor
    frames: Tensor
    log_pitch: Tensor
    contour: Tensor
    starts: Tensor
    sizes: Tensor
    mel: Tensor
    summary: Tensor
    clean: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same, there."""
        return Batch(*(getattr(self, part.name).to(device) for part in fields(self)))


def crops(utterances: Sequence[Utterance], size: int, generator: torch.Generator) -> Batch:
    """One random crop of `size` frames of each utterance, uniform over where it fits."""

    def pad(rows: Sequence[Tensor]) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)

    totals = torch.tensor([u.mel.shape[1] for u in utterances])
    room = (totals - size + 1).clamp(min=1)
    starts = (torch.rand(len(utterances), generator=generator, dtype=torch.float64) * room).long()
    cut = [u.mel[:, start : start + size].t() for u, start in zip(utterances, starts.tolist(), strict=True)]
    return Batch(
        pad([u.ids for u in utterances]),
        torch.tensor([len(u.ids) for u in utterances]),
        pad([u.frames for u in utterances]),
        pad([u.log_pitch for u in utterances]),
        pad([u.contour for u in utterances]),
        starts,
        totals.clamp(max=size),
        pad(cut).transpose(1, 2),
        torch.stack([u.summary for u in utterances]),
        torch.tensor([u.clean for u in utterances]),
    )
