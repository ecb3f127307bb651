"""Scores kept on disk: the same audio, prompt and reward is scored once.

The key is a SHA-256 over what a score may depend on: the valid samples, their rate, the prompt, the reward's name,
version and options. Change a reward's `version` when its numbers change, and old scores are never seen again.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from rlzoo._reward import Reward
from rlzoo._types import Prompt, Samples, Scores
from rlzoo.errors import DataError
from rlzoo.plugin import Options

_SCHEMA = """
CREATE TABLE IF NOT EXISTS scores (
    key TEXT PRIMARY KEY, value REAL NOT NULL, parts TEXT NOT NULL, used REAL NOT NULL
) WITHOUT ROWID
"""


class ScoreCache:
    """A file of scores, shared by processes of one machine. Use it as a context manager, or `close` it."""

    def __init__(self, path: Path, max_rows: int = 1_000_000) -> None:
        self.path, self.max_rows = path, max_rows
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Other ranks write too; each waits for the others instead of failing.
            self._db = sqlite3.connect(path, timeout=60.0, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(_SCHEMA)
        except sqlite3.Error as error:
            self._db.close()
            raise self._unusable(error) from error

    def get(self, keys: Sequence[str]) -> dict[str, tuple[float, dict[str, float]]]:
        """Score and parts of every key that is there."""
        found: dict[str, tuple[float, dict[str, float]]] = {}
        try:
            for key in keys:
                row = self._db.execute("SELECT value, parts FROM scores WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[key] = float(row[0]), json.loads(row[1])
            self._db.executemany("UPDATE scores SET used = ? WHERE key = ?", [(time.time(), key) for key in found])
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return found

    def put(self, rows: dict[str, tuple[float, dict[str, float]]]) -> None:
        """Keep scores; the longest unused ones make room beyond `max_rows`."""
        now = time.time()
        values = [(key, value, json.dumps(parts), now) for key, (value, parts) in rows.items()]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", values)
            excess = self._count() - self.max_rows
            if excess > 0:
                oldest = "SELECT key FROM scores ORDER BY used LIMIT ?"
                self._db.execute(f"DELETE FROM scores WHERE key IN ({oldest})", (excess,))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def __len__(self) -> int:
        return self._count()

    def close(self) -> None:
        """Finish writing."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _count(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM scores").fetchone()[0])

    def _unusable(self, error: Exception) -> DataError:
        return DataError(f"the score cache '{self.path}' cannot be used: {error}", "delete the file, or switch it off")


class CachedReward(Reward[Options]):
    """A reward that looks its scores up first. `hits` and `misses` count rows.

    Where a gradient is wanted (the audio requires one) the cache is neither read nor counted: a number from a file has
    no gradient.
    """

    def __init__(self, name: str, reward: Reward[Any], cache: ScoreCache) -> None:
        super().__init__(reward.options)
        self.name, self.reward, self.cache = name, reward, cache
        self.sample_rate, self.version = reward.sample_rate, reward.version
        self.hits = self.misses = 0

    @property
    def hit_rate(self) -> float:
        """Share of rows found so far; 0 before the first."""
        return self.hits / max(1, self.hits + self.misses)

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
            fresh = self._compute(samples[missing], [prompts[row] for row in missing], [keys[row] for row in missing])
            self.cache.put({key: row for key, row in fresh.items() if _is_finite(row)})
            known |= fresh
        rows = [known[key] for key in keys]
        device = samples.data.device

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        parts = {name: column([row[1][name] for row in rows]) for name in (rows[0][1] if rows else {})}
        return Scores(column([row[0] for row in rows]), parts)

    def keys(self, samples: Samples, prompts: Sequence[Prompt]) -> list[str]:
        """The SHA-256 of each row, in hex."""
        common = [self.name, self.version, self.options.model_dump(mode="json"), samples.media.kind]
        data = samples.data.detach().to("cpu", torch.float32)
        keys = []
        for row, prompt in enumerate(prompts):
            wave = data[row, ..., : int(samples.lengths[row])].contiguous()
            about = [*common, samples.media.sample_rate, list(wave.shape), prompt.text, dict(prompt.attributes)]
            digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
            digest.update(wave.numpy().tobytes())
            keys.append(digest.hexdigest())
        return keys

    def _compute(
        self, samples: Samples, prompts: Sequence[Prompt], keys: Sequence[str]
    ) -> dict[str, tuple[float, dict[str, float]]]:
        scores = self.reward.score(samples, prompts)
        values = scores.values.detach().tolist()
        parts = {name: part.detach().tolist() for name, part in scores.parts.items()}
        rows = ((value, {name: part[row] for name, part in parts.items()}) for row, value in enumerate(values))
        return dict(zip(keys, rows, strict=True))


def _is_finite(row: tuple[float, dict[str, float]]) -> bool:
    """A score that is not finite stops the run; remembering it would stop the next one too."""
    return bool(torch.isfinite(torch.tensor(row[0])))


__all__ = ["CachedReward", "ScoreCache"]
