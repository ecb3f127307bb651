"""Phones of a corpus against the phones that the front end will ask for."""

import json

import numpy as np
import pytest
import soundfile

from rlzoo.errors import DataError
from rlzoo.speech.corpus.coverage import check_coverage, style_of
from rlzoo.speech.corpus.speech import SpeechCorpus
from rlzoo.speech.text import TextFrontend, strip_stress

TEXT = "The old farmer went to town, and a bird sang."


def corpus(folder, phones):
    (folder / "wavs").mkdir(parents=True)
    soundfile.write(folder / "wavs/u1.wav", np.zeros(16_000), 8_000)
    (folder / "metadata.csv").write_text(f"u1|{TEXT}\n")
    ends = [2.0 * (place + 1) / len(phones) for place in range(len(phones))]
    (folder / "phones.jsonl").write_text(json.dumps({"id": "u1", "phones": phones, "ends": ends}) + "\n")
    return SpeechCorpus.open(folder)


@pytest.mark.parametrize("style", ["cmu", "flite"])
def test_a_corpus_in_its_own_style_is_covered(tmp_path, style):
    made = corpus(tmp_path / "c", TextFrontend(style, silence_ends=True).phones(TEXT))
    assert check_coverage(made, style).lacking == {}
    assert style_of(made.card["phones"]) == style


@pytest.mark.parametrize(("style", "other"), [("cmu", "flite"), ("flite", "cmu")])
def test_the_other_style_is_refused_with_its_words_and_the_remedy(tmp_path, style, other):
    made = corpus(tmp_path / "c", TextFrontend(style).phones(TEXT))
    with pytest.raises(
        DataError, match=rf"style '{other}' asks for .* of 10 words would be gibberish, such as '"
    ) as caught:
        check_coverage(made, other)
    assert f"text_style={style}" in caught.value.hint


def test_phones_without_stress_and_schwa_must_be_aligned_again(tmp_path):
    bare = [phone.rstrip("012") for phone in TextFrontend("cmu").phones(TEXT)]
    made = corpus(tmp_path / "c", bare)
    for style in ("cmu", "flite"):
        with pytest.raises(DataError, match="would be gibberish") as caught:
            check_coverage(made, style)
        assert "rlzoo corpus align" in caught.value.hint
    assert all(strip_stress(phone) == phone for phone in bare)
