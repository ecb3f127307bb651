"""Kill a process at its n-th file operation, or fill its disk after n bytes: for tests of what is left.

A child is forked, and what it does to files below one folder is counted: opening for writing, each write that reaches
the system, replacing, removing, making, flushing. At the chosen one it gets SIGKILL, so no `finally` repairs anything;
a write may also be cut in half first. Files must be written by Python itself, as `rlzoo.files.writing` does.
"""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITING = frozenset("wax+")


@dataclass(frozen=True)
class Operation:
    """One thing done to a file: its kind and, for a write, how many bytes."""

    kind: str
    name: str
    size: int = 0


@dataclass(frozen=True)
class Point:
    """Where to kill: before the operation of this number, or in the middle of its write."""

    number: int
    torn: bool = False


@dataclass
class Watch:
    """What to count and when to strike."""

    root: str
    point: Point | None = None
    room: int | None = None
    """Bytes that can still be written; None: as many as you like."""

    def __post_init__(self) -> None:
        self.done: list[Operation] = []

    def watches(self, path: Any) -> bool:
        return path is not None and (str(path) + "/").startswith(self.root + "/")

    def before(self, kind: str, path: str, size: int = 0) -> None:
        here = Point(len(self.done))
        self.done.append(Operation(kind, path[len(self.root) :], size))
        if self.point == here:
            os.kill(os.getpid(), signal.SIGKILL)

    @property
    def tears(self) -> bool:
        return self.point is not None and self.point.torn and self.point.number == len(self.done) - 1


def _path(file: Any, dir_fd: int | None = None) -> str | None:
    try:
        if isinstance(file, int):
            return os.readlink(f"/proc/self/fd/{file}")
        name = os.fsdecode(file)
        return os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else os.getcwd(), name)
    except (OSError, TypeError):
        return None


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Count the file operations of this process."""
    real_open = io.open

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:
            data = bytes(data)
            watch.before("write", str(watched[id(self)]), len(data))
            if watch.tears:
                super().write(data[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            if watch.room is not None:
                data = data[: watch.room]
                if not data:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                watch.room -= len(data)
            return super().write(data) or 0

    watched: dict[int, str] = {}

    def opened(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **options: Any) -> Any:
        path = _path(file) if WRITING & set(mode) else None
        if not watch.watches(path):
            return real_open(file, mode, buffering, *args, **options)
        if not isinstance(file, int):
            watch.before("open", str(path))
        names = dict(zip(("encoding", "errors", "newline", "closefd", "opener"), args, strict=False)) | options
        raw = Raw(file, mode.replace("t", "").replace("b", ""), names.pop("closefd", True), names.pop("opener", None))
        watched[id(raw)] = str(path)
        if buffering == 0:
            return raw
        size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
        buffered = io.BufferedRandom(raw, size) if "+" in mode else io.BufferedWriter(raw, size)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, **names)

    def counted(name: str, place: int = 0) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            path = _path(args[place], options.get("dir_fd"))
            if watch.watches(path) and (name != "open" or args[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                watch.before(name, str(path))
            return real(*args, **options)

        return call

    places = {"replace": 1, "rename": 1, "link": 1, "symlink": 1}
    names = ("open", "remove", "unlink", "rmdir", "mkdir", "fsync", "truncate", "ftruncate", *places)
    before = {name: getattr(os, name) for name in names}
    import builtins

    try:
        for name in names:
            setattr(os, name, counted(name, places.get(name, 0)))
        builtins.open = io.open = opened  # type: ignore[assignment]
        yield
    finally:
        for name, function in before.items():
            setattr(os, name, function)
        builtins.open = io.open = real_open


@dataclass(frozen=True)
class End:
    """How a child ended: exit code (-9: killed), what it raised or printed, and its operations, if it lived."""

    code: int
    error: str
    operations: tuple[Operation, ...]


def run(work: Callable[[], object], root: Path, point: Point | None = None, room: int | None = None) -> End:
    """Do `work` in a forked child, killed at `point`, or with a disk below `root` that is full after `room` bytes.

    The code is 0 if it returns, that of an error of ours if it raises one, and 99 for any other.
    """
    with tempfile.TemporaryDirectory(prefix="rlzoo-kills-") as folder:
        said, told = Path(folder, "said"), Path(folder, "told")
        with warnings.catch_warnings():
            # Python warns of a fork beside other threads; ours only serve files.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            _child(work, Watch(str(root), point, room), said, told)
        _, status = os.waitpid(child, 0)
        operations = json.loads(told.read_text()) if told.exists() else []
        error = said.read_text(errors="replace") if said.exists() else ""
        return End(os.waitstatus_to_exitcode(status), error, tuple(Operation(*item) for item in operations))


def _child(work: Callable[[], object], watch: Watch, said: Path, told: Path) -> None:
    from rlzoo.errors import RlzooError

    code = 99
    try:
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        with watching(watch):
            work()
        code = 0
    except RlzooError as error:
        os.write(2, f"{type(error).__name__}: {error}".encode("utf-8", "replace"))
        code = error.exit_code
    except BaseException:
        os.write(2, traceback.format_exc().encode("utf-8", "replace"))
    finally:
        told.write_text(json.dumps([(one.kind, one.name, one.size) for one in watch.done]))
        os._exit(code)


def points(operations: tuple[Operation, ...]) -> list[Point]:
    """Every place to kill: before each operation, and in the middle of each write of more than a byte.

    What a flush does no kill can show, so a kill after one is the same as the kill before it.
    """
    found = []
    for number, operation in enumerate(operations):
        if number == 0 or operations[number - 1].kind != "fsync":
            found.append(Point(number))
        if operation.size > 1:
            found.append(Point(number, torn=True))
    return found


def spread(items: list[Any], count: int) -> list[Any]:
    """`count` of them at even distances, the last one among them."""
    return [items[(number + 1) * len(items) // count - 1] for number in range(min(count, len(items)))]


def strays(root: Path) -> list[str]:
    """What a killed write leaves."""
    return [str(path) for path in root.rglob("*") if path.name.endswith((".tmp", ".part"))]
