"""The English front-end: spelling to words, words to phones."""

from __future__ import annotations

import math
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlzoo.errors import DataError
from rlzoo.speech.text import numerals
from rlzoo.speech.text.frontend import flite_exceptions, guess, shared_lexicon
from rlzoo.speech.text.letters import BITS, END, START, LetterToSound, pack
from rlzoo.speech.text.lexicon import Lexicon
from rlzoo.speech.text.normalize import spoken
from rlzoo.speech.text.phones import nearest
from rlzoo.speech.text.train_letters import align, edit_distance, fit_units, is_held_out, kneser_ney, save
from rlzoo.text import ARPABET, SILENCES, TextFrontend, transcript

KNOWN = {*ARPABET, *SILENCES}


def rows_of(name: str) -> list[tuple[str, str, str]]:
    """Lines of three columns below tests/text, without the header; what lies in ../shared is read where it is there."""
    folder = Path(__file__).parent / "text"
    path = Path(__file__).parents[2] / "shared" / name.removeprefix("../") if name.startswith("../") else folder / name
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return [(a, b, c) for a, b, c in (line.split("\t") for line in lines)]


@pytest.fixture(scope="module")
def cmu() -> TextFrontend:
    return TextFrontend("cmu")


@pytest.fixture(scope="module")
def flite() -> TextFrontend:
    return TextFrontend("flite")


# Words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, Bob.", "hello , bob ,"),
        ("  'Tis -- well... (really?!)", "'tis , well , really ,"),
        ("Dr. Lee of St. James St. met Mr. Poe Jr.", "doctor lee of saint james street met mister poe junior ,"),
        ("cats, dogs etc. Then birds", "cats , dogs et cetera , then birds"),
        ("e.g. this, i.e. that", "for example , this , that is , that"),
        ("She paid $3.50 and £1.01", "she paid three dollars and fifty cents and one pound and one penny"),
        (
            "$1.5 million, 20€, $5k, $1",
            "one point five million dollars , twenty euros , five thousand dollars , one dollar",
        ),
        ("at 3:05 p.m. and 10:00", "at three oh five p. m. and ten o'clock"),
        ("July 4, 1776", "july fourth seventeen seventy six"),
        ("2021-08-18", "august eighteenth twenty twenty one"),
        ("12/25/2005", "december twenty fifth two thousand five"),
        ("the 1980s and '90s", "the nineteen eighties and nineties"),
        ("1412 old men, 1412 bottles", "fourteen twelve old men , one thousand four hundred twelve bottles"),
        ("1984 was not in 1914 books", "nineteen eighty four was not in nineteen fourteen books"),
        ("1900, 1805 and 2000", "nineteen hundred , eighteen oh five and two thousand"),
        (
            "1,234,567 and 0.25",
            "one million two hundred thirty four thousand five hundred sixty seven and zero point two five",
        ),
        ("the 1st, 22nd and 100th", "the first , twenty second and one hundredth"),
        ("1/2, 3/4 and 2 1/2", "one half , three quarters and two and a half"),
        ("10-20, 1914-1918", "ten to twenty , nineteen fourteen to nineteen eighteen"),
        ("-5°C or 25%", "minus five degrees celsius or twenty five percent"),
        ("60 km/h, 1 kg, 3 ft, 5 GB", "sixty kilometers per hour , one kilogram , three feet , five gigabytes"),
        ("call 555-1234", "call five five five , one two three four"),
        ("agent 007 on v1.2.3", "agent zero zero seven on v one point two point three"),
        ("chapter IV, Henry VIII, World War II", "chapter four , henry the eighth , world war two"),
        ("The U.S. XQR's CDs, CEOs' GPUs", "the u. s. x. q. r.'s c. d.'s , c. e. o.'s g. p. u.'s"),
        ("IT is not it; US and us", "i. t. is not it , u. s. and us"),
        ("NASA flew COVID-19 tests, THE END", "nasa flew covid nineteen tests , the end"),
        ("THE QUICK BROWN FOX IS HERE", "the quick brown fox is here"),
        ("WaveGrad on B2B iPhone", "wave grad on b two b iphone"),
        ("me@foo.org at www.a.com/b", "me at foo dot org at w. w. w. dot a dot com slash b"),
        ("naïve café: “it’s” 😀 fine", "naive cafe , it's fine"),
        ("Москва & α", "moskva and alpha"),
        ("x² + y = ½", "x squared plus y equals one half"),
        ("a well-known mother-in-law", "a well known mother in law"),
    ],
)
def test_spoken_words(cmu: TextFrontend, text: str, expected: str) -> None:
    assert " ".join(cmu.words(text)) == expected


def test_numbers_agree_with_counting() -> None:
    assert [" ".join(numerals.cardinal(n)) for n in (0, 13, 40, 99, 100, 1001)] == [
        "zero", "thirteen", "forty", "ninety nine", "one hundred", "one thousand one",
    ]  # fmt: skip
    assert len({tuple(numerals.cardinal(n)) for n in range(20_000)}) == 20_000
    assert len({tuple(numerals.ordinal(n)) for n in range(2_000)}) == 2_000
    assert numerals.cardinal(-7) == ["minus", "seven"]
    assert numerals.roman("MCMXCIV") == 1994
    assert numerals.roman("IIX") is None


def test_every_number_word_is_in_the_dictionary() -> None:
    words = {word for n in range(1_000) for word in (*numerals.cardinal(n), *numerals.ordinal(n))}
    assert all(word in shared_lexicon() for word in words)


@pytest.mark.parametrize("text", ["", "   ", "...", "?!", "😀 👍", "—", "\x00\x01", "''"])
def test_nothing_to_say_is_a_data_error(cmu: TextFrontend, text: str) -> None:
    with pytest.raises(DataError, match="nothing to say") as caught:
        cmu.phones(text)
    assert repr(text) in caught.value.message
    assert caught.value.hint


def test_any_text_gives_known_phones_or_a_data_error(cmu: TextFrontend, flite: TextFrontend) -> None:
    source = random.Random(0)
    alphabet = "aeiouTNSR019 .,-/:$%'&@#()€£°½éßЖ😀\n\t\u0301\u200b"
    spoke = 0
    for _ in range(400):
        text = "".join(source.choice(alphabet) for _ in range(source.randint(1, 30)))
        for frontend in (cmu, flite):
            try:
                phones = frontend.phones(text)
            except DataError:
                continue
            spoke += 1
            assert phones
            assert set(phones) <= KNOWN
    assert spoke > 600


def test_very_long_numbers_are_read() -> None:
    assert len(spoken("7" * 6000)) == 6000


@pytest.mark.parametrize(("kind", "text", "words"), rows_of("readings.tsv") + rows_of("../cases/text-readings.tsv"))
def test_written_kinds_are_read(cmu: TextFrontend, kind: str, text: str, words: str) -> None:
    assert cmu.say(text).replace(".", "") == words


@pytest.mark.parametrize(("text", "word", "phones"), rows_of("heteronyms.tsv") + rows_of("../cases/heteronyms.tsv"))
@pytest.mark.parametrize("style", ["cmu", "flite"])
def test_a_word_with_several_readings_is_read_by_its_sentence(style: str, text: str, word: str, phones: str) -> None:
    frontend = TextFrontend(style)  # type: ignore[arg-type]
    words = frontend.words(text)
    found = frontend.pronunciations(words)[words.index(word)]
    assert " ".join(phone.rstrip("012") for phone in found) == phones


def test_more_of_every_kind_is_read(cmu: TextFrontend) -> None:
    wrong = [
        (text, found)
        for _, text, words in rows_of("readings-2.tsv")
        if (found := cmu.say(text).replace(".", "")) != words
    ]
    assert not wrong


@pytest.mark.parametrize("style", ["cmu", "flite"])
def test_more_words_with_several_readings(style: str) -> None:
    frontend = TextFrontend(style)  # type: ignore[arg-type]
    wrong = []
    for text, word, phones in rows_of("heteronyms-2.tsv"):
        words = frontend.words(text)
        found = " ".join(phone.rstrip("012") for phone in frontend.pronunciations(words)[words.index(word)])
        if found != phones:
            wrong.append((text, found))
    assert not wrong


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Go to 北京", "'北京' is Chinese or Japanese"),
        ("こんにちは", "Japanese"),
        ("مرحبا", "Arabic"),
        ("नमस्ते", "Hindi"),
        ("한국어", "Korean"),
        ("שלום", "Hebrew"),
    ],
)
def test_scripts_that_are_not_read_are_refused_by_name(cmu: TextFrontend, text: str, name: str) -> None:
    with pytest.raises(DataError, match=name):
        cmu.words(text)


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("siobhan", "SH AH0 V AO1 N"),
        ("segue", "S EH1 G W EY2"),
        ("quinoa", "K IY1 N W AA2"),
        ("gmail", "JH IY1 M EY2 L"),
        ("json", "JH EY1 S AH0 N"),
        ("shh", "SH"),
        ("ciaran", "K IH1 R AH0 N"),
        ("ramen", "R AA1 M AH0 N"),
    ],
)
def test_words_that_the_dictionary_lacks_or_has_wrong(cmu: TextFrontend, word: str, phones: str) -> None:
    assert " ".join(cmu.word_phones(word)) == phones


def test_a_perfect_reading_is_the_text() -> None:
    """`transcript` of what is said is `transcript` of what was written: the property that `wer` rests on."""
    lists = ("readings.tsv", "readings-2.tsv", "../cases/text-readings.tsv")
    texts = [text for name in lists for _, text, _ in rows_of(name)]
    prompts = Path(__file__).parents[1] / "plugins/prompts/rlzoo_prompts/data"
    texts += [line for path in sorted(prompts.glob("*.txt")) for line in path.read_text().splitlines()]
    texts += [
        "He said (very quietly) no.",
        "www.example.com",
        "Fig. 3 is that, etc.",
        "I am L. C. of I.B.M.",
        "&",
        "-5",
    ]
    frontend = TextFrontend()
    assert len(texts) > 350
    for text in texts:
        said = frontend.say(text).replace(".", "")
        assert transcript(said) == transcript(text) != "", text


# Phones


def test_phones_that_a_voice_never_learnt_are_mapped_by_rule_or_refused() -> None:
    assert nearest("OY2", {"OY1", "OY0"}) == "OY1"
    assert nearest("EY1", {"EY"}) == "EY"
    assert nearest("sp", {"sil"}) == "sil"
    assert nearest("AH0", {"AH1", "AH2"}) is None
    assert nearest("AH0", {"AH", "IH"}) == "AH"
    voice = TextFrontend("cmu", learnt=["AH1", "K", "AE1", "T", "S", "sil"])
    assert voice.speakable(["K", "AE2", "T", "sp"]) == ["K", "AE1", "T", "sil"]
    with pytest.raises(DataError, match=r"never learnt the phone\(s\) AH0, DH, as in 'the'"):
        voice.speakable(voice.phones("the cat sat"), "the cat sat")


def test_a_sentence_costs_few_milliseconds() -> None:
    frontend = TextFrontend()
    text = "Dr. Lee had to present 5 kg of the 1,000 objects for $3.50 at 10:30 a.m. in 1984, he said."
    frontend.phones(text)
    start = time.process_time()
    for _ in range(20):
        frontend.phones(text)
    # Five are promised; the machine of a test may be slow.
    assert (time.process_time() - start) / 20 < 0.025


def test_the_arpabet_is_whole() -> None:
    assert len(ARPABET) == len(set(ARPABET)) == 84
    assert {"AH", "AH0", "ZH"} < set(ARPABET)


def test_phones_of_known_words_and_pauses(cmu: TextFrontend) -> None:
    assert cmu.phones("Hello, Bob.") == str.split("HH AH0 L OW1 sp B AA1 B sp")


def test_the_before_a_vowel(cmu: TextFrontend) -> None:
    assert cmu.phones("the apple") == str.split("DH IY0 AE1 P AH0 L")
    assert cmu.phones("the dog") == str.split("DH AH0 D AO1 G")


def test_flite_style_has_its_weak_forms_and_silences(flite: TextFrontend) -> None:
    assert flite.phones("Salt and pepper, to go.") == str.split("sil S AO L T AE N D P EH P ER sil T AH0 G OW sil")
    assert flite.phones("wanted") == ["sil", "W", "AA", "N", "T", "AH0", "D", "sil"]


def test_without_stress_only_the_schwa_keeps_its_digit() -> None:
    phones = TextFrontend("cmu", stress=False).phones("photography above")
    assert [p for p in phones if p[-1].isdigit()] == ["AH0", "AH0", "AH0"]
    assert TextFrontend("cmu", silence_ends=True).phones("go.") == ["sil", "G", "OW1", "sil"]


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("wugs", "W AH1 G Z"),
        ("wugged", "W AH1 G D"),
        ("wugging", "W AH1 G IH0 NG"),
        ("blicks", "B L IH1 K S"),
        ("blick's", "B L IH1 K S"),
        ("blicked", "B L IH1 K T"),
        ("dorted", "D AO1 R T IH0 D"),
        ("dorches", "D AO1 R CH IH0 Z"),
        ("trimmied", "T R IH1 M IY0 D"),
        ("plime's", "P L AY1 M Z"),
        ("pliming", "P L AY1 M IH0 NG"),
        ("plimer", "P L AY1 M ER0"),
        ("blickly", "B L IH1 K L IY0"),
        ("wug'll", "W AH1 G AH0 L"),
        ("wugs'", "W AH1 G Z"),
        ("wugour", "W AH1 G ER0"),
        ("plimisation", "P L IH1 M AH0 Z EY1 SH AH0 N"),
    ],
)
def test_inflections_of_known_words(word: str, phones: str) -> None:
    stems = {"wug": "W AH1 G", "blick": "B L IH1 K", "dort": "D AO1 R T", "dorch": "D AO1 R CH"}
    stems |= {"trimmy": "T R IH1 M IY0", "plime": "P L AY1 M"}
    stems |= {"wugor": "W AH1 G ER0", "plimization": "P L IH1 M AH0 Z EY1 SH AH0 N"}
    lexicon = Lexicon({stem: tuple(sound.split()) for stem, sound in stems.items()})
    assert lexicon.lookup(word) == phones.split()
    assert lexicon.lookup("zzz") is None


def test_the_rules_agree_with_the_dictionary() -> None:
    """Take inflected words out of the dictionary and let the rules make them again."""
    entries = dict(shared_lexicon().entries())
    for ending, least in (("s", 0.95), ("ed", 0.93), ("ing", 0.93)):
        words = [w for w in entries if w.endswith(ending) and w.removesuffix(ending) in entries and w.isalpha()][::20]
        right = 0
        for word in words:
            rest = Lexicon({word.removesuffix(ending): entries[word.removesuffix(ending)]})
            made = rest.lookup(word)
            right += made is not None and edit_distance(made, entries[word]) <= 1
        assert len(words) > 50
        assert right / len(words) > least


# Letters to sounds


def test_unknown_words_are_guessed_well() -> None:
    """Spellings that the dictionary does not have, with what a reader would say (stress aside)."""
    said = {
        "zorbification": "Z AO R B AH F AH K EY SH AH N",
        "frobnicate": "F R AA B N AH K EY T",
        "blicket": "B L IH K AH T",
        "snorple": "S N AO R P AH L",
        "grunthed": "G R AH N TH T",
        "phlebotron": "F L EH B AH T R AA N",
    }
    errors = total = 0
    for word, sound in said.items():
        assert word not in shared_lexicon()
        errors += edit_distance([p.rstrip("012") for p in guess(word)], sound.split())
        total += len(sound.split())
    assert errors / total < 0.2


def test_a_word_without_vowels_is_spelled(cmu: TextFrontend) -> None:
    assert cmu.phones("html") == str.split("EY1 CH T IY1 EH1 M EH1 L")


def test_the_shipped_model_fits_the_dictionary() -> None:
    words = [(w, p) for w, p in shared_lexicon().entries() if w.isalpha() and len(w) > 2][::1500]
    errors = sum(edit_distance(guess(word), phones) for word, phones in words)
    assert errors / sum(len(phones) for _, phones in words) < 0.08


def test_alignment_finds_silent_and_double_letters() -> None:
    sounds = {"ax": "AE K S", "ox": "AA K S", "at": "AE T", "to": "T UW", "sax": "S AE K S", "ate": "EY T"}
    sounds |= {"tote": "T OW T", "oat": "OW T"}
    words = [(word, tuple(sound.split())) for word, sound in sounds.items()]
    units = fit_units(words)
    assert align("ax", ("AE", "K", "S"), units) == [("a", ("AE",)), ("x", ("K", "S"))]
    assert align("tote", ("T", "OW", "T"), units)[-1] == ("e", ())


@pytest.mark.parametrize("min_count", [[1, 1, 1], [1, 2, 2]])
def test_kneser_ney_probabilities_sum_to_one(tmp_path: Path, min_count: list[int]) -> None:
    source = random.Random(1)
    sequences = [[source.choice((2, 2, 3, 4, 5)) for _ in range(source.randint(1, 6))] for _ in range(60)]
    tables = kneser_ney(sequences, 3, min_count)

    def probability(context: tuple[int, ...], unit: int) -> float:
        weight = 0.0
        for length in range(3, 0, -1):
            gram = (*context, unit)[-length:]
            entry = tables[length - 1].get(pack(gram))
            if entry is not None and entry[0] > -99:
                return math.exp(weight + entry[0])
            if length > 1:
                weight += tables[length - 2].get(pack(gram[:-1]), [0.0, 0.0])[1]
        return 0.0

    for context in ((START, START), (START, 2), (2, 3), (5, 5), (4, 2)):
        assert sum(probability(context, unit) for unit in (END, 2, 3, 4, 5)) == pytest.approx(1.0, abs=1e-6)


def test_a_model_survives_the_disk(tmp_path: Path) -> None:
    words = [("ba", ("B", "AA")), ("be", ("B", "IY")), ("bab", ("B", "AA", "B"))] * 3
    units = fit_units(words)
    aligned = [align(letters, phones, units) for letters, phones in words]
    inventory = sorted({unit for word in aligned for unit in word})
    ids = {unit: index + 2 for index, unit in enumerate(inventory)}
    tables = kneser_ney([[ids[unit] for unit in word] for word in aligned], 6, [1] * 6)
    save(tmp_path / "model.xz", inventory, tables)
    model = LetterToSound.load(tmp_path / "model.xz")
    assert model.phones("babe") == ["B", "AA", "B", "IY"]
    assert model.phones("7") == []
    assert BITS * 6 <= 64


@pytest.mark.slow
def test_phone_error_rate_on_held_out_words(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rlzoo.speech.text.train_letters", "--held-out", "0.05"]
    out = subprocess.run([*command, "--out", tmp_path / "m.xz"], capture_output=True, text=True, check=True).stdout
    assert float(out.split("without stress ")[1].split(",")[0]) < 0.1
    assert is_held_out("walk", 1.0)


# Whole


def test_data_that_others_made_is_attributed() -> None:
    root = Path(__file__).parents[1]
    notice = (root / "NOTICE").read_text(encoding="utf-8")
    readme = (root / "rlzoo/speech/text/README.md").read_text(encoding="utf-8")
    models = sorted((root / "rlzoo/speech/text").glob("*.xz"))
    assert len(models) == 2
    for path in models:
        assert str(path.relative_to(root)) in notice
        assert f"rlzoo.speech.text.train_{path.stem}" in readme
    assert "CC BY-SA 4.0" in notice
    assert "CC BY-SA 4.0" in readme


def test_the_front_end_is_light() -> None:
    code = "import sys, rlzoo.text as t; t.TextFrontend().phones('hello zorb'); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


def test_flite_exceptions_are_phones() -> None:
    exceptions = flite_exceptions()
    assert len(exceptions) > 300
    assert {phone for phones in exceptions.values() for phone in phones} <= KNOWN


def test_flite_style_speaks_as_flite_does(flite: TextFrontend) -> None:
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    texts = [
        "The old ferry crossed the river twice a day, and nobody ever asked why.",
        "Seven green bottles stood in the window of the little shop.",
        "We wanted to visit the museum, but the doors were closed.",
        "Please send the updated figures to the office before the end of June.",
        "A cold wind blew through the valley in the early morning.",
        "Her brother studied chemistry at a small college near the coast.",
    ]
    errors = total = 0
    for text in texts:
        command = ["flite", "-voice", "kal", "-ps", "-t", text, "none"]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        said = [{"pau": "sil", "ax": "AH0"}.get(phone, phone.upper()) for phone in out.split()]
        errors += edit_distance(flite.phones(text), said)
        total += len(said)
    assert errors / total < 0.06
