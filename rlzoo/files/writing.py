"""Writing files so that each is whole or not there: beside its place, flushed to the disk, renamed into it. Light.

A process that is killed leaves at worst `.NAME.12345678.tmp` beside the file. `sweep` removes those; commands call it
on the folders that are theirs when they start. Everything here raises DataError for a disk that is full or refuses.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from rlzoo.errors import DataError, RlzooError

ON_FULL = "free some space on the disk, then give the command again; what was complete is kept"
ON_REFUSAL = "check the path and its permissions"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NEARLY_FULL = 1 << 20
_STRAY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


@contextmanager
def replacing(target: Path, *, refused: str = ON_REFUSAL, full: str = ON_FULL) -> Iterator[Path]:
    """Yield a temporary path to write a file or to fill a folder at; on leaving, it takes the place of `target`.

    Missing parents are made. If the block raises, `target` stays as it was.

    Args:
        target: the file or folder to make or to replace.
        refused: hint of the error if the system does not allow the write.
        full: hint of the error if the disk is full.

    Raises:
        DataError: the disk is full or does not allow it.
    """
    temporary = _beside(target)
    if os.path.lexists(target) and not (target.is_symlink() or target.is_file() or target.is_dir()):
        raise DataError(f"cannot write '{target}': it is a device or a pipe", "give the path of a file")
    try:
        with explained(target, refused=refused, full=full):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if temporary.is_dir():
                for path in sorted(temporary.rglob("*")):
                    _flush(path)
            _flush(temporary)
            old = _set_aside(target) if temporary.is_dir() and target.exists() else None
            os.replace(temporary, target)
            _flush(target.parent)
            if old is not None:
                remove(old)
    except BaseException:
        remove(temporary)
        raise


def write_bytes(target: Path, content: bytes | memoryview, *, refused: str = ON_REFUSAL, full: str = ON_FULL) -> None:
    """Write a file; it holds the old content or all of the new one, never half of it. DataError."""
    with replacing(target, refused=refused, full=full) as temporary:
        temporary.write_bytes(content)


def write_text(target: Path, text: str, *, refused: str = ON_REFUSAL, full: str = ON_FULL) -> None:
    """Write a UTF-8 file, line ends as they are. DataError."""
    # Without UTF-8 mode the letters of a path arrive as escapes of their bytes, which belong here.
    write_bytes(target, text.encode("utf-8", "surrogateescape"), refused=refused, full=full)


def write_json(target: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a JSON document. DataError."""
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def append_lines(
    target: Path, rows: Iterable[Mapping[str, Any]], *, refused: str = ON_REFUSAL, full: str = ON_FULL
) -> None:
    """Add JSON objects as lines and flush them to the disk. A crash can cut the last line short; readers leave it out.

    Raises:
        DataError: the disk is full or does not allow it.
    """
    with explained(target, refused=refused, full=full):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("a", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())


def sweep(folder: Path, name: str = "") -> None:
    """Remove what killed writes have left in `folder`: of every file, or of files whose name begins with `name`.

    Only for a process that has the folder, or those files, to itself: the write of another one would be lost.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.startswith(f".{name}") and is_stray(path):
            remove(path)


def is_stray(path: Path) -> bool:
    """Return whether a killed write has left this."""
    return _STRAY.fullmatch(path.name) is not None


def remove(path: Path) -> None:
    """A file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):  # false, too, where a part of the path is a file and unlink would raise
        path.unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Remove a folder so that a kill leaves no half of it under its name."""
    remove(_set_aside(folder))


@contextmanager
def explained(path: Path, *, refused: str = ON_REFUSAL, full: str = ON_FULL) -> Iterator[None]:
    """Turn what a write within the block raises into a DataError that names `path`."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error, refused=refused, full=full) from error
    except Exception as error:
        # torch and safetensors report a full disk under errors of their own, without its number.
        if isinstance(error, RlzooError) or _free_bytes(path) > _NEARLY_FULL:
            raise
        no_space = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise write_error(path, no_space, refused=refused, full=full) from error


def write_error(path: Path, error: OSError, *, refused: str = ON_REFUSAL, full: str = ON_FULL) -> DataError:
    """The error of ours for one of the system."""
    reason = error.strerror or str(error)
    return DataError(f"cannot write '{path}': {reason}", full if error.errno in _FULL else refused)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid4().hex[:8]}.tmp")


def _set_aside(target: Path) -> Path:
    """Give a folder the name of a stray: the system renames no folder over a full one."""
    old = _beside(target)
    os.replace(target, old)
    return old


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free_bytes(path: Path) -> int:
    return shutil.disk_usage(next(parent for parent in path.absolute().parents if parent.exists())).free


__all__ = [
    "append_lines",
    "discard",
    "explained",
    "is_stray",
    "remove",
    "replacing",
    "sweep",
    "write_bytes",
    "write_error",
    "write_json",
    "write_text",
]
