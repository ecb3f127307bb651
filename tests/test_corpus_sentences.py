"""The sentence grammar: the same everywhere, varied, and grammatical where that can be checked."""

import hashlib
import re
import shutil
import subprocess
from collections import Counter
from itertools import pairwise

import pytest

from rlzoo.errors import DataError
from rlzoo.speech.corpus.sentences import _RULES, _SLOT, generate_sentences, plural, third_person, vocabulary
from rlzoo.speech.corpus.speak import clean_text

SENTENCES = generate_sentences(6000, 0)


def test_six_thousand_are_distinct_and_a_longer_list_begins_alike():
    assert len({sentence.lower() for sentence in SENTENCES}) == 6000
    assert generate_sentences(50, 0) == SENTENCES[:50]


def test_seeds_differ():
    assert len(set(generate_sentences(500, 1)) & set(SENTENCES)) < 100


def test_every_sentence_can_be_spoken_and_has_no_slot_left():
    for sentence in SENTENCES:
        assert clean_text(sentence) == sentence
        assert not re.search(r"[{}/_]|  |None", sentence)
        assert sentence[0].isupper()
        assert sentence[-1] in ".?!"
        assert len(sentence) <= 120


def test_every_word_of_the_vocabulary_is_used():
    text = " ".join(SENTENCES).lower()
    missing = [
        word
        for words in vocabulary().values()
        for word in words
        if not any(form.lower() in text for form in word.split("/"))
    ]
    assert missing == []


def test_every_slot_is_a_rule_a_list_or_a_figure():
    figures = {"year", "price", "clock", "percent", "count", "small", "day"}
    for alternatives in _RULES.values():
        for _, text in alternatives:
            for name, form in _SLOT.findall(text):
                assert name in _RULES or name in figures or name in vocabulary(), name
                assert form in ("", "past", "base", "third", "many")
                if name in ("transitive", "intransitive"):
                    assert form in ("past", "base", "third")


def test_every_verb_has_a_past():
    for name in ("transitive", "intransitive"):
        assert all(entry.count("/") == 1 for entry in vocabulary()[name])


def test_kinds_and_lengths_vary():
    endings = Counter(sentence[-1] for sentence in SENTENCES)
    assert endings["?"] > 300
    assert endings["!"] > 60
    assert sum(any(char.isdigit() for char in sentence) for sentence in SENTENCES) > 300
    lengths = [len(sentence.split()) for sentence in SENTENCES]
    assert min(lengths) <= 2
    assert max(lengths) >= 15


@pytest.mark.parametrize(
    ("noun", "many"),
    [("box", "boxes"), ("mouse", "mice"), ("story", "stories"), ("boy", "boys"), ("torch", "torches"), ("toy", "toys")],
)
def test_plurals(noun, many):
    assert plural(noun) == many


@pytest.mark.parametrize(
    ("verb", "third"), [("carry", "carries"), ("look for", "looks for"), ("fix", "fixes"), ("dig up", "digs up")]
)
def test_third_person(verb, third):
    assert third_person(verb) == third


def test_the_article_follows_the_sound():
    text = " ".join(SENTENCES)
    assert re.search(r"\b[Aa]n (old|umbrella|elegant|honest)\b", text)
    assert re.search(r"\b[Aa] (useful|usual|young|hidden)\b", text)
    assert not re.search(r"\b[Aa] (old|elegant|empty|open|honest|ugly)\b", text)
    assert not re.search(r"\b[Aa]n (useful|usual|hidden)\b", text)


@pytest.mark.parametrize("count", [0, -1])
def test_no_sentences_cannot_be_made(count):
    with pytest.raises(DataError, match="cannot make"):
        generate_sentences(count)


@pytest.mark.skipif(shutil.which("flite") is None, reason="the program flite is not installed")
def test_every_phone_occurs_often_and_beside_many_others():
    # A part of the 6,000, which have 223,498 phones: ZH 522, OY 824, 1,212 diphones.
    text = " ".join(SENTENCES[::10])
    done = subprocess.run(
        ["flite", "-voice", "kal", "-ps", "-o", "none", "-t", text[:6000]], capture_output=True, text=True, check=True
    )
    phones = done.stdout.split()
    counts = Counter(phones)
    assert len(counts) == 40  # 39 ARPAbet phones and the pause; this voice says the schwa for AH
    assert counts["zh"] >= 5
    pairs = set(pairwise(phones))
    assert len(pairs) > 700


def test_the_sentences_of_the_shipped_voice_never_change():
    # The shipped voice is made again from these; a change of grammar or vocabulary makes another corpus.
    digest = hashlib.sha256("\n".join(SENTENCES).encode()).hexdigest()
    assert digest == "f1f1d0666ce6a7c9db49f1106e498ee0abfe175c6ae5f87657598dac25bc9b34"
