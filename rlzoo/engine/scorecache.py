"""Scores kept on disk: the same audio, prompt and reward is scored once.

The key is a SHA-256 over everything that a score may depend on: the valid samples, their rate and device, the prompt,
the name of the reward and its `Reward.cache_key`. If scores change for another reason, change the reward's `version`.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from rlzoo.core.reward import Reward, unsound
from rlzoo.core.specs import Options
from rlzoo.core.types import Prompt, Samples, Scores
from rlzoo.errors import DataError
from rlzoo.files import assets

_SCHEMA = """
CREATE TABLE IF NOT EXISTS scores (
    key TEXT PRIMARY KEY, value REAL NOT NULL, parts TEXT NOT NULL, used REAL NOT NULL
) WITHOUT ROWID
"""


class ScoreCache:
    """A file of scores, shared by processes of one machine. DataError if it cannot be used."""

    def __init__(self, path: Path, max_rows: int = 1_000_000) -> None:
        self.path, self.max_rows = path, max_rows
        with self._open() as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(_SCHEMA)

    def get(self, keys: Sequence[str]) -> dict[str, tuple[float, dict[str, float]]]:
        """Score and parts of every key that is there."""
        found: dict[str, tuple[float, dict[str, float]]] = {}
        with self._open() as db:
            for key in keys:
                row = db.execute("SELECT value, parts FROM scores WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[key] = float(row[0]), _parts(row[1])
            if found:
                db.execute("BEGIN IMMEDIATE")
                db.executemany("UPDATE scores SET used = ? WHERE key = ?", [(time.time(), key) for key in found])
                db.execute("COMMIT")
        return found

    def put(self, rows: dict[str, tuple[float, dict[str, float]]]) -> None:
        """Keep scores; the longest unused ones make room beyond `max_rows`."""
        now = time.time()
        values = [(key, value, json.dumps(parts), now) for key, (value, parts) in rows.items()]
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", values)
            excess = _count(db) - self.max_rows
            if excess > 0:
                oldest = "SELECT key FROM scores ORDER BY used LIMIT ?"
                db.execute(f"DELETE FROM scores WHERE key IN ({oldest})", (excess,))
            db.execute("COMMIT")

    def __len__(self) -> int:
        with self._open() as db:
            return _count(db)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one operation, so that there is none to close, to inherit over a fork or to lose."""
        db = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Other processes write too; each waits for the others instead of failing.
            db = sqlite3.connect(self.path, timeout=60.0, isolation_level=None)
            db.execute("PRAGMA synchronous=NORMAL")
            yield db
        except (OSError, sqlite3.Error, ValueError, TypeError) as error:
            raise DataError(
                f"the score cache '{self.path}' cannot be used: {error}",
                "delete the file, or switch the cache off: train.score_cache=false in a run, --no-cache in rlzoo eval",
            ) from error
        finally:
            if db is not None:
                db.close()


def _parts(text: str) -> dict[str, float]:
    """ValueError or TypeError if somebody else wrote it."""
    return {str(name): float(value) for name, value in json.loads(text).items()}


def _count(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM scores").fetchone()[0])


def open_cache() -> ScoreCache:
    """The user's own, `scores.sqlite` beside the weights (`RLZOO_CACHE`). DataError if it cannot be used."""
    return ScoreCache(assets.cache_dir() / "scores.sqlite")


class CachedReward(Reward[Options]):
    """A reward that looks its scores up first. `hits` and `misses` count rows since they were last set to 0.

    Where a gradient is wanted (the audio requires one) the cache is neither read nor counted: a number from a file has
    no gradient.
    """

    def __init__(self, name: str, reward: Reward[Any], cache: ScoreCache) -> None:
        super().__init__(reward.options)
        self.name, self.reward, self.cache = name, reward, cache
        self.sample_rate, self.version = reward.sample_rate, reward.version
        self.hits = self.misses = 0
        self._about = [name, reward.cache_key()]

    def to(self, device: torch.device | str) -> Self:
        """Move the reward."""
        self.reward = self.reward.to(device)
        return self

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """As the reward's own; only rows that are not known are computed."""
        if torch.is_grad_enabled() and samples.data.requires_grad:
            return self.reward.score(samples, prompts)
        keys = self.keys(samples, prompts)
        known = self.cache.get(keys)
        missing = [row for row, key in enumerate(keys) if key not in known]
        self.hits += len(keys) - len(missing)
        self.misses += len(missing)
        if missing:
            scores = self.reward.score(samples[missing], [prompts[row] for row in missing])
            if unsound(scores, samples[missing]):
                return scores  # the caller reports the reward's error
            fresh = _rows(scores, [keys[row] for row in missing])
            self.cache.put({key: row for key, row in fresh.items() if math.isfinite(row[0])})
            known |= fresh
        rows = [known[key] for key in keys]
        device = samples.data.device

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        parts = {name: column([row[1][name] for row in rows]) for name in (rows[0][1] if rows else {})}
        return Scores(column([row[0] for row in rows]), parts)

    def keys(self, samples: Samples, prompts: Sequence[Prompt]) -> list[str]:
        """The SHA-256 of each row, in hex."""
        common = [*self._about, samples.media.kind, samples.data.device.type]
        data = samples.data.detach().to("cpu", torch.float32)
        keys = []
        for row, prompt in enumerate(prompts):
            wave = data[row, ..., : int(samples.lengths[row])].contiguous()
            about = [*common, samples.media.sample_rate, list(wave.shape), prompt.text, dict(prompt.attributes)]
            digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
            digest.update(wave.numpy().tobytes())
            keys.append(digest.hexdigest())
        return keys


def _rows(scores: Scores, keys: Sequence[str]) -> dict[str, tuple[float, dict[str, float]]]:
    values = scores.values.detach().tolist()
    parts = {name: part.detach().tolist() for name, part in scores.parts.items()}
    rows = ((value, {name: part[row] for name, part in parts.items()}) for row, value in enumerate(values))
    return dict(zip(keys, rows, strict=True))


def with_cache(name: str, reward: Reward[Any], cache: ScoreCache | None) -> Reward[Any]:
    """The reward, with its scores kept where there is a cache."""
    return reward if cache is None else CachedReward(name, reward, cache)


__all__ = ["CachedReward", "ScoreCache", "open_cache", "with_cache"]
