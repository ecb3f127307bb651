"""Recorded speech as the trainer sees it: phones, frames, pitch and log-mel spectra, and random crops of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from rlzoo.corpus import SpeechCorpus, SpeechItem, frame_durations
from rlzoo.errors import DataError, PluginError
from rlzoo_gradtts.mel import Mel
from rlzoo_gradtts.network import REFERENCE_PITCH, NetworkConfig
from rlzoo_gradtts.phones import phone_ids


@dataclass(frozen=True)
class Utterance:
    """ids (P,), frames (P,) int64, log_pitch (P,) over 100 Hz, mel (M, T)."""

    id: str
    text: str
    ids: Tensor
    frames: Tensor
    log_pitch: Tensor
    mel: Tensor


def to_utterance(item: SpeechItem, wave: Tensor, config: NetworkConfig, mel: Mel) -> Utterance:
    """`item` with its audio (L,) at the voice's rate, cut to whole frames.

    DataError: too short for a spectrum, times that do not fit, a phone that the voice does not have.
    """
    total = len(wave) // config.hop
    if total < config.shortest:
        raise DataError(f"{len(wave)} samples, fewer than {config.shortest} frames of {config.hop}", "leave it out")
    frames = torch.tensor(frame_durations(item.ends, config.hop / config.sample_rate, total))
    return Utterance(
        item.id,
        item.text,
        torch.tensor(phone_ids(item.phones)),
        frames,
        pitch_of_phones(wave, frames, config),
        mel(wave)[:, :total],
    )


def pitch_of_phones(wave: Tensor, frames: Tensor, config: NetworkConfig) -> Tensor:
    """(P,): mean pitch of each phone's voiced frames as log(f / 100 Hz); unvoiced phones lie between their neighbours.

    WORLD's DIO and StoneMask (Morise, 2009), one value a frame. PluginError where pyworld is missing.
    """
    try:
        import pyworld
    except ImportError as error:
        raise PluginError("pitch is measured by pyworld", "pip install 'rlzoo-speech[corpus]'") from error
    audio, rate = wave.cpu().double().numpy(), config.sample_rate
    coarse, times = pyworld.dio(audio, rate, f0_floor=50.0, f0_ceil=400.0, frame_period=1000 * config.hop / rate)
    hertz = pyworld.stonemask(audio, coarse, times, rate)[: int(frames.sum())]
    phone = np.repeat(np.arange(len(frames)), frames.numpy())[: len(hertz)]
    voiced = hertz > 0
    count = np.bincount(phone[voiced], minlength=len(frames))
    total = np.bincount(phone[voiced], np.log(hertz[voiced] / REFERENCE_PITCH), minlength=len(frames))
    known = np.flatnonzero(count)
    if not len(known):
        return torch.zeros(len(frames))
    means = total[known] / count[known]
    return torch.from_numpy(np.interp(np.arange(len(frames)), known, means)).float()


def load_utterances(corpus: SpeechCorpus, config: NetworkConfig) -> list[Utterance]:
    """Everything in memory but what is too short for a spectrum."""
    mel = Mel(config)
    loaded = ((item, item.load()) for item in corpus)
    shortest = config.shortest * config.hop
    found = [to_utterance(item, wave, config, mel) for item, wave in loaded if len(wave) >= shortest]
    if not found:
        raise DataError(f"no usable recording in '{corpus.folder}'", "check metadata.csv and the phone times")
    return found


@dataclass(frozen=True)
class Batch:
    """ids, frames, log_pitch (U, P) of which phones (U,) are real; first frames (U,) of crops and their mel (U, M, W),
    of which sizes (U,) frames are real."""

    ids: Tensor
    phones: Tensor
    frames: Tensor
    log_pitch: Tensor
    starts: Tensor
    sizes: Tensor
    mel: Tensor

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
        starts,
        totals.clamp(max=size),
        pad(cut).transpose(1, 2),
    )
