"""Voice files: a policy's weights in safetensors, with a description of them as JSON in the header."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from rlzoo.errors import DataError
from rlzoo.files.reading import as_object, parse
from rlzoo.files.safepickle import load_untrusted, refuse_other_files, without_wrapper
from rlzoo.files.writing import write_bytes

VERSION = "1"
LARGEST_HEADER = 2**22
"""Bytes; names and shapes of some 40,000 tensors, a hundred times those of the largest voice."""
_AGAIN = "copy or make it again"

C = TypeVar("C", bound=BaseModel)


@dataclass(frozen=True)
class VoiceFormat(Generic[C]):
    """The voices of one policy."""

    policy: str
    """Its name, which the header repeats: a voice of another policy is refused."""
    config: type[C]
    """Configuration of the network; the description holds its fields under `network`."""
    network: Callable[[C], nn.Module]
    """Builds a network of that configuration; called on the meta device, to know its weights' names and shapes."""

    def save(
        self, path: str | Path, state: Mapping[str, Tensor], description: Mapping[str, Any], *, half: bool = False
    ) -> None:
        """Write weights and their description (JSON values) as one file, atomically.

        Args:
            path: file to write; its folder is made.
            state: the network's state dict.
            description: `network`, the fields of its configuration, and whatever else a voice needs: text style, card.
            half: store matrices and kernels in float16; vectors (biases, norms) stay as they are, they weigh nothing.
                The description tells it under `half`.

        Raises:
            DataError: a weight beyond float16's range, or the file cannot be written.
        """
        path = Path(path)
        tensors = {}
        for key, value in state.items():
            value = value.detach().cpu()
            if half and value.dim() > 1 and value.is_floating_point():
                if float(value.abs().max()) > torch.finfo(torch.float16).max:
                    raise DataError(f"weight '{key}' is too large for float16", "save the voice in float32")
                value = value.half()
            tensors[key] = value.contiguous().clone()
        text = json.dumps({**description, "half": half}, ensure_ascii=False)
        header = {"format": self._mark, "version": VERSION, "config": text}
        write_bytes(path, save(tensors, header), refused="check free space and permissions")

    def load(self, path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read a file of `save`: weights (float32, on the CPU) and description.

        Raises:
            DataError: the file is missing, damaged, of another kind or version, or its weights do not fit the network
                that it describes.
        """
        path = Path(path)
        if path.is_dir():
            raise DataError(f"'{path}' is a directory and not a voice", "name the file voice.safetensors in it")
        if not path.is_file():
            raise DataError(f"voice '{path}' does not exist", "check the path")
        refuse_other_files(path)
        with path.open("rb") as file:
            start = file.read(8)
        if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5")):
            published = known_model(_names_in(path)) if start[:1] == b"P" else ""
            raise DataError(
                f"'{path}' is a checkpoint of PyTorch{f' ({published})' if published else ''}; voices of "
                f"{self.policy} are safetensors files",
                f"name the policy that reads it (--policy), or train one: rlzoo pretrain --policy {self.policy}",
            )
        described = int.from_bytes(start, "little")
        if LARGEST_HEADER < described < path.stat().st_size:
            raise DataError(
                f"the header of '{path}' has {described:,} bytes; that of a voice has {LARGEST_HEADER:,} at the most",
                "check the path",
            )
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, OSError) as error:
            raise DataError(
                f"'{path}' is not a complete safetensors file: {error}",
                f"{_AGAIN} if it is cut off; name its policy (--policy) if it is of another one than {self.policy}",
            ) from error
        if header.get("format") != self._mark:
            other, published = str(header.get("format", "")).removeprefix("rlzoo-"), known_model(state)
            if str(header.get("format", "")).startswith("rlzoo-"):
                raise DataError(f"'{path}' is a voice for {other}, not for {self.policy}", f"give --policy {other}")
            raise DataError(
                f"'{path}' is not a voice for {self.policy}: its header has no '{self._mark}'"
                + (f"; it holds {published}" if published else ""),
                "check the path",
            )
        version = header.get("version", "")
        if version != VERSION:
            raise DataError(f"'{path}' has version '{version}', this program reads {VERSION}", "update rlzoo")
        where = f"the description in '{path}'"
        description = as_object(parse(header.get("config", ""), where, _AGAIN), where, _AGAIN)
        try:
            config = self.config.model_validate(description.get("network"))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, ("network", *problem["loc"])))
            if problem["type"] in ("missing", "extra_forbidden"):
                kind = "has no" if problem["type"] == "missing" else "has an unknown"
                raise DataError(
                    f"'{path}' is a voice of another version of rlzoo: its description {kind} '{where}'",
                    f"train it again: rlzoo pretrain --policy {self.policy}",
                ) from error
            raise DataError(f"'{path}' describes no network: {where}: {problem['msg']}", _AGAIN) from error
        self.check(state, config, path)
        return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}, description

    def check(self, state: Mapping[str, Tensor], config: C, path: str | Path) -> None:
        """Compare names, shapes and finiteness of `state`, read from `path`, with what a network of `config` needs.

        Raises:
            DataError: naming the first missing, unknown, misshapen or non-finite tensors.
        """
        try:
            with torch.device("meta"):
                expected = self.network(config).state_dict()
        except Exception as error:  # sizes that do not fit one another fail in any way
            reason = f"{type(error).__name__}: {error}"[:300]
            raise DataError(f"'{path}' describes a network that cannot be built: {reason}", _AGAIN) from error
        if not expected.keys() & state.keys() and expected.keys() & (plain := without_wrapper(state)).keys():
            before = next(iter(state)).removesuffix(next(iter(plain)))
            raise DataError(
                f"the names of the weights in '{path}' begin with '{before}'",
                "save the network itself, without a wrapper",
            )
        problems = []
        if missing := [key for key in expected if key not in state]:
            problems.append(f"{len(missing)} missing: {_some(missing)}")
        if unknown := [key for key in state if key not in expected]:
            problems.append(f"{len(unknown)} unknown: {_some(unknown)}")
        if wrong := [key for key in expected if key in state and state[key].shape != expected[key].shape]:
            shapes = [f"{key} is {tuple(state[key].shape)}, expected {tuple(expected[key].shape)}" for key in wrong]
            problems.append(f"{len(wrong)} of another shape: {_some(shapes)}")
        if problems:
            raise DataError(
                f"the weights in '{path}' are not those of this {self.policy} network: {'; '.join(problems)}",
                f"check that the file was made for {self.policy} and that its settings belong to its weights",
            )
        if broken := [key for key, value in state.items() if not torch.isfinite(value).all()]:
            raise DataError(f"weights in '{path}' are not finite: {_some(broken)}", "get or make the file again")

    @property
    def _mark(self) -> str:
        return f"rlzoo-{self.policy}"


_KNOWN = (
    ("decoder.estimator.down_blocks.", "a Matcha-TTS model, which rlzoo does not run"),
    ("decoder.estimator.downs.", "a published Grad-TTS model; rlzoo's gradtts is a network of another shape"),
    ("decoder.estimator.mlp.", "a published Grad-TTS model; rlzoo's gradtts is a network of another shape"),
    ("transformer.layers.", "an E2-TTS model (a U-Net transformer), which rlzoo does not run"),
    ("transformer.audio_embed.", "an MMDiT of F5-TTS's code, which rlzoo does not run"),
    ("transformer.transformer_blocks.", "a model of F5-TTS (policy f5tts)"),
    ("backbone.convnext.", "a Vocos vocoder (the option `vocoder` of f5tts)"),
    ("ups.", "a HiFi-GAN or BigVGAN vocoder, which rlzoo does not run"),
    ("resampling.", "a WaveGrad 2 model (policy wavegrad2)"),
)


def known_model(names: Iterable[str]) -> str:
    """Name of the published model with tensors of these names, as part of a sentence; empty if it is unknown."""
    bare = [name.removeprefix("ema_model.").removeprefix("generator.").removeprefix("model.") for name in names]
    return next((what for start, what in _KNOWN if any(name.startswith(start) for name in bare)), "")


def _names_in(path: Path) -> list[str]:
    """Names of the tensors of a checkpoint of PyTorch, of which nothing is run; none where it cannot be read."""
    try:
        found = load_untrusted(path)
    except DataError:
        return []
    tables = [found, *(found.values() if isinstance(found, Mapping) else ())]
    return [str(name) for table in tables if isinstance(table, Mapping) for name in table]


def _some(items: Iterable[str], count: int = 3) -> str:
    listed = list(items)
    return ", ".join(listed[:count]) + (" ..." if len(listed) > count else "")


__all__ = ["VoiceFormat", "known_model"]
