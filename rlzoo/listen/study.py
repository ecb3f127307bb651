"""A listening test on disk: a folder with the audio that is played and `listen.sqlite`. Light.

Every change is one transaction, flushed to the disk before the method returns; what was acknowledged survives a crash.
"""

from __future__ import annotations

import hashlib
import json
import random
import secrets
import sqlite3
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rlzoo.errors import DataError
from rlzoo.listen.sources import Pair

DATABASE = "listen.sqlite"
VERSION = 1
CHOICES = ("first", "second", "same")
NAME_LENGTH = 60
PATIENCE = 0.45
"""Seconds to wait for the lock of this process, and as many for the file's."""
_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
Side = Literal["a", "b", "anchor"]

_SCHEMA = """
CREATE TABLE study (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE pair (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, prompt TEXT NOT NULL) STRICT;
CREATE TABLE clip (
    id INTEGER PRIMARY KEY,
    side TEXT NOT NULL CHECK (side IN ('a', 'b', 'anchor')),
    pair INTEGER NOT NULL REFERENCES pair (id),
    source TEXT NOT NULL,
    played TEXT NOT NULL UNIQUE,
    UNIQUE (side, pair)
) STRICT;
CREATE TABLE rater (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, token_hash TEXT NOT NULL UNIQUE, joined TEXT NOT NULL
) STRICT;
CREATE TABLE trial (
    id TEXT PRIMARY KEY,
    rater INTEGER NOT NULL REFERENCES rater (id),
    position INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('pair', 'repeat', 'anchor')),
    pair INTEGER NOT NULL REFERENCES pair (id),
    first INTEGER NOT NULL REFERENCES clip (id),
    second INTEGER NOT NULL REFERENCES clip (id),
    first_sound TEXT NOT NULL UNIQUE,
    second_sound TEXT NOT NULL UNIQUE,
    UNIQUE (rater, position),
    UNIQUE (rater, kind, pair)
) STRICT;
CREATE TABLE answer (
    trial TEXT PRIMARY KEY REFERENCES trial (id),
    choice TEXT NOT NULL CHECK (choice IN ('first', 'second', 'same')),
    seconds REAL NOT NULL,
    plays INTEGER NOT NULL,
    answered TEXT NOT NULL
) STRICT;
"""


_COPY = "restore it from a copy"
_KINDS, _CHOICES, _SIDES = {"pair", "repeat", "anchor"}, {"first", "second", "same"}, {"a", "b", "anchor"}


@dataclass(frozen=True)
class Settings:
    """Settings of a test. `pairs`, `repeats` and `anchors` are trials of each rater; `anchor_snr` is in dB."""

    pairs: int = 20
    repeats: int = 2
    anchors: int = 2
    anchor_snr: float = 5.0
    max_raters: int = 100
    seed: int = 0
    question: str = "Which one sounds more natural?"
    show_text: bool = True
    match_level: bool = True

    def to_json(self) -> str:
        """One line, keys in order."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)


@dataclass(frozen=True)
class Clip:
    """A recording that is played: its side, the number of its pair, where it came from, its copy in the study."""

    side: str
    pair: int
    source: Path
    played: str


@dataclass(frozen=True)
class Rater:
    """Somebody who listens, and how far they are."""

    id: int
    name: str
    done: int
    total: int


@dataclass(frozen=True)
class Trial:
    """The next trial of a rater. Sounds are opaque names that only this rater may fetch."""

    id: str
    number: int
    total: int
    text: str
    first_sound: str
    second_sound: str


@dataclass(frozen=True)
class Answer:
    """A choice, resolved: the sides that were heard first and second, and which side was preferred (None: a tie)."""

    rater: int
    pair: int
    kind: str
    first: str
    second: str
    choice: str

    @property
    def preferred(self) -> str | None:
        """The side that was chosen, or None."""
        return {"first": self.first, "second": self.second}.get(self.choice)


class Refused(Exception):
    """A rater's request is not allowed (now). The text may be shown to the rater."""


class Busy(Exception):
    """The file is locked by another program, or cannot be written: nothing was recorded; the text may be shown."""


def create_database(
    path: Path,
    settings: Settings,
    fingerprint: str,
    labels: tuple[str, str],
    pairs: Sequence[Pair],
    clips: Sequence[Clip],
) -> None:
    """An empty test at `path`, which must not exist."""
    facts = {
        "version": str(VERSION),
        "settings": settings.to_json(),
        "fingerprint": fingerprint,
        "label_a": labels[0],
        "label_b": labels[1],
        "join_key": secrets.token_urlsafe(12),
    }
    connection = sqlite3.connect(path)
    try:
        connection.executescript(_SCHEMA)
        connection.executemany("INSERT INTO study VALUES (?, ?)", facts.items())
        connection.executemany(
            "INSERT INTO pair VALUES (?, ?, ?)",
            [
                (number, pair.key, json.dumps(dict(pair.prompt), ensure_ascii=False))
                for number, pair in enumerate(pairs)
            ],
        )
        connection.executemany(
            "INSERT INTO clip (side, pair, source, played) VALUES (?, ?, ?, ?)",
            [(clip.side, clip.pair, str(clip.source), clip.played) for clip in clips],
        )
        connection.commit()
    finally:
        connection.close()


class Study:
    """An opened test. Methods may be called from several threads."""

    def __init__(self, folder: Path, connection: sqlite3.Connection, reading: sqlite3.Connection) -> None:
        self.folder = folder
        # Who reads does not wait for who writes: each has a connection of its own, as the write-ahead log allows.
        self._connection, self._reading = connection, reading
        self._lock, self._read_lock = threading.Lock(), threading.Lock()
        facts = dict(self._all("SELECT key, value FROM study"))
        if facts.get("version") != str(VERSION):
            raise DataError(
                f"'{folder}' was made for format {facts.get('version')}, expected {VERSION}",
                "use the version of rlzoo that made it",
            )
        self.settings = Settings(**json.loads(facts["settings"]))
        self.fingerprint: str = facts["fingerprint"]
        self.labels: tuple[str, str] = facts["label_a"], facts["label_b"]
        self.join_key: str = facts["join_key"]
        self.prompts: dict[int, dict[str, Any]] = {
            number: json.loads(prompt) for number, prompt in self._all("SELECT id, prompt FROM pair")
        }
        rows = self._all("SELECT id, side, pair, source, played FROM clip ORDER BY id")
        self.clips: dict[tuple[str, int], int] = {(side, pair): number for number, side, pair, _, _ in rows}
        self.sources: dict[tuple[str, int], str] = {(side, pair): source for _, side, pair, source, _ in rows}
        self._played: dict[int, Path] = {number: folder / played for number, _, _, _, played in rows}

    @classmethod
    def open(cls, folder: Path) -> Study:
        """An existing test. DataError if there is none or it is damaged."""
        path = folder / DATABASE
        if not path.is_file():
            raise DataError(f"'{folder}' holds no listening test", "give the folder that `rlzoo listen` has made")
        connection, reading = (
            sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=PATIENCE) for _ in range(2)
        )
        try:
            with _passing():
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # an answer is on the disk before it is acknowledged
            connection.execute("PRAGMA foreign_keys = ON")
            reading.execute("PRAGMA query_only = ON")
            (problem,) = reading.execute("PRAGMA integrity_check(1)").fetchone()
            if problem != "ok":
                raise DataError(f"'{path}' is damaged: {problem}", _COPY)
            return cls(folder, connection, reading)
        except Busy as error:
            connection.close()
            reading.close()
            raise DataError(f"'{path}' cannot be used: {error.__cause__}", "end the program that holds it") from error
        except (sqlite3.Error, LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
            connection.close()
            reading.close()
            raise DataError(f"'{path}' is damaged: {error}", _COPY) from error
        except DataError:
            connection.close()
            reading.close()
            raise

    def close(self) -> None:
        """Release the database."""
        self._connection.close()
        self._reading.close()

    def set_max_raters(self, count: int) -> None:
        """Let more (or fewer) people in than so far."""
        self.settings = Settings(**{**asdict(self.settings), "max_raters": count})
        with self._transaction() as connection:
            connection.execute("UPDATE study SET value = ? WHERE key = 'settings'", (self.settings.to_json(),))

    def join(self, name: str) -> str:
        """A new rater and all of their trials; returns the secret token, of which only a hash is kept. Refused."""
        token = secrets.token_urlsafe(24)
        with self._transaction() as connection:
            (raters,) = connection.execute("SELECT count(*) FROM rater").fetchone()
            if raters >= self.settings.max_raters:
                raise Refused("This test is full. Thank you all the same!")
            row = (clean_name(name), _hash(token), datetime.now(UTC).isoformat(timespec="seconds"))
            cursor = connection.execute("INSERT INTO rater (name, token_hash, joined) VALUES (?, ?, ?)", row)
            rater = cursor.lastrowid
            trials = [
                (secrets.token_urlsafe(12), rater, position, kind, pair, self.clips[first, pair],
                 self.clips[second, pair], secrets.token_urlsafe(12), secrets.token_urlsafe(12))
                for position, (kind, pair, first, second) in enumerate(self._plan(raters))
            ]  # fmt: skip
            connection.executemany("INSERT INTO trial VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", trials)
        return token

    def rater(self, token: str) -> Rater | None:
        """Who a token belongs to."""
        rows = self._all(
            "SELECT rater.id, name, count(answer.trial), count(trial.id)"
            " FROM rater JOIN trial ON trial.rater = rater.id"
            " LEFT JOIN answer ON answer.trial = trial.id WHERE token_hash = ? GROUP BY rater.id",
            (_hash(token),),
        )
        return Rater(*rows[0]) if rows else None

    def current(self, rater: int) -> Trial | None:
        """The first trial without an answer, or None at the end."""
        rows = self._all(
            "SELECT id, position, pair, first_sound, second_sound,"
            " (SELECT count(*) FROM trial AS t WHERE t.rater = trial.rater) FROM trial"
            " WHERE rater = ? AND NOT EXISTS (SELECT 1 FROM answer WHERE answer.trial = trial.id)"
            " ORDER BY position LIMIT 1",
            (rater,),
        )
        if not rows:
            return None
        identity, position, pair, first, second, total = rows[0]
        text = self.prompts[pair]["text"] if self.settings.show_text else ""
        return Trial(identity, position + 1, total, text, first, second)

    def answer(self, rater: int, trial: str, choice: str, seconds: float, plays: int) -> None:
        """Record a choice; the same one twice is one. Refused for a trial of somebody else, out of turn, or changed."""
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT choice FROM trial LEFT JOIN answer ON answer.trial = trial.id WHERE trial.id = ? AND rater = ?",
                (trial, rater),
            ).fetchone()
            if row is None:
                raise Refused("There is no such question.")
            if row[0] == choice:
                return  # sent again because the acknowledgement was lost
            if row[0] is not None:
                raise Refused("This question has been answered already.")
            (turn,) = connection.execute(
                "SELECT trial.id FROM trial LEFT JOIN answer ON answer.trial = trial.id"
                " WHERE rater = ? AND answer.trial IS NULL ORDER BY position LIMIT 1",
                (rater,),
            ).fetchone()
            if turn != trial:
                raise Refused("An earlier question is still open.")
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            connection.execute("INSERT INTO answer VALUES (?, ?, ?, ?, ?)", (trial, choice, seconds, plays, now))

    def sound(self, rater: int, sound: str) -> Path | None:
        """The file behind an opaque name, if it is one of this rater's."""
        rows = self._all(
            "SELECT CASE first_sound WHEN ?1 THEN first ELSE second END FROM trial"
            " WHERE rater = ?2 AND (first_sound = ?1 OR second_sound = ?1)",
            (sound, rater),
        )
        return self._played[int(rows[0][0])] if rows else None

    def volume_sound(self) -> Path:
        """A recording to set the volume with: clean, and the same for everybody."""
        return self._played[self.clips["a", min(self.prompts)]]

    def raters(self) -> dict[int, str]:
        """Names by id."""
        return dict(self._all("SELECT id, name FROM rater ORDER BY id"))

    def answers(self) -> list[Answer]:
        """Every answer, in the order in which it was given."""
        rows = self._all(
            "SELECT rater, trial.pair, kind, f.side, s.side, choice FROM answer JOIN trial ON trial.id = answer.trial"
            " JOIN clip AS f ON f.id = trial.first JOIN clip AS s ON s.id = trial.second"
            " ORDER BY answered, answer.rowid"
        )
        for row in rows:
            if row[2] not in _KINDS or row[5] not in _CHOICES or not {row[3], row[4]} <= _SIDES:
                raise DataError(f"'{self.folder / DATABASE}' is damaged: no answer is {row!r}", _COPY)
        return [Answer(*row) for row in rows]

    def _plan(self, number: int) -> list[tuple[str, int, str, str]]:
        """(kind, pair, first side, second side) of the `number`-th rater, in order; it follows from the seed.

        Raters take turns through all pairs, so that each pair is heard equally often. Half of a rater's pairs start
        with either side. Repeats come in the second half, turned round, of pairs from the first.
        """
        settings = self.settings
        draw = random.Random(f"{settings.seed}/{number}")
        pool = list(self.prompts)
        random.Random(settings.seed).shuffle(pool)
        size = min(settings.pairs, len(pool))
        chosen = [pool[(number * size + offset) % len(pool)] for offset in range(size)]
        draw.shuffle(chosen)
        sides = [("a", "b") if index % 2 else ("b", "a") for index in range(size)]
        draw.shuffle(sides)
        plan = [("pair", pair, *side) for pair, side in zip(chosen, sides, strict=True)]
        half = (size + 1) // 2
        for _, pair, first, second in draw.sample(plan[:half], min(settings.repeats, half)):
            plan.insert(draw.randint(half, len(plan)), ("repeat", pair, second, first))
        anchored = [pair for side, pair in self.clips if side == "anchor"]
        for pair in draw.sample(anchored, min(settings.anchors, len(anchored))):
            both = [self._clean_side_of_anchor(pair), "anchor"]
            draw.shuffle(both)
            plan.insert(draw.randint(min(1, len(plan)), len(plan)), ("anchor", pair, both[0], both[1]))
        return plan

    def _clean_side_of_anchor(self, pair: int) -> str:
        return "a" if self.sources["anchor", pair] == self.sources["a", pair] else "b"

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._held(self._read_lock):
            try:
                return self._reading.execute(query, values).fetchall()
            except sqlite3.Error as error:
                if _passes(error):
                    raise
                raise DataError(f"'{self.folder / DATABASE}' is damaged: {error}", _COPY) from error

    @contextmanager
    def _held(self, lock: threading.Lock) -> Iterator[None]:
        """Busy where others hold it, or the file, for longer than anybody wants to wait for a page."""
        if not lock.acquire(timeout=PATIENCE):
            raise Busy("The server is busy. Please try again.")
        try:
            with _passing():
                yield
        finally:
            lock.release()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._held(self._lock):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


@contextmanager
def _passing() -> Iterator[None]:
    """Busy for an error that may be gone in a moment; what is wrong with the file itself stays what it is."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if not _passes(error):
            raise
        raise Busy("The test's file is in use, or the disk is full. Please try again.") from error


def _passes(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING  # text that is not UTF-8 has no code


def clean_name(name: str) -> str:
    """Printable, one line, at most 60 characters; what it means is for the reader to escape."""
    printable = "".join(" " if character.isspace() else character for character in name)
    kept = "".join(character for character in printable if unicodedata.category(character)[0] != "C")
    return " ".join(kept.split())[:NAME_LENGTH].strip() or "anonymous"


def _hash(token: str) -> str:
    # Tokens have 192 random bits, so that nothing slower than one SHA-256 is needed.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
