"""Plants one bug at a time in a copy of the tree and runs the tests that should notice it.

    make mutate                              all of tests/planted/bugs.toml
    python tests/planted/run.py NAME ...     those whose name begins so

Says of each bug whether it was noticed. Exit status 1 where one was missed, 2 where the list does not fit the code.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUGS = Path(__file__).with_name("bugs.toml")
SECONDS = 900


@dataclass(frozen=True)
class Bug:
    """Text of a file that occurs there once, what replaces it, and the tests that must fail then."""

    name: str
    file: str
    old: str
    new: str
    tests: list[str]

    def planted(self, tree: Path) -> str:
        """The file's text with the bug in it. ValueError where the list does not fit the code any more."""
        text = (tree / self.file).read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: '{self.old}' occurs {text.count(self.old)} times in {self.file}")
        return text.replace(self.old, self.new)


def bugs() -> list[Bug]:
    """The list, in order."""
    listed = tomllib.loads(BUGS.read_text(encoding="utf-8"))
    return [Bug(name=name, **entry) for name, entry in listed.items()]


def copied(tree: Path) -> None:
    """What git knows of the project, as it lies here."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def noticed(bug: Bug, tree: Path) -> bool:
    """Whether a test fails with the bug in place; the tree is put back."""
    file = tree / bug.file
    sound = file.read_text(encoding="utf-8")
    file.write_text(bug.planted(tree), encoding="utf-8")
    roots = [tree, *sorted((tree / "plugins").iterdir())]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, roots)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *bug.tests]
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return True  # a test that never ends is a test that does not pass
    finally:
        file.write_text(sound, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise ValueError(f"{bug.name}: pytest ends with {done.returncode}: {done.stdout.decode()[-500:]}")
    return done.returncode == 1


def main() -> int:
    """Plant what is asked for, one after the other."""
    wanted = tuple(sys.argv[1:]) or ("",)
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copied(tree)
        for bug in (bug for bug in bugs() if bug.name.startswith(wanted)):
            try:
                found = noticed(bug, tree)
            except ValueError as error:
                print(error, file=sys.stderr)
                return 2
            missed += not found
            print(f"{'noticed' if found else 'MISSED'}  {bug.name}  {bug.file}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
