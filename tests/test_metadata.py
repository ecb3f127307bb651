"""metadata.csv as people have it, the recordings beside it, and folders in other layouts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rlzoo.errors import DataError
from rlzoo.listen.sources import open_source
from rlzoo.speech.corpus.check import check_corpus
from rlzoo.speech.corpus.convert import convert
from rlzoo.speech.corpus.metadata import read_metadata, recordings_in
from rlzoo.speech.corpus.speech import SpeechCorpus

CASES = Path(__file__).parents[2] / "shared/cases/data"
TEXTS = {"u1": "The birch canoe slid.", "u2": "Glue the sheet to it.", "u3": "It is easy to tell."}


def written(folder, content):
    (folder / "metadata.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / "metadata.csv"


def lines(template="{id}|{text}", **changed):
    return "".join(template.format(id=name, text=text, **changed) + "\n" for name, text in TEXTS.items())


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (lines(), ""),
        (lines("{id}|x $ 12|{text}"), ""),
        ("\ufeff" + lines(), ""),
        (lines().replace("\n", "\r\n"), ""),
        ("id|text|normalized_text\n" + lines("{id}|raw|{text}"), "line 1 is a header"),
        ("file_name|speaker|text\n" + lines("wavs/{id}.wav|bob|{text}"), "speakers (1: bob)"),
        (lines("{id}.wav|{text}"), "extension"),
        (lines("wavs/{id}.flac|{text}"), "paths"),
        (lines("C:\\data\\{id}.wav|{text}"), "paths"),
        (lines("{id} | {text}"), ""),
        (lines("{id}|{text}|7"), "column 3 holds speakers (1: 7)"),
        (lines("{id}|p225|{text}"), "column 2 holds speakers (1: p225)"),
        (lines("{id}|{text}|{text}|12"), "column 4 holds speakers"),
        (lines().replace("birch ", "birch\u2028"), "U+2028 LINE SEPARATOR"),
        (lines().replace("\n", "\r"), "carriage return"),
        (lines('"{id}"|"{text}"'), ""),
        (lines("{id}|{text}|{text}|"), ""),
        ("text|id\n" + lines("{text}|{id}"), "line 1 is a header"),
        (lines("{id}.wav|me|EN|{text}"), "column 3 holds speakers"),
        ("audio_file|text|speaker_name\n" + lines("{id}.wav|{text}|bob"), "speakers (1: bob)"),
        (lines("/data/me/wavs/{id}.WAV|{text}"), "paths"),
        (lines().replace("birch ", "birch\u200b "), "U+200B ZERO WIDTH SPACE"),
    ],
)
def test_variants_of_the_layout_are_recognised_and_said(tmp_path, content, note):
    found = read_metadata(written(tmp_path, content))
    assert found.texts == TEXTS
    assert (note in " ".join(found.notes)) if note else not found.notes


@pytest.mark.parametrize(
    "line",
    [
        "u1|The birch | canoe slid.",
        'u1|"The birch | canoe slid."',
        "u1|The birch | canoe slid.|The birch | canoe slid.",
    ],
)
def test_a_bar_inside_a_text_is_part_of_it(tmp_path, line):
    found = read_metadata(written(tmp_path, line + "\nu2|Glue it.|Glue it.\n"))
    assert found.texts["u1"] == "The birch | canoe slid."
    assert "inside" in found.notes[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"u1|caf\xe9\n", r"line 1: byte 0xe9 is not UTF-8 text"),
        ("u1|one".encode("utf-16"), "is UTF-16 text"),
        ("u1|one two three".encode("utf-16-le"), "is UTF-16 text"),
        ("u1|one\x00two\n", "line 1: a control character (U+0000)"),
        ("u1|one\nu2\n", "line 2: 1 columns"),
        ("u1\tone two\nu2\tthree\n", "separated by tabs"),
        ("u1|one\nu1.wav|two\n", "line 2: the id 'u1' occurs twice"),
        ("u1|one two three|four five six\nu2|seven\n", "is no normalised form"),
        ("u1|a b|c d|e f|g h\n", "5 columns"),
        ("u1|\n", "line 1: no text"),
        ("id|text\n", "a header and no utterance"),
        ("\n", "is empty"),
    ],
)
def test_what_cannot_be_told_is_refused_with_its_line(tmp_path, content, said):
    with pytest.raises(DataError) as caught:
        read_metadata(written(tmp_path, content))
    assert said in caught.value.message
    assert caught.value.hint


def tone(path, seconds=1.0, rate=16_000, gain=0.2, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, gain * np.sin(2 * np.pi * 220 * time) * (1 + np.sin(9 * time)) / 2, rate, **more)


def test_recordings_are_found_below_in_any_format_and_without_what_macos_leaves(tmp_path):
    for name in ("a.wav", "sub/b.flac", "c.ogg", "U\u0308.wav"):
        tone(tmp_path / name)
    (tmp_path / "._a.wav").write_bytes(b"\x00\x05\x16\x07")
    assert sorted(recordings_in(tmp_path)) == ["a", "b", "c", "\u00dc"]
    assert len(open_source(tmp_path).recordings) == 4
    tone(tmp_path / "more/a.wav")
    with pytest.raises(DataError, match="two recordings named 'a'"):
        recordings_in(tmp_path)


@pytest.mark.parametrize("case", ["eval_bom", "eval_norm"])
def test_eval_and_listen_read_the_same_text(case):
    if not CASES.is_dir():
        pytest.skip("no cases in ../shared")
    found = open_source(CASES / case).recordings
    assert [one.prompt["text"][:9] for one in found.values()] == ["The birch", "Glue the "]


def test_a_corpus_may_be_flac(tmp_path):
    tone(tmp_path / "wavs/x/u1.flac")
    written(tmp_path, "u1|One.\n")
    row = {"id": "u1", "phones": ["W", "ah1", "N"], "ends": [0.2, 0.5, 1.0]}
    (tmp_path / "phones.jsonl").write_text(json.dumps(row) + "\n")
    item = SpeechCorpus.open(tmp_path)[0]
    assert item.phones == ("W", "AH1", "N")
    assert item.load().shape == (16_000,)
    assert SpeechCorpus.around(item.wav) is not None


@pytest.mark.parametrize(
    ("phones", "ends", "said"),
    [
        (["W", "AH1", "N"], [0.1, 0.2, 0.3], "phone times end at 0.300 s, 0.7 s before its audio"),
        (["w", "ʌ", "n"], [0.1, 0.2, 1.0], "'ʌ' is no ARPAbet phone"),
    ],
)
def test_times_of_a_part_and_other_alphabets_are_refused(tmp_path, phones, ends, said):
    tone(tmp_path / "wavs/u1.wav")
    written(tmp_path, "u1|One.\n")
    (tmp_path / "phones.jsonl").write_text(json.dumps({"id": "u1", "phones": phones, "ends": ends}) + "\n")
    with pytest.raises(DataError) as caught:
        SpeechCorpus.open(tmp_path)
    assert said in caught.value.message


# Layouts


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def pairs(root):
    for name, said in TEXTS.items():
        tone(root / f"{name}.wav")
        text(root / f"{name}.txt", said)


def vctk(root):
    for name, said in TEXTS.items():
        tone(root / f"wav48/p1/{name}_mic1.flac", rate=48_000)
        tone(root / f"wav48/p1/{name}_mic2.flac", rate=48_000)
        text(root / f"txt/p1/{name}.txt", said + "\n")


def libritts(root):
    for name, said in TEXTS.items():
        tone(root / f"84/12/{name}.wav", rate=24_000)
        text(root / f"84/12/{name}.normalized.txt", said)
        text(root / f"84/12/{name}.original.txt", "?")


def table(root):
    for name in TEXTS:
        tone(root / f"clips/{name}.wav")
    rows = "".join(f'clips/{name}.wav,"{said}",f\n' for name, said in TEXTS.items())
    text(root / "train.csv", "file_name,sentence,speaker\n" + rows)


def jsonl(root):
    for name in TEXTS:
        tone(root / f"{name}.wav")
    rows = [json.dumps({"audio_filepath": f"/gone/{name}.wav", "text": said}) for name, said in TEXTS.items()]
    text(root / "manifest.jsonl", "\n".join(rows) + "\n")


@pytest.mark.parametrize("made", [pairs, vctk, libritts, table, jsonl])
def test_other_layouts_become_one_corpus(tmp_path, made):
    made(tmp_path / "in")
    done = convert(tmp_path / "in", tmp_path / "out", rate=16_000)
    assert done.clips == 3
    stems = {
        name.removesuffix("_mic1"): said for name, said in read_metadata(tmp_path / "out/metadata.csv").texts.items()
    }
    assert stems == TEXTS
    for path in recordings_in(tmp_path / "out/wavs").values():
        assert (soundfile.info(path).samplerate, soundfile.info(path).channels) == (16_000, 1)
    with pytest.raises(DataError, match="exists and is not empty"):
        convert(tmp_path / "in", tmp_path / "out")


def test_a_table_cannot_name_files_outside_its_folder(tmp_path):
    tone(tmp_path / "secret.wav")
    tone(tmp_path / "in/u1.wav")
    text(tmp_path / "in/train.csv", "path,text\n../secret.wav,Hello there.\n")
    with pytest.raises(DataError, match="is called so"):
        convert(tmp_path / "in", tmp_path / "out")


def test_integers_in_floats_are_refused_by_the_reader_and_scaled_by_the_converter(tmp_path):
    tone(tmp_path / "in/u1.wav", gain=20_000, subtype="FLOAT")
    text(tmp_path / "in/u1.txt", "One two.")
    convert(tmp_path / "in", tmp_path / "out")
    wave, _ = soundfile.read(tmp_path / "out/wavs/u1.wav")
    assert np.abs(wave).max() == pytest.approx(20_000 / 32_768, rel=0.01)
    from rlzoo.audio import read_audio

    with pytest.raises(DataError, match="floating point in the scale of integers"):
        read_audio(tmp_path / "in/u1.wav")


# One page about a corpus


def test_check_says_what_is_wrong_with_each_recording_and_text(tmp_path):
    tone(tmp_path / "wavs/good.wav", 2.0)
    tone(tmp_path / "wavs/loud.wav", 2.0, gain=3.0)
    tone(tmp_path / "wavs/quiet.wav", 2.0, gain=0.002)
    tone(tmp_path / "wavs/silent.wav", 2.0, gain=0.0)
    tone(tmp_path / "wavs/other.wav", 2.0, rate=22_050)
    tone(tmp_path / "wavs/more.wav")
    said = "The old farmer went home."
    names = ("good", "loud", "quiet", "silent", "other", "gone")
    written(tmp_path, "".join(f"{name}|{said}\n" for name in names) + "chinese|你好\n")
    report = check_corpus(tmp_path)
    assert set(report.broken) == {"silent", "gone", "chinese"}
    assert "clipped" in report.doubtful["loud"]
    assert "quiet" in report.doubtful["quiet"]
    assert "good" not in report.doubtful
    assert report.rates == {16_000: 4, 22_050: 1}
    assert report.unused == ["more"]
    assert not report.ready
    assert "ZH" in report.rare
    json.dumps(report.as_dict())


def test_check_counts_the_words_that_would_be_gibberish(tmp_path):
    tone(tmp_path / "wavs/u1.wav", 2.0)
    written(tmp_path, "u1|The farmer went home.\n")
    bare = str.split("sil DH AH F AA R M ER W EH N T HH OW M sil")
    rows = {"id": "u1", "phones": bare, "ends": [(place + 1) * 2.0 / len(bare) for place in range(len(bare))]}
    (tmp_path / "phones.jsonl").write_text(json.dumps(rows) + "\n")
    report = check_corpus(tmp_path)
    assert report.lacking == {"the": 1}
    assert not report.ready


BIRCH = "The birch canoe slid on the smooth planks."


@pytest.mark.parametrize(
    ("case", "first", "note"),
    [
        ("align_norm", "It costs $3.50.", ""),
        ("corpus_bom", BIRCH, ""),
        ("corpus_float_int_scale", BIRCH, ""),
        ("corpus_header_line", BIRCH, "header"),
        ("corpus_id_space", BIRCH, ""),
        ("corpus_nfd_name", BIRCH, ""),
        ("corpus_pipe_in_text", "The birch canoe | slid on the smooth planks.", "inside"),
        ("corpus_quoted_pipe", "The birch canoe | slid on the smooth planks.", "inside"),
        ("corpus_spk_last", BIRCH, "column 3 holds speakers"),
        ("corpus_u2028", BIRCH, "U+2028"),
        ("corpus_wrong_text", BIRCH, ""),
    ],
)
def test_every_corpus_of_the_cases_is_read_whole(case, first, note):
    if not CASES.is_dir():
        pytest.skip("no cases in ../shared")
    found = read_metadata(CASES / case / "metadata.csv")
    assert next(iter(found.texts.values())) == first
    assert note in " ".join(found.notes)
    assert found.texts.keys() == recordings_in(CASES / case / "wavs").keys()


def test_text_that_is_not_utf8_and_other_formats_beside_each_other():
    if not CASES.is_dir():
        pytest.skip("no cases in ../shared")
    with pytest.raises(DataError, match="line 1: byte 0xe9 is not UTF-8"):
        open_source(CASES / "eval_latin1")
    assert sorted(open_source(CASES / "eval_one_ogg").recordings) == ["u1", "u2"]


@pytest.mark.parametrize(("grids", "said"), [("tg_mfa", ""), ("tg_short1s", "end at 1.470 s, 1.0 s before its audio")])
def test_textgrids_of_the_cases_are_held_against_their_audio(tmp_path, grids, said):
    if not CASES.is_dir():
        pytest.skip("no cases in ../shared")
    shutil.copytree(CASES / "corpus_bom/wavs", tmp_path / "wavs")
    written(tmp_path, f"u1|{BIRCH}\n")
    report = check_corpus(tmp_path, textgrids=CASES / grids)
    assert said in report.broken.get("u1", "")
    assert report.ready == (not said)
    if said:
        with pytest.raises(DataError, match=r"end at 1\.470 s"):
            SpeechCorpus.open(tmp_path, textgrids=CASES / grids)
    else:
        assert SpeechCorpus.open(tmp_path, textgrids=CASES / grids)[0].phones[:3] == ("sil", "DH", "AH0")


def test_the_macos_case(tmp_path):
    if not CASES.is_dir():
        pytest.skip("no cases in ../shared")
    shutil.copytree(CASES / "eval_macos_dot", tmp_path / "a")
    assert sorted(open_source(tmp_path / "a").recordings) == ["u1", "u2"]
