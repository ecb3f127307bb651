"""Listening tests: what is compared, who hears what, what is kept, what the figures say."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from rlzoo.errors import ConfigError, DataError
from rlzoo.listen import export, sources
from rlzoo.listen.limits import Limiter
from rlzoo.listen.prepare import prepare, with_noise
from rlzoo.listen.report import agreement, consistency, majorities, preference, report, unreliable
from rlzoo.listen.study import Answer, Refused, Settings, Study, clean_name
from rlzoo.preferences import read_preferences

RATE = 8000


def speak(path: Path, seed: int, seconds: float = 0.4, level: float = 0.1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * RATE)) / RATE
    soundfile.write(path, level * np.sin(2 * np.pi * (200 + 20 * seed) * time), RATE)


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch):
    """Every study that a test opens is closed after it."""
    opened: list[Study] = []
    begin = Study.__init__

    def noted(self, *arguments) -> None:
        opened.append(self)
        begin(self, *arguments)

    monkeypatch.setattr(Study, "__init__", noted)
    yield
    for study in opened:
        study.close()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for number in range(6):
        speak(tmp_path / "plain" / f"p{number}.wav", number)
        speak(tmp_path / "tuned" / f"p{number}.wav", number + 1, level=0.3)
    (tmp_path / "plain" / "metadata.csv").write_text("".join(f"p{n}|Sentence {n}.|x\n" for n in range(6)))
    return tmp_path / "plain", tmp_path / "tuned"


def make(tmp_path: Path, folders: tuple[Path, Path], **settings) -> Study:
    return prepare(tmp_path / "study", *sources.open_sources(folders), Settings(**settings))


def run_directory(path: Path, steps: list[int]) -> Path:
    for step in steps:
        rows = []
        for prompt in ("hello", "bye"):
            file = f"samples/{step:06d}/{prompt}-0.wav"
            speak(path / file, step + len(prompt))
            rows.append({"file": file, "prompt": prompt, "text": prompt.title() + ".", "index": 0, "scores": {}})
        (path / f"samples/{step:06d}/index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "config.json").write_text("{}")
    return path


# Sources


def test_a_run_alone_is_compared_with_its_base(tmp_path):
    run = run_directory(tmp_path / "run", [0, 20, 100])
    a, b = sources.open_sources([run])
    pairs = sources.match(a, b)
    assert [pair.key for pair in pairs] == ["bye-0", "hello-0"]
    assert pairs[1].prompt == {"id": "hello", "text": "Hello.", "attributes": {}}
    assert (pairs[0].a.parent.name, pairs[0].b.parent.name) == ("000000", "000100")


def test_steps_of_two_runs_can_be_chosen(tmp_path):
    one, two = run_directory(tmp_path / "one", [0, 10]), run_directory(tmp_path / "two", [0, 20])
    a, b = sources.open_sources([one, two], step_b=0)
    assert (a.label, b.label) == (f"{one} (step 10)", f"{two} (step 0)")
    with pytest.raises(DataError, match="no recordings of step 7"):
        sources.open_sources([one, two], step_a=7)


def test_sources_that_cannot_be_compared_are_refused(tmp_path, folders):
    with pytest.raises(ConfigError, match="expected two"):
        sources.open_sources([folders[0]])
    with pytest.raises(DataError, match="not a directory"):
        sources.open_sources([folders[0], tmp_path / "nowhere"])
    with pytest.raises(DataError, match="one evaluation only"):
        sources.open_sources([run_directory(tmp_path / "run", [0])])
    speak(tmp_path / "other" / "q.wav", 1)
    with pytest.raises(DataError, match="no file name in common"):
        sources.match(*sources.open_sources([folders[0], tmp_path / "other"]))
    (folders[1] / "metadata.csv").write_text("p0|Something else.|x\n")
    with pytest.raises(DataError, match="say different things"):
        sources.match(*sources.open_sources(folders))


def test_unequal_rates_are_said(tmp_path, folders):
    pairs = sources.match(*sources.open_sources(folders))
    assert sources.unequal_rates(pairs) == ""
    soundfile.write(folders[1] / "p3.wav", np.full(100, 0.1), 16_000)
    assert "in 1 of 6 pairs the rates differ, as in 'p3' (8000 and 16000 Hz)" in sources.unequal_rates(pairs)


def test_an_index_cannot_point_out_of_its_folder(tmp_path):
    run = run_directory(tmp_path / "run", [0, 1])
    speak(tmp_path / "secret.wav", 3)
    index = run / "samples/000000/index.jsonl"
    index.write_text(json.dumps({"file": "../../../secret.wav", "prompt": "x", "text": "x"}) + "\n")
    recordings = sources.open_source(run, 0).recordings
    assert {recording.path.parent for recording in recordings.values()} == {index.parent}


# Preparation


def test_everything_is_played_equally_loud_and_names_tell_nothing(tmp_path, folders):
    study = make(tmp_path, folders)
    played = sorted((tmp_path / "study" / "audio").iterdir())
    levels = [float(np.sqrt(np.mean(soundfile.read(path)[0] ** 2))) for path in played]
    clean = [path for path in played if path.name in {p.name for p in _played(study, ("a", "b"))}]
    assert len(clean) == 12
    assert np.ptp([20 * np.log10(level) for level in levels]) < 0.6
    assert all(len(path.stem) == 16 and "p" not in path.stem for path in played)


def _played(study: Study, sides) -> list[Path]:
    connection = sqlite3.connect(study.folder / "listen.sqlite")
    rows = connection.execute("SELECT side, played FROM clip").fetchall()
    connection.close()
    return [study.folder / played for side, played in rows if side in sides]


def test_own_levels_are_kept_when_asked_for(tmp_path, folders):
    study = make(tmp_path, folders, match_level=False)
    peaks = sorted({round(float(np.abs(soundfile.read(path)[0]).max()), 2) for path in _played(study, ("a", "b"))})
    assert peaks == [0.1, 0.3]


def test_an_anchor_has_the_noise_it_says():
    time = torch.arange(4 * RATE) / RATE
    wave = 0.1 * torch.sin(2 * torch.pi * 300 * time)
    noisy = with_noise(wave, RATE, 5.0, seed=1)
    snr = 10 * torch.log10(wave.square().mean() / (noisy - wave).square().mean())
    assert float(snr) == pytest.approx(5.0, abs=0.2)
    assert torch.equal(noisy, with_noise(wave, RATE, 5.0, seed=1))
    loud = with_noise(9 * wave, RATE, -5.0, seed=1)
    assert float(loud.abs().max()) <= 0.99 + 1e-6


def test_the_same_command_goes_on_and_another_is_refused(tmp_path, folders):
    study = make(tmp_path, folders)
    token = study.join("Ann")
    study.close()
    again = make(tmp_path, folders, max_raters=3)
    assert again.rater(token).name == "Ann"
    assert again.settings.max_raters == 3
    with pytest.raises(DataError, match="other recordings or other settings"):
        make(tmp_path, folders, seed=1)
    speak(folders[1] / "p0.wav", 9)
    with pytest.raises(DataError, match="other recordings or other settings"):
        make(tmp_path, folders)


def test_equal_sources_foreign_folders_and_broken_audio_are_refused(tmp_path, folders):
    with pytest.raises(DataError, match="same audio"):
        make(tmp_path, (folders[0], shutil.copytree(folders[0], tmp_path / "copy")))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(DataError, match="holds no listening test"):
        prepare(tmp_path / "mine", *sources.open_sources(folders), Settings())
    (folders[1] / "p3.wav").write_text("no audio")
    with pytest.raises(DataError, match="cannot be read as audio"):
        make(tmp_path, folders)
    assert not (tmp_path / "study").exists()
    assert not list(tmp_path.glob(".study*"))


# Plans


def trials(study: Study) -> list[dict]:
    connection = sqlite3.connect(study.folder / "listen.sqlite")
    connection.row_factory = sqlite3.Row
    rows = connection.execute(
        "SELECT rater, position, kind, trial.pair, f.side AS first, s.side AS second FROM trial"
        " JOIN clip f ON f.id = first JOIN clip s ON s.id = second ORDER BY rater, position"
    ).fetchall()
    connection.close()
    return [dict(row) for row in rows]


def test_plans_are_balanced_and_random_and_follow_from_the_seed(tmp_path, folders):
    study = make(tmp_path, folders, pairs=4, repeats=1, anchors=2)
    for number in range(6):
        study.join(f"r{number}")
    rows = trials(study)
    plain = [row for row in rows if row["kind"] == "pair"]
    assert set(Counter(row["pair"] for row in plain).values()) == {4}  # 6 raters x 4 pairs over 6 prompts
    assert all(Counter(row["first"] for row in plain if row["rater"] == r) == {"a": 2, "b": 2} for r in range(1, 7))
    orders = {tuple(row["pair"] for row in plain if row["rater"] == rater) for rater in range(1, 7)}
    assert len(orders) > 3
    for repeat in (row for row in rows if row["kind"] == "repeat"):
        (original,) = (r for r in plain if (r["rater"], r["pair"]) == (repeat["rater"], repeat["pair"]))
        assert repeat["position"] > original["position"]
        assert (repeat["first"], repeat["second"]) == (original["second"], original["first"])
    assert all("anchor" in (row["first"], row["second"]) for row in rows if row["kind"] == "anchor")
    twin = prepare(tmp_path / "twin", *sources.open_sources(folders), Settings(pairs=4, repeats=1, anchors=2))
    for number in range(6):
        twin.join(f"s{number}")
    assert trials(twin) == rows


# Answers


def play(study: Study, token: str, choose=lambda trial: "first") -> None:
    rater = study.rater(token)
    while (trial := study.current(rater.id)) is not None:
        study.answer(rater.id, trial.id, choose(trial), 1.0, 2)


def test_anchors_are_heard_first_as_often_as_second(tmp_path, folders):
    """Whoever always answers "second" must not find every anchor."""
    study = make(tmp_path, folders, pairs=6, repeats=0, anchors=3)
    places = Counter(
        first == "anchor" for number in range(20) for kind, _, first, _ in study._plan(number) if kind == "anchor"
    )
    assert sum(places.values()) == 60
    assert 15 <= places[True] <= 45


def test_an_answer_counts_once_in_turn_and_for_its_own_rater(tmp_path, folders):
    study = make(tmp_path, folders, pairs=3, repeats=0, anchors=0)
    ann, bob = (study.rater(study.join(name)) for name in ("Ann", "Bob"))
    trial = study.current(ann.id)
    assert (trial.number, trial.total) == (1, 3)
    assert trial.text.startswith("Sentence")
    study.answer(ann.id, trial.id, "same", 1.0, 2)
    study.answer(ann.id, trial.id, "same", 1.0, 2)
    assert len(study.answers()) == 1
    with pytest.raises(Refused, match="already"):
        study.answer(ann.id, trial.id, "first", 1.0, 2)
    with pytest.raises(Refused, match="no such"):
        study.answer(bob.id, trial.id, "first", 1.0, 2)
    connection = sqlite3.connect(study.folder / "listen.sqlite")
    (last,) = connection.execute("SELECT id FROM trial WHERE rater = ? AND position = 2", (ann.id,)).fetchone()
    connection.close()
    with pytest.raises(Refused, match="earlier"):
        study.answer(ann.id, last, "first", 1.0, 2)
    assert [answer.choice for answer in study.answers()] == ["same"]
    assert study.sound(ann.id, trial.first_sound).parent == study.folder / "audio"
    assert study.sound(bob.id, trial.first_sound) is None


def test_tokens_are_kept_as_hashes_and_places_are_limited(tmp_path, folders):
    study = make(tmp_path, folders, max_raters=1)
    token = study.join("Ann")
    with pytest.raises(Refused, match="full"):
        study.join("Bob")
    study.close()
    content = b"".join(path.read_bytes() for path in (tmp_path / "study").glob("listen.sqlite*"))
    assert b"Ann" in content
    assert token.encode() not in content


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", "anonymous"),
        ("  Ann\n\tLee ", "Ann Lee"),
        ("\x1b[31mred\x00", "[31mred"),
        ("<script>", "<script>"),
        ("\u202eevil", "evil"),
        ("x" * 500, "x" * 60),
    ],
)
def test_names_are_one_printable_line(given, kept):
    assert clean_name(given) == kept


def test_a_damaged_database_is_said_to_be(tmp_path):
    (tmp_path / "listen.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(DataError, match="damaged"):
        Study.open(tmp_path)


def test_limiter_lets_a_burst_through_and_then_the_rate():
    now = [0.0]
    limiter = Limiter(rate=2.0, burst=3, clock=lambda: now[0])
    assert [limiter.wait("x") for _ in range(3)] == [0, 0, 0]
    assert limiter.wait("x") == pytest.approx(0.5)
    assert limiter.wait("y") == 0
    now[0] = 0.5
    assert limiter.wait("x") == 0
    assert limiter.wait("x") > 0
    for number in range(20_000):
        limiter.wait(str(number))
    assert len(limiter._buckets) <= 10_000


# Figures


def test_preference_equals_the_closed_forms():
    found = preference(a=2, b=8, ties=5)
    out, split = found["ties_excluded"], found["ties_split"]
    # P(X <= 2 or X >= 8) for 10 fair coins is 2 (1 + 10 + 45) / 1024.
    assert out["p"] == pytest.approx(112 / 1024)
    # Wilson: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).
    z, n, p = 1.959963984540054, 10, 0.8
    centre, half = p + z**2 / 20, z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (out["low"], out["high"]) == pytest.approx(
        ((centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n))
    )
    assert (split["count"], split["share"]) == (14, pytest.approx(10 / 14))  # the odd tie is dropped
    assert preference(0, 0, 3)["ties_excluded"]["p"] is None


def answers(*rows) -> list[Answer]:
    """(rater, pair, preferred) of plain pairs in which a is heard first."""
    return [Answer(r, p, "pair", "a", "b", {"a": "first", "b": "second", None: "same"}[x]) for r, p, x in rows]


def test_majorities_count_groups_not_answers():
    given = answers((1, 0, "b"), (2, 0, "b"), (3, 0, "a"), (1, 1, "a"), (2, 1, "b"), (1, 2, None))
    found = majorities(given, [answer.pair for answer in given])
    assert (found["a"], found["b"], found["even"]) == (0, 1, 2)


def test_alpha_is_one_for_agreement_zero_for_chance_and_negative_for_opposition():
    rng = np.random.default_rng(0)
    agree = answers(*[(r, p, "ab"[p % 2]) for r in range(4) for p in range(10)])
    assert agreement(agree)["alpha"] == pytest.approx(1.0)
    chance = answers(*[(r, p, "ab"[rng.integers(2)]) for r in range(8) for p in range(200)])
    assert abs(agreement(chance)["alpha"]) < 0.05
    oppose = answers(*[(r, p, "ab"[r]) for r in range(2) for p in range(10)])
    assert agreement(oppose)["alpha"] < 0
    assert agreement(answers((1, 0, "a"), (2, 1, "b")))["reason"] == "no prompt was heard by two raters"
    assert agreement(answers((1, 0, "a"), (2, 0, "a")))["alpha"] is None


def test_alpha_of_two_raters_with_a_literal_restatement():
    """Two raters, binary: alpha = 1 - (n - 1) o / (n_a n_b) with o off-diagonal coincidences."""
    votes = [("a", "a"), ("a", "b"), ("b", "b"), ("b", "b"), ("a", "a"), ("b", "a"), ("b", "b")]
    given = answers(*[(rater, pair, vote[rater]) for pair, vote in enumerate(votes) for rater in range(2)])
    flat = [side for vote in votes for side in vote]
    disagreeing = sum(x != y for x, y in votes)
    expected = 1 - (len(flat) - 1) * disagreeing / (flat.count("a") * flat.count("b"))
    assert agreement(given)["alpha"] == pytest.approx(expected)


def test_alpha_counts_a_tie_as_nearer_than_the_opposite_with_a_literal_restatement():
    """Ordinal: the distance of c <= k is (sum of n_g for c <= g <= k - (n_c + n_k) / 2)^2 (Krippendorff 2011)."""
    votes = [("a", "a"), ("a", None), ("b", "b"), (None, "b"), ("a", "b"), (None, None), ("a", "a")]
    given = answers(*[(rater, pair, vote[rater]) for pair, vote in enumerate(votes) for rater in range(2)])
    order = ["a", None, "b"]
    ranks = [tuple(map(order.index, vote)) for vote in votes]
    counts = [sum(vote.count(value) for vote in votes) for value in order]

    def distance(one: int, other: int) -> float:
        low, high = sorted((one, other))
        return (sum(counts[low : high + 1]) - (counts[low] + counts[high]) / 2) ** 2

    observed = sum(2 * distance(*pair) for pair in ranks) / sum(counts)
    chance = sum(counts[c] * counts[k] * distance(c, k) for c in range(3) for k in range(3))
    expected = 1 - observed * sum(counts) * (sum(counts) - 1) / chance
    assert agreement(given)["alpha"] == pytest.approx(expected)


def test_consistency_and_raters_who_do_not_listen():
    given = [
        Answer(1, 0, "pair", "a", "b", "first"),
        Answer(1, 0, "repeat", "b", "a", "second"),  # a again
        Answer(1, 1, "pair", "a", "b", "first"),
        Answer(1, 1, "repeat", "b", "a", "first"),  # now b
        Answer(1, 2, "anchor", "anchor", "b", "second"),
        Answer(2, 2, "anchor", "a", "anchor", "second"),
        Answer(2, 3, "anchor", "a", "anchor", "same"),
    ]
    found = consistency(given)
    assert found["repeats"] == {"heard": 2, "equal": 1, "reversed": 1}
    assert found["anchors"] == {"heard": 3, "found": 1, "same": 1}
    assert found["heard_first"]["chosen"] == 2
    assert unreliable(given, 0.5) == {2}
    assert unreliable(given, 0.0) == set()
    with pytest.raises(ConfigError, match="0 to 1"):
        unreliable(given, 50)


def sides_of(study: Study) -> dict[str, tuple[str, str]]:
    connection = sqlite3.connect(study.folder / "listen.sqlite")
    query = "SELECT trial.id, f.side, s.side FROM trial JOIN clip f ON f.id = first JOIN clip s ON s.id = second"
    rows = connection.execute(query).fetchall()
    connection.close()
    return {trial: (first, second) for trial, first, second in rows}


def test_report_and_export_of_listeners_who_prefer_b(tmp_path, folders):
    study = make(tmp_path, folders, pairs=6, repeats=2, anchors=2)
    tokens = [study.join(name) for name in ("Ann", "Bob", "deaf")]
    sides = sides_of(study)

    def prefers_b(trial):
        first, second = sides[trial.id]
        return "first" if second == "anchor" or (first == "b" and second != "anchor") else "second"

    for token in tokens[:2]:
        play(study, token, prefers_b)
    play(study, tokens[2], lambda trial: "same")
    found = report(study)
    assert found["preference"]["b"] == 12
    assert found["preference"]["ties"] == 6
    assert found["over_prompts"]["b"] == 6
    assert found["consistency"]["anchors"] == {"heard": 6, "found": 4, "same": 2}
    assert found["consistency"]["repeats"]["equal"] == 6
    assert found["by_rater"][2]["anchors"]["found"] == 0
    json.dumps(found, allow_nan=False)
    strict = report(study, min_anchors=0.5)
    assert strict["excluded"] == ["deaf"]
    assert strict["preference"]["ties"] == 0

    rows = export.pairs(study, set())
    assert len(rows) == 18
    assert Counter(row["tie"] for row in rows) == {False: 12, True: 6}
    decided = export.pairs(study, set(), ties=False)
    assert set(decided[0]) == {"prompt", "preferred", "rejected", "rater", "tie"}
    assert {Path(row["preferred"]).parent for row in decided} == {folders[1].resolve()}
    assert all(Path(row["preferred"]).name == Path(row["rejected"]).name for row in decided)
    export.write(tmp_path / "pairs.jsonl", rows)
    read = read_preferences(tmp_path / "pairs.jsonl")
    assert [(p.prompt.id, *map(str, p.recordings), p.rater, p.tie) for p in read] == [
        (row["prompt"]["id"], row["preferred"], row["rejected"], row["rater"], row["tie"]) for row in rows
    ]
    (folders[1] / "p0.wav").unlink()
    with pytest.raises(DataError, match="no longer there"):
        export.pairs(study, set())


def test_no_answers_is_an_error(tmp_path, folders):
    with pytest.raises(DataError, match="no answers yet"):
        report(make(tmp_path, folders))
