"""Recognisers: N clips at 16 kHz -> what was said in each, upper or lower case, words separated by blanks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from rlzoo import wav2vec2
from rlzoo.api import Samples
from rlzoo.audio import full_precision
from rlzoo.errors import DataError, PluginError

RATE = 16_000


class Recognizer(Protocol):
    """Deterministic, and blind to batch mates and to what it heard before."""

    def transcribe(self, samples: Samples) -> list[str]:
        """(N, L) at 16 kHz -> N texts; empty where nothing was recognised."""

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


class Whisper:
    """Whisper of any size, from a folder of transformers (arXiv:2212.04356): greedy, English, without timestamps."""

    piece = 30 * RATE
    """It hears 30 s at a time; longer clips are cut there and the texts joined."""
    batch = 16
    max_tokens = 224
    """Half its context, which is what it was trained with: where it falls into a loop, this ends it."""

    def __init__(self, folder: Path) -> None:
        try:
            from transformers import WhisperForConditionalGeneration, WhisperProcessor
        except ImportError as error:
            raise PluginError(
                f"recogniser 'whisper' needs the package 'transformers' ({error})",
                "pip install 'rlzoo-speech[whisper]'",
            ) from error
        if not (folder / "config.json").is_file():
            raise DataError(
                f"'{folder}' is no folder of a Whisper model: it has no config.json",
                "give a folder as transformers saves it (config.json, model.safetensors, tokenizer files)",
            )
        try:
            self.processor: Any = WhisperProcessor.from_pretrained(folder, local_files_only=True)
            self.network: Any = WhisperForConditionalGeneration.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise DataError(
                f"'{folder}' is no folder of a Whisper model: {str(error).splitlines()[0]}",
                "give a folder as transformers saves it (config.json, model.safetensors, tokenizer files)",
            ) from error
        self.network.eval().requires_grad_(False)
        # English-only models refuse to be told the language.
        spoken = {"language": "en", "task": "transcribe"}
        self.choices = spoken if getattr(self.network.generation_config, "is_multilingual", False) else {}

    def to(self, device: torch.device | str) -> None:
        """Move the network."""
        self.network.to(device)

    def transcribe(self, samples: Samples) -> list[str]:
        """Every piece is padded to 30 s by Whisper's own front end, so rows cannot feel one another."""
        pieces = [(row, part) for row in range(len(samples)) for part in samples.row(row).detach().split(self.piece)]
        texts = [""] * len(samples)
        for start in range(0, len(pieces), self.batch):
            rows, waves = zip(*pieces[start : start + self.batch], strict=True)
            for row, text in zip(rows, self._texts(list(waves)), strict=True):
                texts[row] = f"{texts[row]} {text}".strip()
        return texts

    @torch.no_grad()
    def _texts(self, waves: list[Tensor]) -> list[str]:
        heard = self.processor.feature_extractor(
            [wave.float().cpu().numpy() for wave in waves], sampling_rate=RATE, return_tensors="pt"
        )
        with full_precision(self.network.device):
            tokens = self.network.generate(
                heard.input_features.to(self.network.device),
                do_sample=False,
                num_beams=1,
                max_new_tokens=self.max_tokens,
                **self.choices,
            )
        return [str(text) for text in self.processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)]
