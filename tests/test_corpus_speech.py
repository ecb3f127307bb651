"""Reading a corpus back: LJSpeech layout with phones.jsonl or TextGrids, and every defect by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rlzoo.errors import DataError
from rlzoo.speech.corpus.metadata import read_metadata
from rlzoo.speech.corpus.speech import SpeechCorpus, frame_durations, trim
from rlzoo.speech.corpus.textgrids import find_textgrids, read_textgrid, write_textgrid

RATE = 1000
PHONES = ["sil", "K", "AE1", "T", "sil"]
ENDS = [0.1, 0.25, 0.4, 0.5, 0.8]


def write_corpus(folder: Path, names=("a", "b", "c"), ends=ENDS, seconds=0.8, rate=RATE):
    (folder / "wavs").mkdir(parents=True)
    ramp = np.arange(round(seconds * rate)) / 32768
    for name in names:
        soundfile.write(folder / "wavs" / f"{name}.wav", ramp, rate, subtype="PCM_16")
    (folder / "metadata.csv").write_text("".join(f"{name}|Text 1 {name}|text one {name}\n" for name in names))
    rows = [{"id": name, "phones": PHONES, "ends": list(ends)} for name in names]
    (folder / "phones.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_an_item_has_text_phones_durations_and_audio(tmp_path):
    corpus = SpeechCorpus.open(write_corpus(tmp_path / "c"))
    item = corpus[0]
    assert (len(corpus), corpus.sample_rate, item.id, item.text) == (3, RATE, "a", "text one a")
    assert item.phones == tuple(PHONES)
    assert item.durations == pytest.approx([0.1, 0.15, 0.15, 0.1, 0.3])
    assert item.load().shape == (800,)
    assert corpus.hours * 3600 == pytest.approx(2.4)
    assert corpus.phones == ("AE1", "K", "T", "sil")
    assert corpus.card == {"sentences": 3, "hours_of_speech": 0.001, "phones": {"AE1": 3, "K": 3, "T": 3, "sil": 6}}
    assert [item.id for item in corpus[1:]] == ["b", "c"]


def test_trimming_takes_the_silences_off_both_ends_of_times_and_audio(tmp_path):
    item = SpeechCorpus.open(write_corpus(tmp_path / "c"), trim_silence=True)[0]
    assert item.phones == ("K", "AE1", "T")
    assert item.ends == pytest.approx((0.15, 0.3, 0.4))
    wave = item.load()
    assert wave.shape == (400,)
    assert float(wave[0]) * 32768 == pytest.approx(100)  # the ramp says which sample this was


def test_a_recording_leads_to_its_corpus_which_is_read_once(tmp_path):
    folder = write_corpus(tmp_path / "c")
    corpus = SpeechCorpus.around(folder / "wavs/b.wav")
    assert corpus is SpeechCorpus.around(folder / "wavs/c.wav")
    assert corpus.item("b").wav == folder / "wavs/b.wav"
    with pytest.raises(DataError, match=r"metadata.csv' does not name 'd'"):
        corpus.item("d")
    assert SpeechCorpus.around(folder / "other/b.wav") is None
    trimmed = SpeechCorpus.around(folder / "wavs/b.wav", trim_silence=True).item("b")
    assert trimmed.cut(corpus.item("b").load(), RATE).tolist() == trimmed.load().tolist()
    (folder / "phones.jsonl").unlink()
    assert SpeechCorpus.around(folder / "wavs/b.wav") is None


def test_trimming_keeps_pauses_inside():
    assert trim(["sp", "AA", "sil", "B", "spn"], [1, 2, 3, 4, 5]) == (["AA", "sil", "B"], [1, 2, 3], 1)


@pytest.mark.parametrize("seed", range(5))
def test_frames_sum_to_the_audios_and_no_boundary_is_off_by_more_than_half_a_frame(seed):
    random = np.random.default_rng(seed)
    ends = np.cumsum(random.uniform(0.01, 0.3, size=200)).tolist()
    hop = 300 / 22050
    total = int(ends[-1] / hop) + 1
    frames = frame_durations(ends, hop, total)
    assert sum(frames) == total
    drift = np.abs(np.cumsum(frames)[:-1] * hop - ends[:-1])
    assert drift.max() <= hop / 2 + 1e-9  # rounding each duration would drift by about 14 half-frames here


def test_frames_follow_the_published_rounding():
    # 73.5 frames a second: round(7.35) = 7, round(18.375) = 18, round(29.4) = 29.
    assert frame_durations([0.1, 0.25, 0.4], 1 / 73.5, 29) == [7, 11, 11]


@pytest.mark.parametrize(
    ("ends", "total", "message"),
    [
        ([0.5, 1.0], 90, "100 frames, the audio has 90"),
        ([0.5, float("nan")], 100, "end time 1 is nan"),
        ([0.5, 0.4], 40, "goes back"),
        ([], 10, "no phones"),
        ([0.0], 1, "all times are zero"),
        ([1.0], 0, "cannot make 0 frames"),
    ],
)
def test_times_that_do_not_fit_are_refused(ends, total, message):
    with pytest.raises(DataError, match=message):
        frame_durations(ends, 0.01, total)


def test_splits_are_read_from_their_files(tmp_path):
    folder = write_corpus(tmp_path / "c")
    (folder / "train.txt").write_text("c\na\n")
    (folder / "test.txt").write_text("b\n")
    assert [item.id for item in SpeechCorpus.open(folder, split="train")] == ["a", "c"]
    assert [item.id for item in SpeechCorpus.open(folder, split="test")] == ["b"]
    with pytest.raises(DataError, match=r"cannot read .*validation\.txt"):
        SpeechCorpus.open(folder, split="validation")


def test_of_a_small_corpus_one_utterance_is_held_out(tmp_path):
    folder = write_corpus(tmp_path / "c", names=["a", "b"])
    held_out, trained = (SpeechCorpus.open(folder, split=split) for split in ("validation", "train"))
    assert (len(held_out), len(trained)) == (1, 1)
    assert held_out[0].id != trained[0].id


def test_without_split_files_a_hash_decides(tmp_path):
    folder = write_corpus(tmp_path / "c", names=[f"n{i}" for i in range(120)])
    parts = [{item.id for item in SpeechCorpus.open(folder, split=name)} for name in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 120
    assert len(parts[0]) > 100


def break_wav_missing(folder):
    (folder / "wavs" / "b.wav").unlink()


def break_wav_is_text(folder):
    (folder / "wavs" / "b.wav").write_text("not audio")


def break_rate(folder):
    soundfile.write(folder / "wavs" / "b.wav", np.zeros(1600), 2 * RATE)


def break_audio_too_short(folder):
    soundfile.write(folder / "wavs" / "b.wav", np.zeros(700), RATE)


def break_times(folder, **change):
    rows = [json.loads(line) for line in (folder / "phones.jsonl").read_text().splitlines()]
    rows[1] |= change
    (folder / "phones.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def break_nan(folder):
    break_times(folder, ends=[0.1, float("nan"), 0.4, 0.5, 0.8])


def break_counts(folder):
    break_times(folder, ends=ENDS[:-1])


def break_keys(folder):
    break_times(folder, ends=None)


def break_untimed(folder):
    lines = (folder / "phones.jsonl").read_text().splitlines(keepends=True)
    (folder / "phones.jsonl").write_text(lines[0] + lines[2])


def break_json(folder):
    lines = (folder / "phones.jsonl").read_text().splitlines(keepends=True)
    (folder / "phones.jsonl").write_text(lines[0] + lines[1][:20])


def break_no_times(folder):
    (folder / "phones.jsonl").unlink()


def break_columns(folder):
    (folder / "metadata.csv").write_text("a|x\nb\n")


def break_repeated_id(folder):
    (folder / "metadata.csv").write_text("a|x\na|y\n")


def break_split(folder):
    (folder / "train.txt").write_text("a\nzz\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_wav_missing, r"b\.wav' is missing"),
        (break_wav_is_text, r"b\.wav' cannot be read as audio"),
        (break_rate, r"b\.wav' has 2000 Hz"),
        (break_audio_too_short, r"'b': phone times end at 0\.800 s, its audio at 0\.700 s"),
        (break_nan, "'b': end time 1 is nan"),
        (break_counts, "'b': 5 phones, 4 end times"),
        (break_keys, "line 2: expected the keys"),
        (break_untimed, "1 of 3 utterances have no phone times, the first is 'b'"),
        (break_json, "line 2 is no JSON"),
        (break_no_times, "no phone times"),
        (break_columns, "line 2: 1 columns"),
        (break_repeated_id, "line 2: the id 'a' occurs twice"),
        (break_split, "names 'zz'"),
    ],
)
def test_each_defect_is_named_with_its_place_and_a_hint(tmp_path, damage, message):
    folder = write_corpus(tmp_path / "c")
    damage(folder)
    with pytest.raises(DataError, match=message) as caught:
        SpeechCorpus.open(folder, split="train" if damage is break_split else None)
    assert caught.value.hint


def test_another_rate_than_the_one_wanted_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.wav' has 1000 Hz, 16000 Hz were asked for"):
        SpeechCorpus.open(write_corpus(tmp_path / "c"), sample_rate=16000)


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(DataError, match="unknown split 'dev'"):
        SpeechCorpus.open(write_corpus(tmp_path / "c"), split="dev")


def test_audio_with_nan_is_refused_when_it_is_read(tmp_path):
    folder = write_corpus(tmp_path / "c", names=["a"])
    wave = np.zeros(800, dtype=np.float32)
    wave[5] = np.nan
    soundfile.write(folder / "wavs" / "a.wav", wave, RATE, subtype="FLOAT")
    with pytest.raises(DataError, match="NaN"):
        SpeechCorpus.open(folder)[0].load()


def test_utterances_without_times_can_be_left_out_on_request(tmp_path):
    folder = write_corpus(tmp_path / "c")
    break_untimed(folder)
    assert [item.id for item in SpeechCorpus.open(folder, skip_missing=True)] == ["a", "c"]


def test_two_columns_are_enough(tmp_path):
    (tmp_path / "metadata.csv").write_text("\ufeffx|Hello, world\n\ny|Bye||\n".replace("||", "|"), encoding="utf-8-sig")
    assert set(read_metadata(tmp_path / "metadata.csv").texts.values()) == {"Hello, world", "Bye"}


LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 0.8
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 0.8
        intervals: size = 1
            intervals [1]:
                xmin = 0
                xmax = 0.8
                text = "cat"
    item [2]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 0.8
        intervals: size = 4
            intervals [1]:
                xmin = 0
                xmax = 0.1
                text = ""
            intervals [2]:
                xmin = 0.1
                xmax = 0.25
                text = "K"
            intervals [3]:
                xmin = 0.25
                xmax = 0.5
                text = "AE1"
            intervals [4]:
                xmin = 0.5
                xmax = 0.8
                text = "sp"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
0.8
<exists>
2
"IntervalTier"
"reader - words"
0
0.8
1
0
0.8
"cat"
"IntervalTier"
"reader - phones"
0
0.8
4
0
0.1
""
0.1
0.25
"K"
0.25
0.5
"AE1"
0.5
0.8
"sp"
"""


POINTS = (
    'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n1\n<exists>\n1\n'
    '"TextTier"\n"phones"\n0\n1\n1\n0.5\n"K"\n'
)
GAPS = SHORT.replace('0.8\n4\n0\n0.1\n""\n0.1', "0.8\n2\n0.1").replace('0.5\n0.8\n"sp"\n', "")


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        SHORT,
        LONG.replace("\n", "\r\n"),
        LONG.encode("utf-16"),
        "\ufeff" + LONG,
        SHORT.replace("phones", "Phones"),
    ],
    ids=["long", "short", "crlf", "utf16", "mark", "capital"],
)
def test_textgrids_in_both_forms_give_the_phones(tmp_path, text):
    pytest.importorskip("praatio", reason="praatio (extra `corpus`) is not installed")
    folder = write_corpus(tmp_path / "c", names=["a"])
    (folder / "phones.jsonl").unlink()
    grids = tmp_path / "grids" / "reader"
    grids.mkdir(parents=True)
    (grids / "a.TextGrid").write_bytes(text if isinstance(text, bytes) else text.encode())
    item = SpeechCorpus.open(folder, textgrids=tmp_path / "grids")[0]
    assert item.phones == ("sil", "K", "AE1", "sp")
    assert item.ends == pytest.approx((0.1, 0.25, 0.5, 0.8))


def test_gaps_of_a_textgrid_are_silence(tmp_path):
    pytest.importorskip("praatio", reason="praatio (extra `corpus`) is not installed")
    (tmp_path / "a.textgrid").write_text(GAPS)
    assert list(find_textgrids(tmp_path)) == ["a"]
    assert read_textgrid(tmp_path / "a.textgrid") == (["sil", "K", "AE1"], [0.1, 0.25, 0.5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LONG.replace('"phones"', '"sounds"'), "expected one tier 'phones', found 'words', 'sounds'"),
        ("nonsense", "cannot read the TextGrid"),
        (SHORT[:120], "cannot read the TextGrid|expected one tier"),
        ("", "it is empty"),
        ("ooBinaryFile\x08TextGrid", "is a binary TextGrid"),
        (POINTS, "tier 'phones' is of points"),
        (SHORT.replace("0.25\n0.5", "0.2\n0.5"), r"overlap in time: \(0.1"),
        (SHORT.replace("words", "phones"), "two of its tiers have the same name"),
    ],
    ids=["tier", "nonsense", "truncated", "empty", "binary", "points", "overlap", "twice"],
)
def test_bad_textgrids_are_refused(tmp_path, text, message):
    pytest.importorskip("praatio", reason="praatio (extra `corpus`) is not installed")
    folder = write_corpus(tmp_path / "c", names=["a"])
    (tmp_path / "a.TextGrid").write_text(text)
    with pytest.raises(DataError, match=message):
        SpeechCorpus.open(folder, textgrids=tmp_path)


def test_a_textgrid_that_we_write_is_read_back(tmp_path):
    pytest.importorskip("praatio", reason="praatio (extra `corpus`) is not installed")
    write_textgrid(tmp_path / "grids" / "a.TextGrid", PHONES, ENDS)
    assert read_textgrid(tmp_path / "grids" / "a.TextGrid") == (PHONES, ENDS)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write"):
        write_textgrid(tmp_path / "file" / "a.TextGrid", PHONES, ENDS)


def test_a_folder_without_textgrids_is_refused(tmp_path):
    folder = write_corpus(tmp_path / "c", names=["a"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \*\.TextGrid"):
        SpeechCorpus.open(folder, textgrids=tmp_path / "empty")


@pytest.mark.skipif(shutil.which("flite") is None, reason="the program flite is not installed")
def test_what_the_builder_writes_the_reader_reads(tmp_path):
    from rlzoo.speech.corpus.engines.flite import FliteEngine
    from rlzoo.speech.corpus.speak import Recipe, speak_corpus

    speak_corpus(["The fox ran."], tmp_path / "c", Recipe(FliteEngine(), 8000), jobs=1, progress=False)
    item = SpeechCorpus.open(tmp_path / "c", sample_rate=8000, trim_silence=True)[0]
    assert item.phones == ("DH", "AH0", "F", "AA", "K", "S", "R", "AE", "N")
    wave = item.load()
    assert abs(wave.shape[0] - item.seconds * 8000) <= 1
    assert sum(frame_durations(item.ends, 100 / 8000, -(-wave.shape[0] // 100))) == -(-wave.shape[0] // 100)
