"""Recognisers: (L,) at 16 kHz -> what was said, upper or lower case, words separated by blanks."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from rlzoo.audio import full_precision
from rlzoo.errors import DataError

RATE = 16_000
_HINT = "give torchaudio's wav2vec2_fairseq_base_ls960_asr_ls960.pth (download.pytorch.org/torchaudio/models)"


class Recognizer(Protocol):
    """Deterministic, and blind to what it heard before."""

    def transcribe(self, wave: Tensor) -> str:
        """(L,) at 16 kHz -> text; empty where nothing was recognised."""

    def to(self, device: torch.device | str) -> None:
        """Move weights, where there are any."""


class PocketSphinx:
    """The recogniser and English model of the pocketsphinx package; always on the CPU."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoder = Decoder(samprate=RATE, cmn="batch", loglevel="FATAL")

    def to(self, device: torch.device | str) -> None:
        """Nothing to move."""

    def transcribe(self, wave: Tensor) -> str:
        """Each clip starts from a fresh front end: by default the decoder adapts to what it heard before."""
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
    min_samples = 400

    def __init__(self, checkpoint: Path) -> None:
        from torchaudio.models import wav2vec2_base
        from torchaudio.pipelines import WAV2VEC2_ASR_BASE_960H

        self.labels = WAV2VEC2_ASR_BASE_960H.get_labels()
        self.network = wav2vec2_base(aux_num_out=len(self.labels)).eval().requires_grad_(False)
        try:
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
            if state["aux.weight"].shape[0] == len(self.labels) + 3:
                # The published file still has three labels of fairseq's (begin, end, unknown) behind the blank.
                keep = [0, *range(4, len(self.labels) + 3)]
                state = state | {name: state[name][keep] for name in ("aux.weight", "aux.bias")}
            self.network.load_state_dict(state)
        except (OSError, EOFError, RuntimeError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"'{checkpoint}' is not a wav2vec 2.0 recogniser: {reason}", _HINT) from error

    def to(self, device: torch.device | str) -> None:
        """Move the network."""
        self.network.to(device)

    def transcribe(self, wave: Tensor) -> str:
        """One clip at a time: padding would leak through the first normalisation."""
        wave = F.pad(wave.detach(), (0, max(0, self.min_samples - wave.shape[0])))
        with torch.no_grad(), full_precision(wave.device):
            logits, _ = self.network(wave[None])
        best = logits[0].argmax(-1)
        letters = [self.labels[index] for index in torch.unique_consecutive(best).tolist() if index != self.blank]
        return "".join(letters).replace("|", " ").strip()
