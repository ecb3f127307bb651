"""Forced alignment against speech whose phone times are known, because flite printed them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rlzoo.errors import DataError
from rlzoo.speech.corpus import align as align_module
from rlzoo.speech.corpus.align import Aligner, align_corpus, read_pronunciations, spell, tokens
from rlzoo.speech.corpus.engines.flite import FliteEngine
from rlzoo.speech.corpus.speech import SpeechCorpus

pytest.importorskip("pocketsphinx", reason="pocketsphinx (extra `corpus`) is not installed")
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="the program flite is not installed")

LJSPEECH = Path(__file__).parents[2] / "shared" / "data" / "ljspeech"


@pytest.fixture(scope="module")
def aligner():
    return Aligner()


def speak(text, path):
    spoken = FliteEngine().speak(text)
    return spoken, spoken.wave, spoken.rate


@needs_flite
def test_boundaries_are_within_a_few_frames_of_the_truth(aligner, tmp_path):
    spoken, wave, rate = speak("the old farmer carried seven baskets across the bridge", tmp_path / "a.wav")
    phones, ends = aligner.align("The old farmer carried seven baskets across the bridge.", wave, rate)
    assert [phone for phone in phones if phone != "sil"][2:8] == ["OW", "L", "D", "F", "AA", "R"]
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(len(wave) / rate, abs=1e-3)
    truth = np.array([end for phone, end in zip(spoken.phones, spoken.ends, strict=True) if phone != "sil"])
    found = [end for phone, end in zip(phones, ends, strict=True) if phone != "sil"]
    errors = [np.abs(truth - end).min() for end in found]
    # Measured over 1,223 boundaries: median 11 ms. A constant shift of 40 ms would fail here.
    assert np.median(errors) < 0.02


@needs_flite
def test_the_same_utterance_is_aligned_alike_whatever_came_before(aligner, tmp_path):
    _, wave, rate = speak("nine birds", tmp_path / "a.wav")
    first = aligner.align("nine birds", wave, rate)
    assert aligner.align("something else entirely that nobody ever said here", wave, rate) != first
    assert aligner.align("nine birds", wave, rate) == first


def test_silence_instead_of_speech_is_no_alignment(aligner):
    assert aligner.align("a rather long sentence that cannot fit", np.zeros(3200), 16000) is None


@needs_flite
def test_words_that_the_dictionary_lacks_are_said_by_flite():
    assert spell("woodcutters") == ["W", "UH", "D", "K", "AH", "T", "ER", "Z"]
    assert spell("42") == ["F", "AO", "R", "T", "IY", "T", "UW"]


def test_without_flite_such_a_word_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="no 'schoeffer'") as caught:
        spell("schoeffer")
    assert "--lexicon" in caught.value.hint


def test_own_pronunciations_are_used(tmp_path, monkeypatch):
    (tmp_path / "words.txt").write_text(";;; ours\nzorble Z AO1 R B AH0 L\n")
    aligner = Aligner(read_pronunciations(tmp_path / "words.txt"))
    monkeypatch.setattr(align_module, "spell", lambda word: pytest.fail(f"looked up {word}"))
    aligner.align("zorble", np.zeros(1600), 16000)
    assert not aligner.guessed


def test_a_word_without_phones_is_refused(tmp_path):
    (tmp_path / "words.txt").write_text("fine F AY N\nzorble\n")
    with pytest.raises(DataError, match="line 2: 'zorble' has no phones"):
        read_pronunciations(tmp_path / "words.txt")


def test_tokens_keep_apostrophes_and_drop_the_rest():
    assert tokens("\"Don't,\" he said—'twas well-meant.") == ["don't", "he", "said", "twas", "well", "meant"]


def copy_clips(folder, names):
    if not LJSPEECH.is_dir():
        pytest.skip("no LJSpeech clips in ../shared/data")
    (folder / "wavs").mkdir(parents=True)
    lines = [line for line in (LJSPEECH / "metadata.csv").read_text().splitlines() if line.split("|")[0] in names]
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    for name in names:
        shutil.copy(LJSPEECH / "wavs" / f"{name}.wav", folder / "wavs")
    return folder


def test_natural_speech_is_aligned_and_read_back(tmp_path):
    folder = copy_clips(tmp_path / "lj", ["LJ001-0002"])
    report = align_corpus(folder, progress=False)
    assert (report.aligned, report.failed, report.guessed_words) == (1, (), ())
    item = SpeechCorpus.open(folder)[0]
    expected = "IH N B IY IH NG K AH M P EH R AH T IH V L IY M AA D ER N".split()  # noqa: SIM905
    assert [phone for phone in item.phones if phone != "sil"] == expected
    with pytest.raises(DataError, match=r"phones\.jsonl' exists"):
        align_corpus(folder, progress=False)
    assert align_corpus(folder, overwrite=True, progress=False).aligned == 1


@pytest.mark.parametrize(("data", "said"), [([], "no samples"), ([0.0, np.nan, np.inf, 0.0], "NaN or infinite in 2")])
def test_recordings_that_are_none_are_refused_and_nothing_is_written(tmp_path, data, said):
    (tmp_path / "wavs").mkdir()
    (tmp_path / "metadata.csv").write_text("a|nine birds\n")
    soundfile.write(tmp_path / "wavs/a.wav", np.array(data, np.float32), 16000, subtype="FLOAT")
    with pytest.raises(DataError, match=said):
        align_corpus(tmp_path, progress=False)
    assert not (tmp_path / "phones.jsonl").exists()


def test_an_interrupted_alignment_goes_on_where_it_stopped(tmp_path, monkeypatch):
    folder = copy_clips(tmp_path / "lj", ["LJ001-0002", "LJ001-0008"])
    done = {"id": "LJ001-0002", "phones": ["IH", "N"], "ends": [0.5, 1.0]}
    (folder / "align.jsonl").write_text(json.dumps(done) + '\n{"id": "LJ0')
    seen = []
    real = Aligner.align
    monkeypatch.setattr(Aligner, "align", lambda self, text, *rest: seen.append(text) or real(self, text, *rest))
    assert align_corpus(folder, progress=False).aligned == 2
    assert len(seen) == 1
    assert not (folder / "align.jsonl").exists()
    assert SpeechCorpus.open(folder)[0].phones == ("IH", "N")


@pytest.mark.slow
@needs_flite
def test_all_clips_are_aligned(tmp_path):
    names = [path.stem for path in sorted((LJSPEECH / "wavs").glob("*.wav"))] if LJSPEECH.is_dir() else []
    folder = copy_clips(tmp_path / "lj", names)
    report = align_corpus(folder, progress=False)
    assert (report.aligned, report.failed) == (24, ())
    for item in SpeechCorpus.open(folder, trim_silence=True):
        # Speech has 8 to 20 phones a second; an alignment that has collapsed shows up as one huge phone.
        assert 8 < len(item.phones) / item.seconds < 20
        assert max(item.durations) < 1.0
