"""Whose run directory it is. Light.

A run directory is data, but its `config.json` may name programs: one-file plugins, the command of a `process` reward.
What rlzoo writes there on this machine it signs, with a secret that no directory from elsewhere can have been signed
with (HMAC-SHA-256 over the values, key in the user's state directory). Own runs may be moved, copied and resumed
freely; for anything else the programs are named, and nothing is run without `--trust`.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlzoo.errors import DataError
from rlzoo.files.writing import replacing, sweep

SIGNED = "signed"
"""Key of `config.json`."""
_KEY_BYTES = 32


def signature(values: Mapping[str, Any]) -> str:
    """Signature of the values of a run, in hex; empty if no secret can be stored."""
    key = _key()
    return hmac.new(key, _canonical(values), hashlib.sha256).hexdigest() if key else ""


def is_signed(values: Mapping[str, Any], found: Any) -> bool:
    """True if `found` is what `signature` gives here."""
    expected = signature(values)
    return bool(expected) and isinstance(found, str) and hmac.compare_digest(expected.encode(), found.encode())


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True).encode()


def _key() -> bytes:
    """The user's secret, made when it is first needed; empty if it can be neither read nor written."""
    import platformdirs

    path = Path(platformdirs.user_state_dir("rlzoo", appauthor=False)) / "key"
    with contextlib.suppress(OSError, DataError):
        if not path.exists():
            _make(path)
        key = path.read_bytes()
        return key if len(key) == _KEY_BYTES else b""
    return b""


def _make(path: Path) -> None:
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if path.exists():  # another process has made one meanwhile, which counts for both
            return
        sweep(path.parent, path.name)
        with replacing(path) as temporary:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))


__all__ = ["SIGNED", "is_signed", "signature"]
