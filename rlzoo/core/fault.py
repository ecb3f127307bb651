"""The place in a plugin where its exception came from. Light."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

from rlzoo.errors import RlzooError

_LIBRARY = re.compile(
    rf"^{re.escape(Path(__file__).parent.parent.as_posix())}/"
    r"|-packages/(torch|torchaudio|numpy|pluggy)/|/importlib/|^<"
)


def describe_fault(error: BaseException) -> str:
    """An exception that a plugin did not mean to raise: `KeyError: 'x' (reward.py, line 12)`.

    The line is the last one outside rlzoo, torch and numpy, and outside of what imports a module.
    """
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, RlzooError):  # it names its cause and has a hint
        return text
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _LIBRARY.search(Path(f.filename).as_posix())]
    return f"{text} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else text
