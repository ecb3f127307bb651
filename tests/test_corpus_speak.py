"""Corpora that engines speak: real speech from the real programs, and what happens when something is wrong."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from rlzoo.errors import DataError
from rlzoo.speech.corpus import speak
from rlzoo.speech.corpus._files import read_jsonl
from rlzoo.speech.corpus.engines.command import CommandEngine
from rlzoo.speech.corpus.engines.flite import FliteEngine, arpabet, parse_durations
from rlzoo.speech.corpus.engines.hibari import HibariEngine, spell
from rlzoo.speech.corpus.speak import Recipe, clean_text, distinct_sentences, speak_corpus
from rlzoo.speech.corpus.speech import SpeechCorpus
from rlzoo.speech.corpus.splits import split_of
from rlzoo.speech.corpus.waves import resample
from rlzoo.text import TextFrontend

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="the program flite is not installed")

TEXTS = ["The cat sat down.", "Twelve boats left at 3:30.", "the  CAT sat down.", "What a measure of joy!"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    if shutil.which("flite") is None:
        pytest.skip("the program flite is not installed")
    folder = tmp_path_factory.mktemp("corpus") / "rms8k"
    made = speak_corpus(TEXTS, folder, Recipe(FliteEngine(), 8000), jobs=1, progress=False)
    return folder, made


def test_sentences_that_differ_in_case_and_space_are_spoken_once(corpus):
    folder, made = corpus
    assert (made.sentences, made.spoken) == (3, 3)
    assert len(list((folder / "wavs").iterdir())) == 3


def test_every_file_of_the_layout_agrees_with_the_audio(corpus):
    folder, made = corpus
    rows = {row["id"]: row for row in read_jsonl(folder / "phones.jsonl")}
    metadata = [line.split("|") for line in (folder / "metadata.csv").read_text().splitlines()]
    assert sorted(rows) == sorted(line[0] for line in metadata)
    assert {name: text for name, text in metadata} == {name: row["text"] for name, row in rows.items()}
    splits = [(folder / f"{name}.txt").read_text().split() for name in ("train", "validation", "test")]
    assert sorted(name for names in splits for name in names) == sorted(rows)
    seconds = 0.0
    for name, row in rows.items():
        info = soundfile.info(folder / "wavs" / f"{name}.wav")
        assert (info.samplerate, info.channels, info.subtype) == (8000, 1, "PCM_16")
        assert len(row["phones"]) == len(row["ends"])
        assert row["ends"] == sorted(row["ends"])
        assert row["ends"][-1] == pytest.approx(info.duration, abs=0.02)
        assert row["phones"][0] == row["phones"][-1] == "sil"
        seconds += info.duration
    assert made.hours * 3600 == pytest.approx(seconds, abs=0.01)


def test_the_phones_are_the_words_and_the_numbers_are_spelled_out(corpus):
    folder, _ = corpus
    rows = {row["text"]: row for row in read_jsonl(folder / "phones.jsonl")}
    assert rows["The cat sat down."]["phones"][1:6] == ["DH", "AH0", "K", "AE", "T"]
    assert rows["Twelve boats left at 3:30."]["words"] == "twelve boats left at three thirty"
    assert "ZH" in rows["What a measure of joy!"]["phones"]


def test_the_phone_times_point_at_the_sound(corpus):
    folder, _ = corpus
    for row in read_jsonl(folder / "phones.jsonl"):
        wave, rate = soundfile.read(folder / "wavs" / f"{row['id']}.wav")
        spans = zip(row["phones"], [0.0, *row["ends"]], row["ends"], strict=False)
        power = {name: [] for name in ("vowel", "sil")}
        for phone, start, end in spans:
            middle = wave[int((start * 0.75 + end * 0.25) * rate) : int((start * 0.25 + end * 0.75) * rate)]
            if phone == "sil" or phone[0] in "AEIOU":
                power["sil" if phone == "sil" else "vowel"].append(np.mean(middle**2))
        # 20 dB: a shift of the times by a phone or two would mix the two groups.
        assert np.mean(power["vowel"]) > 100 * np.mean(power["sil"])


def test_the_card_says_what_it_is(corpus):
    folder, _ = corpus
    card = json.loads((folder / "card.json").read_text())
    assert card["status"] == "complete"
    assert (card["sentences"], card["sample_rate"]) == (3, 8000)
    assert card["recipe"]["voice"] == "rms"
    assert card["phones"]["sil"] >= 6
    assert card["splits"]["train"] + card["splits"]["validation"] + card["splits"]["test"] == 3
    assert (card["recipe"]["engine"], card["clean"]) == ("flite", 3)
    assert "all recordings are clean" in (folder / "card.md").read_text()


@needs_flite
def test_a_killed_build_resumes_and_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    texts = [f"Number {n} is here." for n in range(5)]
    monkeypatch.setattr(speak, "_CHUNK", 1)
    speak_corpus(texts, whole, Recipe(FliteEngine()), jobs=1, progress=False)

    spoken = 0

    def dies_at_the_third(jobs, recipe):
        nonlocal spoken
        spoken += 1
        if spoken == 3:
            raise KeyboardInterrupt
        return real(jobs, recipe)

    real = speak._speak_some
    monkeypatch.setattr(speak, "_speak_some", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        speak_corpus(texts, broken, Recipe(FliteEngine()), jobs=1, progress=False)
    assert json.loads((broken / "card.json").read_text())["status"] == "unfinished"
    with (broken / "journal.jsonl").open("a") as journal:
        journal.write('{"id": "rms-torn", "te')  # what a kill in the middle of a write leaves
    monkeypatch.setattr(speak, "_speak_some", real)
    made = speak_corpus(texts, broken, Recipe(FliteEngine()), jobs=1, progress=False)
    assert made.spoken == 3
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(broken) for path in broken.rglob("*") if path.is_file())
    for name in names:
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name


@needs_flite
def test_more_text_keeps_earlier_files_ids_and_splits(tmp_path):
    folder = tmp_path / "c"
    speak_corpus(TEXTS[:1], folder, Recipe(FliteEngine()), jobs=1, progress=False)
    wav = next((folder / "wavs").iterdir())
    before = wav.stat().st_mtime_ns
    made = speak_corpus(["A new one first.", *TEXTS[:1]], folder, Recipe(FliteEngine()), jobs=1, progress=False)
    assert (made.sentences, made.spoken) == (2, 1)
    assert wav.stat().st_mtime_ns == before


@needs_flite
def test_several_processes_make_the_same_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(speak, "_CHUNK", 2)
    texts = [f"We saw {n} foxes." for n in range(4)]
    one = speak_corpus(texts, tmp_path / "one", Recipe(FliteEngine()), jobs=1, progress=False).folder
    two = speak_corpus(texts, tmp_path / "two", Recipe(FliteEngine()), jobs=2, progress=False).folder
    for path in one.rglob("*.*"):
        assert path.read_bytes() == (two / path.relative_to(one)).read_bytes(), path.name


@needs_flite
def test_another_recipe_in_the_same_folder_is_refused(tmp_path):
    speak_corpus(TEXTS[:1], tmp_path / "c", Recipe(FliteEngine()), jobs=1, progress=False)
    with pytest.raises(DataError, match="another sample_rate"):
        speak_corpus(TEXTS[:1], tmp_path / "c", Recipe(FliteEngine(), 8000), jobs=1, progress=False)


@needs_flite
def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match="is not empty"):
        speak_corpus(TEXTS, tmp_path, Recipe(FliteEngine()), jobs=1, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@needs_flite
def test_an_unknown_voice_is_refused_because_flite_would_quietly_use_another(tmp_path):
    with pytest.raises(DataError, match="no voice 'nobody'") as caught:
        speak_corpus(TEXTS, tmp_path / "c", Recipe(FliteEngine("nobody")), progress=False)
    assert "rms" in caught.value.hint
    assert not (tmp_path / "c").exists()


@needs_flite
def test_a_rate_above_the_voices_own_is_refused(tmp_path):
    with pytest.raises(DataError, match="16000 Hz, 22050 Hz were asked for"):
        speak_corpus(TEXTS[:1], tmp_path / "c", Recipe(FliteEngine(), 22050), jobs=1, progress=False)


@needs_flite
def test_flites_features_reach_it():
    plain = FliteEngine().speak("We waited.")
    slow = FliteEngine(features=(("duration_stretch", "1.5"),)).speak("We waited.")
    assert slow.ends[-1] == pytest.approx(1.5 * plain.ends[-1], rel=0.05)


@needs_flite
def test_a_monotone_voice_keeps_its_times_and_loses_its_melody(tmp_path):
    pytest.importorskip("pyworld", reason="pyworld (extra `corpus`) is not installed")
    text = "Are we really there already?"
    natural = speak_corpus([text], tmp_path / "a", Recipe(FliteEngine()), progress=False).folder
    flat = speak_corpus([text], tmp_path / "b", Recipe(FliteEngine(), monotone_hertz=100.0), progress=False).folder
    assert (flat / "phones.jsonl").read_bytes() == (natural / "phones.jsonl").read_bytes()
    assert pitch_spread(flat) < 2.0 < 5.0 < pitch_spread(natural)


def pitch_spread(folder):
    """Standard deviation in hertz of the pitch of clearly voiced frames of a corpus' first wav, by autocorrelation."""
    wave, rate = soundfile.read(next((folder / "wavs").iterdir()))
    pitches = []
    for start in range(0, len(wave) - 1024, 320):
        frame = wave[start : start + 1024]
        if np.mean(frame**2) < 1e-3:
            continue
        scores = np.correlate(frame, frame, "full")[1023:] / np.sum(frame**2) / np.linspace(1, 1e-3, 1024)
        lag = rate // 200 + np.argmax(scores[rate // 200 : rate // 60])
        if scores[lag] > 0.9:
            pitches.append(rate / lag)
    return float(np.std(pitches))


@pytest.mark.parametrize(("hertz", "survives"), [(1000, True), (3400, True), (4400, False), (6000, False)])
def test_resampling_keeps_the_band_and_rejects_what_would_alias(hertz, survives):
    tone = np.sin(2 * np.pi * hertz * np.arange(16000) / 16000)
    inner = resample(tone, 16000, 8000)[500:-500]
    level = 20 * np.log10(np.sqrt(2 * np.mean(inner**2)) + 1e-12)
    assert level == pytest.approx(0, abs=0.05) if survives else level < -60


def test_resampling_to_the_same_rate_changes_nothing():
    wave = np.random.default_rng(0).normal(size=100)
    assert resample(wave, 8000, 8000) is wave


def test_flites_phones_become_arpabet():
    assert [arpabet(phone) for phone in ("pau", "ax", "hh", "zh")] == ["sil", "AH0", "HH", "ZH"]
    with pytest.raises(DataError, match="unknown phone 'brth'"):
        arpabet("brth")


def test_durations_are_parsed_and_a_phone_too_short_to_print_is_dropped():
    assert parse_durations("pau:0.100 k:0.200 ax:0.200 t:0.350 ") == (["sil", "K", "T"], [0.1, 0.2, 0.35])


@pytest.mark.parametrize(
    ("output", "message"), [("", "no phones"), ("hello", "unexpected output"), ("k:0.2 t:0.1", "backwards")]
)
def test_output_that_is_not_phone_times_is_refused(output, message):
    with pytest.raises(DataError, match=message):
        parse_durations(output)


def test_typography_becomes_ascii():
    assert clean_text("  “Café” — it’s \u00a0here… ") == '"Cafe" - it\'s here...'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["fine.", "...!"], "line 2: no letter"),
        (["a|b"], r"line 1: cannot speak the character '\|'"),
        (["ok", "", "мир"], "line 3: cannot speak the character"),
        (["", "  "], "no sentences"),
    ],
)
def test_text_that_cannot_be_spoken_is_named(lines, message):
    with pytest.raises(DataError, match=message):
        distinct_sentences(lines, "rms")


def test_splits_depend_on_text_and_seed_alone_and_have_the_sizes_asked_for():
    texts = [f"sentence number {n}" for n in range(4000)]
    one = [split_of(text, seed=0, validation_fraction=0.1, test_fraction=0.2) for text in texts]
    assert one == [split_of(text.upper(), seed=0, validation_fraction=0.1, test_fraction=0.2) for text in texts]
    assert one != [split_of(text, seed=1, validation_fraction=0.1, test_fraction=0.2) for text in texts]
    # Binomial: 4 standard deviations are 0.025 and 0.019.
    assert one.count("test") / 4000 == pytest.approx(0.2, abs=0.026)
    assert one.count("validation") / 4000 == pytest.approx(0.1, abs=0.02)


def test_without_the_program_the_hint_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="flite' is not installed") as caught:
        speak_corpus(["Hello."], tmp_path / "c", Recipe(FliteEngine()), progress=False)
    assert "apt-get install flite" in caught.value.hint
    assert not (tmp_path / "c").exists()


@needs_flite
def test_any_program_can_speak_and_its_corpus_is_aligned(tmp_path):
    pytest.importorskip("pocketsphinx", reason="pocketsphinx (extra `corpus`) is not installed")
    recipe = Recipe(CommandEngine("flite -voice rms -o {out} -t {text}"))
    made = speak_corpus(["The cat sat down.", "It is six, here."], tmp_path / "c", recipe, jobs=1, progress=False)
    assert (made.sentences, made.left_out) == (2, ())
    rows = list(read_jsonl(tmp_path / "c" / "phones.jsonl"))
    assert {row["id"].partition("-")[0] for row in rows} == {"flite"}
    again = speak_corpus(["The cat sat down."], tmp_path / "c", recipe, jobs=1, progress=False)
    assert (again.sentences, again.spoken) == (2, 0)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("sh -c {text}", "has no {out}"),
        ("no-such-program {text} {out}", "no program to run"),
        ("sh 'x {text} {out}", "cannot split"),
        ("", "no program to run"),
        ("true {text} {out}", "wrote no audio"),
        ("false {text} {out}", "false failed"),
    ],
)
def test_a_command_that_cannot_speak_is_refused(tmp_path, template, message):
    with pytest.raises(DataError, match=message):
        speak_corpus(["Hello."], tmp_path / "c", Recipe(CommandEngine(template)), jobs=1, progress=False)


def test_a_text_cannot_run_anything(tmp_path):
    target = tmp_path / "made"
    with pytest.raises(DataError, match="wrote no audio"):
        CommandEngine("true {text} {out}").speak(f"; touch {target} $(touch {target})")
    assert not target.exists()


@needs_flite
def test_conditions_are_drawn_for_each_sentence_and_can_be_rendered_again(tmp_path):
    texts = [f"Number {n} is here." for n in range(6)]
    recipe = Recipe(FliteEngine(), 8000, conditions="found")
    folder = speak_corpus(texts, tmp_path / "c", recipe, jobs=1, progress=False).folder
    card = json.loads((folder / "card.json").read_text())
    rendered = 0
    for row in read_jsonl(folder / "phones.jsonl"):
        heard, clean = (soundfile.read(folder / place / f"{row['id']}.wav")[0] for place in ("wavs", "clean"))
        assert len(heard) == len(clean)
        assert bool(row["condition"]) == (np.abs(heard - clean).max() > 1e-3)
        rendered += bool(row["condition"])
    assert 0 < rendered < 6
    assert card["clean"] == 6 - rendered == sum(item.clean for item in SpeechCorpus.open(folder))
    before = {path.name: path.read_bytes() for path in (folder / "wavs").iterdir()}
    next((folder / "wavs").iterdir()).unlink()  # as a kill between moving and rendering leaves it
    speak_corpus(texts, folder, recipe, jobs=1, progress=False)
    assert {path.name: path.read_bytes() for path in (folder / "wavs").iterdir()} == before


def test_hibari_speaks_the_phones_of_the_front_end_and_times_them():
    pytest.importorskip("hibari", reason="hibari-tts (extra `hibari`) is not installed")
    text = "He said, very quietly: buy 2 tickets."
    spoken = HibariEngine().speak(text)
    assert spoken.phones == TextFrontend("cmu", silence_ends=True).phones(text)
    assert spoken.words == "he said very quietly buy two tickets"
    assert spoken.ends[-1] == pytest.approx(len(spoken.wave) / spoken.rate, abs=1e-3)
    power = {"vowel": [], "silence": []}
    for phone, start, end in zip(spoken.phones, [0.0, *spoken.ends], spoken.ends, strict=False):
        middle = spoken.wave[round((0.7 * start + 0.3 * end) * 24000) : round((0.3 * start + 0.7 * end) * 24000)]
        if phone == "sil" or phone.endswith("1"):
            power["silence" if phone == "sil" else "vowel"].append(np.mean(middle**2))
    assert np.mean(power["vowel"]) > 300 * np.mean(power["silence"])
    assert np.array_equal(HibariEngine().speak(text).wave, spoken.wave)


def test_hibari_spells_flaps_and_function_words():
    phones, symbols = spell("The water, to me.")
    assert phones == ["sil", *str.split("DH AH0 W AO1 T ER0 sp T UW1 M IY1"), "sil"]
    assert "".join(symbols) == "ðə wˈɔTəɹ, tu mi."
