"""Prompt sets: what ships, what the user's files may hold, and every refusal."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rlzoo_prompts import LJSpeechOptions, SentencesOptions, ShortOptions, TextOptions, ZeroShotOptions, rlzoo_prompts
from rlzoo_prompts.files import prompt_id
from rlzoo_prompts.prompts import LJSpeechPrompts, SentencesPrompts, ShortPrompts, TextPrompts, ZeroShotPrompts

from rlzoo.errors import DataError

LJSPEECH = Path(__file__).parents[3] / "shared" / "data" / "ljspeech"


@pytest.mark.parametrize(
    ("prompts", "train", "heldout"),
    [(ShortPrompts(ShortOptions()), 32, 16), (SentencesPrompts(SentencesOptions()), 207, 64)],
    ids=["short", "sentences"],
)
def test_the_sets_that_ship_are_complete_distinct_and_disjoint(prompts, train, heldout):
    assert (len(prompts.train()), len(prompts.heldout())) == (train, heldout)
    everything = prompts.train() + prompts.heldout()
    assert len({prompt.id for prompt in everything}) == train + heldout
    assert len({prompt.text.lower() for prompt in everything}) == train + heldout
    assert all(re.fullmatch(r"[a-z0-9-]{5,60}", prompt.id) for prompt in everything)


def test_short_prompts_are_short():
    prompts = ShortPrompts(ShortOptions())
    assert all(2 <= len(prompt.text.split()) <= 4 for prompt in prompts.train() + prompts.heldout())


def test_announced_names_and_targets():
    specs = {spec.name: spec for spec in rlzoo_prompts()}
    assert sorted(specs) == ["ljspeech", "sentences", "short", "text", "zero-shot"]
    for spec in specs.values():
        module, _, name = spec.target.partition(":")
        assert module == "rlzoo_prompts.prompts"
        assert name in globals()


def test_ids_depend_on_the_text_alone(tmp_path):
    (tmp_path / "a.txt").write_text("One fish.\nTwo fish.\nRed fish.\n")
    (tmp_path / "b.txt").write_text("Blue fish.\n\nRed   fish.\nTwo fish.\nOne fish.\nOne fish.\n")
    ids = []
    for name in ("a.txt", "b.txt"):
        prompts = TextPrompts(TextOptions(path=tmp_path / name))
        ids.append({prompt.text: prompt.id for prompt in prompts.train() + prompts.heldout()})
    assert ids[0].items() < ids[1].items()
    assert len(ids[1]) == 4
    assert prompt_id("Щука?!").startswith("prompt-")


def test_a_text_file_is_split_into_disjoint_parts_of_the_right_size(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"This is line {n}.\n" for n in range(200)))
    prompts = TextPrompts(TextOptions(path=tmp_path / "a.txt", heldout_fraction=0.25))
    assert (len(prompts.train()), len(prompts.heldout())) == (150, 50)
    assert not {p.id for p in prompts.train()} & {p.id for p in prompts.heldout()}
    numbers = [int(re.search(r"\d+", p.text).group()) for p in prompts.train()]
    assert numbers == sorted(numbers)


def test_held_out_lines_from_a_second_file_are_never_trained_on(tmp_path):
    (tmp_path / "a.txt").write_text("One.\nTwo.\nThree.\n")
    (tmp_path / "b.txt").write_text("Two.\nFour.\n")
    prompts = TextPrompts(TextOptions(path=tmp_path / "a.txt", heldout_path=tmp_path / "b.txt"))
    assert [p.text for p in prompts.train()] == ["One.", "Three."]
    assert [p.text for p in prompts.heldout()] == ["Two.", "Four."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n  \n\n", "is empty"),
        (b"Fine.\nAlso fine.\n-- !?\n", "line 3: no letters"),
        (b"RIFF\x00\x00\x01WAVE", "line 1: a control character"),
        (b"Fine.\n\xff\xfe\xfa", "line 2: byte 0xff is not UTF-8"),
        (b"Only one line.", "has one line"),
    ],
    ids=["empty", "blank", "no letters", "binary", "encoding", "one line"],
)
def test_bad_text_files_are_refused_with_a_line_and_a_hint(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        TextPrompts(TextOptions(path=tmp_path / "a.txt"))
    assert caught.value.hint
    assert "a.txt" in caught.value.message


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        TextPrompts(TextOptions(path=tmp_path / "nowhere.txt"))
    with pytest.raises(DataError, match="is a directory"):
        TextPrompts(TextOptions(path=tmp_path))


def test_holding_everything_out_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("One.\n")
    (tmp_path / "b.txt").write_text("One.\nTwo.\n")
    with pytest.raises(DataError, match="every line"):
        TextPrompts(TextOptions(path=tmp_path / "a.txt", heldout_path=tmp_path / "b.txt"))


def write_lj(folder, count=10, recorded=10):
    (folder / "wavs").mkdir(parents=True)
    names = [f"LJ-{n:02d}" for n in range(count)]
    (folder / "metadata.csv").write_text("".join(f"{name}|No. {name}|Number {name}\n" for name in names))
    for n, name in enumerate(names[:recorded]):
        soundfile.write(folder / "wavs" / f"{name}.wav", np.full(100 + n, n / 100), 8000, subtype="PCM_16")
    return folder


def test_ljspeech_gives_normalised_text_and_recordings(tmp_path):
    prompts = LJSpeechPrompts(LJSpeechOptions(path=write_lj(tmp_path / "lj")))
    train, heldout = prompts.train(), prompts.heldout()
    assert (len(train), len(heldout)) == (9, 1)
    assert train[0].text.startswith("Number LJ-")
    picked = [prompt for prompt in train if prompt.id in ("LJ-02", "LJ-05", "LJ-07")][:2]
    samples = prompts.recordings(picked, None)
    number = int(picked[1].id[-2:])
    assert samples.media.sample_rate == 8000
    assert samples.lengths.tolist() == [100 + int(p.id[-2:]) for p in picked]
    assert samples.row(1).mean().item() == pytest.approx(number / 100, abs=1e-4)
    assert prompts.recordings(picked, 16000).lengths.tolist() == [2 * n for n in samples.lengths.tolist()]


def test_ljspeech_reads_its_files_of_ids(tmp_path):
    folder = write_lj(tmp_path / "lj")
    (folder / "train.txt").write_text("LJ-03\nLJ-01\n")
    (folder / "validation.txt").write_text("LJ-05\nLJ-06\nLJ-07\n")
    prompts = LJSpeechPrompts(LJSpeechOptions(path=folder / "metadata.csv", heldout_limit=2))
    assert [p.id for p in prompts.train()] == ["LJ-03", "LJ-01"]
    assert len(prompts.heldout()) == 2
    assert {p.id for p in prompts.heldout()} < {"LJ-05", "LJ-06", "LJ-07"}


def test_a_prompt_without_a_recording_is_named_when_one_is_needed(tmp_path):
    prompts = LJSpeechPrompts(LJSpeechOptions(path=write_lj(tmp_path / "lj", recorded=0)))
    assert "audio" not in prompts.train()[0].attributes
    with pytest.raises(DataError, match=f"prompt '{prompts.train()[0].id}' has no recording"):
        prompts.recordings(prompts.train()[:1], None)


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({"metadata.csv": "a|x\nb\n"}, {}, "line 2: 1 columns"),
        ({"metadata.csv": "a|x\na|y\n"}, {}, "line 2: the id 'a' occurs twice"),
        ({"metadata.csv": "a|x\nb|...\n"}, {}, "'b': no letters"),
        ({"metadata.csv": "a|x\n"}, {}, "one utterance"),
        ({"metadata.csv": "a|x\nb|y\n", "train.txt": "a\nq\n", "validation.txt": "b"}, {}, "names 'q'"),
        ({"metadata.csv": "a|x\nb|y\n", "train.txt": "a\nb\n", "validation.txt": "b"}, {}, "'b' is in 'train' and in"),
        ({"metadata.csv": "a|x\nb|y\n", "train.txt": "a\n"}, {}, r"validation\.txt' does not exist"),
        ({"metadata.csv": "a|x\nb|y\n"}, {"split": "dev"}, r"neither 'dev\.txt' nor"),
    ],
)
def test_bad_folders_are_refused(tmp_path, files, options, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        LJSpeechPrompts(LJSpeechOptions(path=tmp_path, **options))
    assert caught.value.hint


@pytest.mark.skipif(not LJSPEECH.is_dir(), reason="no LJSpeech clips in ../shared/data")
def test_the_real_ljspeech_layout_is_read():
    prompts = LJSpeechPrompts(LJSpeechOptions(path=LJSPEECH, heldout_fraction=0.25))
    assert (len(prompts.train()), len(prompts.heldout())) == (18, 6)
    samples = prompts.recordings(prompts.heldout()[:2], 16000)
    assert samples.media.sample_rate == 16000
    assert all(16000 < length < 11 * 16000 for length in samples.lengths.tolist())


def test_options_are_documented():
    for spec in rlzoo_prompts():
        for name, field in json.loads(json.dumps(spec.options.model_json_schema())).get("properties", {}).items():
            assert field.get("description"), f"{spec.name}.{name}"


def zero_shot(folder: Path, content: str) -> Path:
    (folder / "wavs").mkdir(exist_ok=True)
    for name in ("a", "b"):
        soundfile.write(folder / "wavs" / f"{name}.wav", np.zeros(160), 16_000)
    (folder / "meta.lst").write_text(content)
    return folder / "meta.lst"


def test_zero_shot_prompts_bring_their_voice(tmp_path):
    path = zero_shot(tmp_path, "wavs/a.wav|Said by a.|Speak this.\nwavs/b.wav|Said by b.|Speak this.\n")
    prompts = ZeroShotPrompts(ZeroShotOptions(path=path))
    train, heldout = prompts.train(), prompts.heldout()
    assert [len(train), len(heldout)] == [1, 1]
    assert {p.text for p in train + heldout} == {"Speak this."}
    assert {p.attributes["voice_text"] for p in train + heldout} == {"Said by a.", "Said by b."}
    assert all(Path(str(p.attributes["voice"])).is_file() for p in train + heldout)


def test_seed_tts_evals_lists_are_read(tmp_path):
    lines = "x-1|Said.|wavs/a.wav|Speak this.\nx-2|Said.|wavs/a.wav|Speak that.|wavs/b.wav\n"
    prompts = ZeroShotPrompts(ZeroShotOptions(path=zero_shot(tmp_path, lines)))
    found = {p.id: p for p in prompts.train() + prompts.heldout()}
    assert set(found) == {"x-1", "x-2"}
    assert found["x-1"].attributes == {"voice": str(tmp_path / "wavs/a.wav"), "voice_text": "Said."}
    assert found["x-2"].attributes["audio"] == str(tmp_path / "wavs/b.wav")


def test_held_out_voices_may_come_from_a_file_of_their_own(tmp_path):
    path = zero_shot(tmp_path, "1|Said.|wavs/a.wav|One.\n2|Said.|wavs/a.wav|Two.\n")
    (tmp_path / "held.lst").write_text("2|Said.|wavs/a.wav|Two.\n")
    prompts = ZeroShotPrompts(ZeroShotOptions(path=path, heldout_path=tmp_path / "held.lst"))
    assert [[p.id for p in part] for part in (prompts.train(), prompts.heldout())] == [["1"], ["2"]]
    with pytest.raises(DataError, match="held out"):
        ZeroShotPrompts(ZeroShotOptions(path=tmp_path / "held.lst", heldout_path=path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("wavs/a.wav|Only two columns\n", "line 1: 2 columns"),
        ("wavs/a.wav||Speak.\n", "line 1: 3 columns, 2 of them"),
        ("1|S.|wavs/a.wav|One.\n2|S.|wavs/none.wav|Two.\n", "line 2: the recording"),
        ("1|S.|wavs/a.wav|One.\n1|S.|wavs/a.wav|Two.\n", "line 2: '1' occurs twice"),
        ("../x|S.|wavs/a.wav|One.\n", "is no id"),
        ("1|S.|wavs/a.wav|...\n", "no letters"),
        ("1|S.|wavs/a.wav|One.\n", "one line"),
    ],
)
def test_bad_zero_shot_files_are_refused_with_their_line(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        ZeroShotPrompts(ZeroShotOptions(path=zero_shot(tmp_path, content)))
