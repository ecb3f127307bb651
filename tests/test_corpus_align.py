"""Forced alignment against speech whose phone times are known, because flite printed them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rlzoo.errors import DataError
from rlzoo.speech.corpus.align import Aligner, align_corpus, read_pronunciations, with_stress
from rlzoo.speech.corpus.engines.flite import FliteEngine
from rlzoo.speech.corpus.metadata import read_metadata
from rlzoo.speech.corpus.speech import SpeechCorpus
from rlzoo.speech.text import TextFrontend
from rlzoo.speech.text.train_letters import edit_distance

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
    found = aligner.align("The old farmer carried seven baskets across the bridge.", wave, rate)
    phones, ends = found.phones, found.ends
    assert not found.problem
    assert [phone for phone in phones if phone != "sil"][2:8] == ["OW1", "L", "D", "F", "AA1", "R"]
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(len(wave) / rate, abs=1e-3)
    truth = np.array([end for phone, end in zip(spoken.phones, spoken.ends, strict=True) if phone != "sil"])
    found = [end for phone, end in zip(phones, ends, strict=True) if phone not in ("sil", "sp")]
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
    found = aligner.align("a rather long sentence that cannot fit", np.zeros(3200), 16000)
    assert "phones in 0.2 s" in found.problem


def test_numbers_and_signs_are_aligned_as_they_are_spoken(tmp_path):
    """The words come from the front end that speaks: '$3.50' is no 'three', pause, 'fifty'."""
    folder = copy_cases(tmp_path, "align_norm")
    report = align_corpus(folder, progress=False)
    rows = {item.id: [p for p in item.phones if p not in ("sil", "sp")] for item in SpeechCorpus.open(folder)}
    frontend = TextFrontend("cmu")
    for name, text in read_metadata(folder / "metadata.csv").texts.items():
        if name in rows:
            wanted = [phone for sound in frontend.pronunciations(frontend.words(text)) for phone in sound]
            # Variants of the dictionary may be chosen by ear.
            assert edit_distance(rows[name], wanted) <= 0.25 * len(wanted), text
    assert "D AA1 L ER0 Z" in " ".join(rows["a"])
    assert set(report.failed) <= {"i"}
    assert "i" in report.failed


def test_another_sentence_as_text_is_listed_and_left_out(tmp_path):
    folder = copy_cases(tmp_path, "corpus_wrong_text")
    report = align_corpus(folder, progress=False)
    assert list(report.failed) == ["u2"]
    assert [item.id for item in SpeechCorpus.open(folder)] == ["u1", "u3"]
    assert json.loads((folder / "left_out.jsonl").read_text())["id"] == "u2"


def test_half_a_text_leaves_speech_over(tmp_path):
    folder = copy_cases(tmp_path, "corpus_bom")
    (folder / "metadata.csv").write_text("u1|The birch canoe\nu3|It is easy to tell the depth of a well.\n")
    report = align_corpus(folder, progress=False)
    assert list(report.failed) == ["u1"]
    assert "have no words in the text" in report.failed["u1"] or "not heard" in report.failed["u1"]


def test_integers_in_floats_are_refused_with_their_own_hint(tmp_path):
    with pytest.raises(DataError, match="in the scale of integers") as caught:
        align_corpus(copy_cases(tmp_path, "corpus_float_int_scale"), progress=False)
    assert "English" not in caught.value.hint


@pytest.mark.parametrize("case", ["corpus_header_line", "corpus_id_space", "corpus_nfd_name", "corpus_quoted_pipe"])
def test_metadata_as_people_have_it_is_aligned_whole(tmp_path, case):
    folder = copy_cases(tmp_path, case)
    report = align_corpus(folder, progress=False)
    assert (report.aligned, report.failed) == (3, {})
    for split in ("train", "validation", "test"):
        (folder / f"{split}.txt").unlink(missing_ok=True)
    assert len(SpeechCorpus.open(folder)) == 3


def test_phones_of_a_lexicon_get_stress():
    assert with_stress(["Z", "AO", "R", "B", "AH", "L"]) == ("Z", "AO1", "R", "B", "AH0", "L")
    assert with_stress(["z", "ao1"]) == ("Z", "AO1")
    with pytest.raises(DataError, match="'QQ' is no ARPAbet phone"):
        with_stress(["QQ"])


def test_own_pronunciations_are_used(tmp_path):
    (tmp_path / "words.txt").write_text(";;; ours\nzorble Z AO1 R B AH0 L\n")
    aligner = Aligner(read_pronunciations(tmp_path / "words.txt"))
    aligner.align("zorble", np.zeros(16000), 16000)
    assert not aligner.guessed
    assert aligner._variants("zorble", ("X",)) == (("Z", "AO1", "R", "B", "AH0", "L"),)


def test_a_word_without_phones_is_refused(tmp_path):
    (tmp_path / "words.txt").write_text("fine F AY N\nzorble\n")
    with pytest.raises(DataError, match="line 2: 'zorble' has no phones"):
        read_pronunciations(tmp_path / "words.txt")


def copy_cases(folder, name):
    """A corpus of ../shared/cases/data without the phone times of earlier versions."""
    source = Path(__file__).parents[2] / "shared/cases/data" / name
    if not source.is_dir():
        pytest.skip("no cases in ../shared")
    target = folder / name
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.jsonl"))
    for path in (target, *target.rglob("*")):
        path.chmod(0o755)
    return target


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
    assert (report.aligned, report.failed, report.guessed_words) == (1, {}, ())
    item = SpeechCorpus.open(folder)[0]
    expected = "IH N B IY IH NG K AH M P EH R AH T IH V L IY M AA D ER N".split()  # noqa: SIM905
    # The dictionary has two ways to say 'comparatively', and the recording decides.
    found = [phone.rstrip("012") for phone in item.phones if phone not in ("sil", "sp")]
    assert edit_distance(found, expected) <= 1
    assert {"IY1", "AA1", "AH0"} < set(item.phones)
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
    seconds = soundfile.info(folder / "wavs/LJ001-0002.wav").duration
    text = read_metadata(folder / "metadata.csv").texts["LJ001-0002"]
    done = {
        "id": "LJ001-0002",
        "text": text,
        "style": "cmu",
        "phones": ["IH1", "N"],
        "ends": [0.5, seconds],
        "fit": -9.0,
    }
    (folder / "align.jsonl").write_text(json.dumps(done) + '\n{"id": "LJ0')
    seen = []
    real = Aligner.align
    monkeypatch.setattr(Aligner, "align", lambda self, text, *rest: seen.append(text) or real(self, text, *rest))
    assert align_corpus(folder, progress=False).aligned == 2
    assert len(seen) == 1
    assert not (folder / "align.jsonl").exists()
    assert SpeechCorpus.open(folder)[0].phones == ("IH1", "N")


@pytest.mark.slow
@needs_flite
def test_all_clips_are_aligned(tmp_path):
    names = [path.stem for path in sorted((LJSPEECH / "wavs").glob("*.wav"))] if LJSPEECH.is_dir() else []
    folder = copy_clips(tmp_path / "lj", names)
    report = align_corpus(folder, progress=False)
    assert (report.aligned, report.failed) == (24, {})
    for item in SpeechCorpus.open(folder, trim_silence=True):
        # Speech has 8 to 20 phones a second; an alignment that has collapsed shows up as one huge phone.
        assert 8 < len(item.phones) / item.seconds < 20
        assert max(item.durations) < 1.0
