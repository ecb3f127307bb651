"""The run directory: what a run leaves behind, written so that no crash can damage it. Light.

    config.toml    what the user gave                       config.json   every value settled; what --resume reads
    env.json       versions, commit, host, command line     status.json   running, done, failed or interrupted
    metrics.jsonl  one object per step
    eval/  samples/  checkpoints/  failures/  log.txt  report.html

A file under its final name is complete: it is written beside it, flushed to the disk and renamed. `metrics.jsonl` grows
line by line; only its last line can be cut short by a crash, and readers leave out a last line without its end.
A directory is never written over.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from rlzoo.errors import DataError
from rlzoo.files import writing
from rlzoo.files.evaluations import own_file
from rlzoo.files.reading import Shape, check, read_lines, read_object
from rlzoo.files.trust import SIGNED, is_signed, signature
from rlzoo.version import __version__

State = Literal["running", "done", "failed", "interrupted"]

_ON_FULL = "free some space on the disk; what was complete is kept, and --resume continues from the last checkpoint"
_KEPT = ("metrics.jsonl", "eval", "samples", "checkpoints", "failures")
_MADE_FIRST = frozenset({"config.toml", "env.json", "status.json", ".lock"})
"""Files that may exist before `config.json`, which is the last one written into a new directory."""


class _Named(Shape):
    name: str


class _Reward(_Named):
    requested: str
    weight: float


class _Config(Shape):
    """Keys of `config.json` that readers rely on with any plugins."""

    seed: int
    policy: _Named
    rewards: Annotated[list[_Reward], Field(min_length=1)]
    algorithm: _Named
    prompts: _Named
    eval: dict[str, Any]
    plugin_files: list[str] = []  # noqa: RUF012 - pydantic copies defaults


class _Metrics(Shape):
    step: Annotated[int, Field(ge=1)]


class RunDirectory:
    """Paths and writes of one run. Every write raises DataError if the disk is full or does not allow it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __fspath__(self) -> str:
        return str(self.path)

    @classmethod
    def create(cls, path: Path, *, toml: str, config: Mapping[str, Any], env: Mapping[str, Any]) -> Self:
        """Make a new one. DataError if it exists (an empty folder is taken) or cannot be written."""
        directory = cls(path.expanduser().absolute())
        check_free(directory.path)
        with writing.explained(directory.path, full=_ON_FULL):
            directory.path.mkdir(parents=True, exist_ok=True)
            directory.sweep()
        directory.write_text("config.toml", toml)
        directory.write_json("env.json", env)
        directory.set_status("running", step=0)
        directory.write_config(config)  # last: a directory that has it is whole
        return directory

    @classmethod
    def open(cls, path: Path) -> Self:
        """An existing one. DataError if there is none, or it is unreadable."""
        directory = cls(path.expanduser().absolute())
        if is_torn(directory.path):
            raise DataError(
                f"'{path}' is no run yet: it was stopped while it was made, and nothing is lost",
                f"start the run again with --out {path}",
            )
        if not (directory.path / "config.json").is_file():
            raise DataError(
                f"'{path}' is not a run directory: it has no config.json", "give the directory a run has made"
            )
        directory.config()
        return directory

    def config(self) -> dict[str, Any]:
        """Content of `config.json`. DataError if it is damaged."""
        values = self._read("config.json", _Config)
        values.pop(SIGNED, None)
        return values

    def write_config(self, values: Mapping[str, Any], *, sign: bool = True) -> None:
        """Write `config.json`, signed as one's own."""
        self.write_json("config.json", {**values, SIGNED: signature(values) if sign else ""})

    def is_own(self) -> bool:
        """True if this user has written `config.json` on this machine; see `rlzoo.files.trust`. DataError."""
        values = self._read("config.json", _Config)
        return is_signed({key: value for key, value in values.items() if key != SIGNED}, values.get(SIGNED))

    def check_links(self) -> None:
        """DataError if something in it is a link to outside, or a pipe: what continues the run would write there."""
        for path in (*self.path.glob("*"), *self.path.glob("*/*")):
            own_file(self.path, str(path.relative_to(self.path)))
            if not path.is_file() and not path.is_dir():
                raise DataError(f"'{path}' is neither a file nor a folder", "remove it")

    def status(self) -> dict[str, Any]:
        """Content of `status.json`. DataError if it is missing or damaged."""
        return self._read("status.json", Shape)

    def set_status(self, state: State, *, step: int, error: str = "", hint: str = "", signal: str = "") -> None:
        """Replace `status.json`. `signal`: name of the one that ended the run."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        status = {"state": state, "step": step, "error": error, "hint": hint, "signal": signal, "updated": now}
        self.write_json("status.json", status)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory for this process. DataError if another process runs in it."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise DataError(f"another process is running in '{self.path}'", "wait for it, or stop it first") from error
        except OSError as error:
            raise writing.write_error(self.path, error, full=_ON_FULL) from error
        try:
            yield
        finally:
            lock.release()

    def writing(self, name: str) -> AbstractContextManager[Path]:
        """Yield a temporary path for a file or a folder; on leaving it becomes `name`, complete or not at all."""
        return writing.replacing(self.path / name, full=_ON_FULL)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file atomically."""
        writing.write_bytes(self.path / name, content, full=_ON_FULL)

    def write_text(self, name: str, content: str) -> None:
        """Write a UTF-8 file atomically."""
        writing.write_text(self.path / name, content, full=_ON_FULL)

    def write_json(self, name: str, content: Mapping[str, Any] | Sequence[Any]) -> None:
        """Write a JSON file atomically."""
        self.write_text(name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """Add one JSON object as a line and flush it to the disk."""
        writing.append_lines(self.path / name, [row], full=_ON_FULL)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add one step to `metrics.jsonl`; `row` holds `step`."""
        self.append("metrics.jsonl", row)

    def metrics(self) -> list[dict[str, Any]]:
        """Every step of `metrics.jsonl`. DataError if a line other than an unfinished last one is damaged."""
        path = self.path / "metrics.jsonl"
        rows = read_lines(path)
        for number, row in enumerate(rows, 1):
            check(_Metrics, row, f"'{path}' line {number} is no step")
            if not all(map(_is_number, row.values())):
                raise DataError(f"'{path}' line {number} is no step: a value is no number", "it is damaged")
        return rows

    def sweep(self) -> None:
        """Remove what writes that were killed have left behind. For the process that holds the directory."""
        for folder in (self.path, *self.path.glob("*/"), *self.path.glob("*/*/")):
            writing.sweep(folder)
        for path in self.path.glob("samples/*/*.part"):  # of runs that 0.1.0 made
            writing.remove(path)

    def truncate_metrics(self, step: int) -> None:
        """Drop what was written after `step`: a resumed run repeats it."""
        rows = [row for row in self.metrics() if row["step"] <= step]
        self.write_text("metrics.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def discard_if_unused(self) -> bool:
        """Remove it if the run never came as far as leaving a result or evidence; returns whether it did."""
        if any(_has_content(self.path / name) for name in _KEPT):
            return False
        shutil.rmtree(self.path)
        return True

    def _read(self, name: str, shape: type[Shape]) -> dict[str, Any]:
        path = self.path / name
        content = read_object(path, "the run directory is damaged")
        check(shape, content, f"'{path}' is damaged", "the run directory is damaged")
        return content


def is_torn(path: Path) -> bool:
    """True if a run was stopped, or the disk was full, while its directory was made: nothing is in it yet."""
    if not path.is_dir() or (path / "config.json").exists():
        return False
    names = [entry.name for entry in path.iterdir()]
    return bool(names) and all(name in _MADE_FIRST or writing.is_stray(path / name) for name in names)


def _is_number(value: Any) -> bool:
    """A float, or an integer that is one, too: 10**400 is none."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def _has_content(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.is_file() and path.stat().st_size > 0


def check_free(path: Path) -> None:
    """DataError unless a run directory could be made at `path`: nothing there, and a parent that can be written."""
    path = path.expanduser().absolute()
    _check_name(path)
    if path.is_dir() and (not any(path.iterdir()) or is_torn(path)):
        folder = path
    elif path.exists() or path.is_symlink():
        what = "directory" if path.is_dir() else "file"
        hint = f"choose another --out, or continue that run with --resume {path}"
        raise DataError(f"output {what} '{path}' exists already", hint)
    else:
        folder = next(parent for parent in path.parents if parent.exists())
    if not folder.is_dir():
        raise DataError(f"cannot make '{path}': '{folder}' is not a directory", "choose another --out")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"cannot write '{path}': no permission to write in '{folder}'", "choose another --out")


def _check_name(path: Path) -> None:
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeError as error:
        raise DataError(f"the path {str(path)!r} is no UTF-8 text", "choose another --out") from error
    if "\0" in str(path):
        raise DataError(f"the path {str(path)!r} holds a NUL", "choose another --out")


def default_path(algorithm: str, policy: str, rewards: Sequence[tuple[str, str]], seed: int, root: Path) -> Path:
    """A free `root/<date>-<time>-<algorithm>-<policy>-<rewards>-<seed>`.

    `rewards` are (used, requested); a stand-in shows as `dnsmos-for-utmos`.
    """
    names = "+".join(used if used == requested else f"{used}-for-{requested}" for used, requested in rewards)
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{algorithm}-{policy}-{names}-{seed}"
    path, count = root / stem, 1
    while path.exists():
        count += 1
        path = root / f"{stem}-{count}"
    return path


def environment(plugins: Sequence[tuple[str, str, str]] = ()) -> dict[str, Any]:
    """Content of `env.json`, for repeating a run; `plugins` are (name, distribution, version)."""
    return {
        "rlzoo": __version__,
        "plugins": [{"name": n, "distribution": d, "version": v} for n, d, v in plugins],
        "git": _git(Path(__file__).resolve().parents[2]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in ("torch", "torchaudio", "lightning-fabric", "numpy", "pydantic")},
        "argv": sys.argv,
        "host": socket.gethostname(),
        "cpus": os.cpu_count(),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit and whether files differ from it, if `folder` is a checkout; None: not known."""
    if shutil.which("git") is None or not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except subprocess.TimeoutExpired:
            return None  # a busy machine or a slow disk: unknown, and no reason not to run
        return done.stdout.strip() if done.returncode == 0 else None

    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


__all__ = ["RunDirectory", "State", "check_free", "default_path", "environment", "is_torn"]
