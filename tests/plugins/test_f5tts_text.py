"""How F5-TTS reads text, against the published code."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from f5_reference import f5_tts
from rlzoo_f5tts.text import as_reference, read_vocabulary, to_rows, to_tokens
from rlzoo_prompts import SentencesOptions
from rlzoo_prompts.prompts import SentencesPrompts

from rlzoo.errors import ConfigError, DataError

CHINESE = [
    "你好，世界。",
    "我们去北京 3.5 km run吧!",
    "行长在银行里行走。",
    "naïve café — “quoted” 12%",
    "日本語のテスト",
]


def theirs(text: str) -> list[str]:
    found: list[str] = f5_tts().utils.convert_char_to_pinyin([text])[0]
    return found


def test_english_is_read_as_the_package_reads_it():
    sentences = [prompt.text for prompt in SentencesPrompts(SentencesOptions()).train()]
    assert all(to_tokens(text) == theirs(text) for text in sentences)


def test_any_ascii_is_read_as_the_package_reads_it():
    draw = random.Random(0)
    alphabet = "abXYZ019 .,;:!?'\"-_+#&%()/\\\n\t@$"
    for _ in range(500):
        text = "".join(draw.choice(alphabet) for _ in range(draw.randint(1, 30)))
        assert to_tokens(text) == theirs(text), repr(text)


@pytest.mark.parametrize("text", CHINESE)
def test_other_scripts_are_read_as_the_package_reads_them(text):
    pytest.importorskip("pypinyin")
    pytest.importorskip("rjieba")
    assert to_tokens(text) == theirs(text)


def test_rows_count_from_one_and_strangers_are_spaces():
    vocabulary = {" ": 0, "a": 1, "b": 2}
    assert to_rows("ab#a", vocabulary).tolist() == [2, 3, 1, 2]
    with pytest.raises(ConfigError, match="nothing of"):
        to_rows("## ", vocabulary)


def test_a_reference_ends_in_a_full_stop_and_spaces():
    assert as_reference("Well") == "Well.  "
    assert as_reference("Well.") == "Well.  "
    assert as_reference("好。") == "好。"


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a\nb\n", "does not begin with a space"), (b" \n\xff\n", "not UTF-8"), (b" " * (5 << 20), "larger than any")],
)
def test_bad_vocabularies_are_refused(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_vocabulary(tmp_path / "vocab.txt")
    with pytest.raises(DataError, match="cannot read"):
        read_vocabulary(tmp_path / "none.txt")


def test_line_ends_of_windows_are_no_part_of_an_entry(tmp_path: Path):
    (tmp_path / "vocab.txt").write_bytes(b" \r\na\r\nb")
    assert read_vocabulary(tmp_path / "vocab.txt") == {" ": 0, "a": 1, "b": 2}
