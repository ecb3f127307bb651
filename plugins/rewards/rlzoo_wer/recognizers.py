"""Recognisers: N clips at 16 kHz -> what was said in each, upper or lower case, words separated by blanks."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from rlzoo import wav2vec2
from rlzoo.api import Samples
from rlzoo.audio import full_precision

RATE = 16_000


class Recognizer(Protocol):
    """Deterministic, and blind to batch mates and to what it heard before."""

    def transcribe(self, samples: Samples) -> list[str]:
        """(N, L) at 16 kHz -> N texts; empty if nothing was recognised."""

    def to(self, device: torch.device | str) -> None:
        """Move weights, where there are any."""


class PocketSphinx:
    """The recogniser and English model of the pocketsphinx package; always on the CPU, clip by clip."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoder = Decoder(samprate=RATE, cmn="batch", loglevel="FATAL")

    def to(self, device: torch.device | str) -> None:
        """Nothing to move."""

    def transcribe(self, samples: Samples) -> list[str]:
        """Each clip starts from a fresh front end: by default the decoder adapts to what it heard before."""
        return [self._one(samples.row(row)) for row in range(len(samples))]

    def _one(self, wave: Tensor) -> str:
        pcm = (wave.detach().cpu().clamp(-1, 1) * 32_767).round().to(torch.int16)
        self._decoder.reinit_feat()
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.numpy().tobytes(), no_search=False, full_utt=True)
        self._decoder.end_utt()
        best = self._decoder.hyp()
        return str(best.hypstr) if best else ""


class Wav2Vec2:
    """wav2vec 2.0 base, fine-tuned with CTC on LibriSpeech; the best label of each frame (arXiv:2006.11477)."""

    blank = 0

    def __init__(self, checkpoint: Path) -> None:
        from torchaudio.pipelines import WAV2VEC2_ASR_BASE_960H

        self.labels = WAV2VEC2_ASR_BASE_960H.get_labels()
        self.network = wav2vec2.load_recognizer(checkpoint)

    def to(self, device: torch.device | str) -> None:
        """Move the network."""
        self.network.to(device)

    @torch.no_grad()
    def transcribe(self, samples: Samples) -> list[str]:
        """Clips of like length together; padding is kept out by `rlzoo.wav2vec2`."""
        texts = [""] * len(samples)
        for rows in wav2vec2.pieces(samples.lengths):
            waves, lengths = wav2vec2.padded(samples.data[rows], samples.lengths[rows])
            with full_precision(waves.device):
                frames, count = wav2vec2.frames(self.network, waves, lengths)
                labels = self.network.aux(self.network.encoder(frames, count)).argmax(-1)
            for row, best, size in zip(rows.tolist(), labels, count.tolist(), strict=True):
                texts[row] = self._text(best[:size])
        return texts

    def _text(self, best: Tensor) -> str:
        letters = [self.labels[index] for index in torch.unique_consecutive(best).tolist() if index != self.blank]
        return "".join(letters).replace("|", " ").strip()
