"""Identity of a plugin's results as JSON values: its options, its source, and the files that its options name."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlzoo.core.specs import Options


def fingerprint(cls: type, options: Options) -> list[Any]:
    """Options, name, SHA-256 of the source files, and size and time of change of the files that options name."""
    module = sys.modules.get(cls.__module__)
    source = Path(getattr(module, "__file__", None) or "")
    # A module of a package stands for its folder: a reward and its network are rarely the same file.
    folder = "." in cls.__module__ or source.name == "__init__.py"
    files = sorted(source.parent.glob("*.py")) if folder else [source]
    values = options.model_dump(mode="json")
    return [
        values,
        cls.__qualname__,
        [hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()],
        [_stamp(file) for file in _files(values)],
    ]


def _files(options: Any) -> Iterator[Path]:
    """Files that options name. Another file under the same name gives other results."""
    if isinstance(options, dict | list):
        for value in options.values() if isinstance(options, dict) else options:
            yield from _files(value)
    elif isinstance(options, str) and os.path.isfile(options):  # `Path.is_file` fails for a long text
        yield Path(options)


def _stamp(file: Path) -> list[int]:
    """Size and time of change. Hashing hundreds of megabytes would take longer than many scores."""
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


__all__ = ["fingerprint"]
