"""Error rates: counting, cutting, independence of rows, both recognisers, bad input."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
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

from rlzoo_wer import WEROptions, available
from rlzoo_wer.recognizers import PocketSphinx, Wav2Vec2, Whisper
from rlzoo_wer.reward import CERReward, WERReward, character_errors, recognizer_of, word_errors

RATE = 16_000
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
    return WERReward(WEROptions())


def test_rates_are_counted_after_normalisation_and_cut() -> None:
    texts = (
        "Mr. Smith paid twenty dollars!",
        "mister smith paid 10",
        "",
        "one cat two dogs ran by and sat on my old mat",
    )
    prompts = [Prompt("p", "Mister Smith paid $20")] * 4
    samples = to_samples([torch.full((5,), float(i)) for i in range(4)], RATE)
    reward = WERReward(WEROptions())
    reward.recognizer = Says(*texts)
    scores = reward.score(samples, prompts)
    assert scores.values.tolist() == [0.0, -0.25, -1.0, -1.0]
    assert scores.parts["rate"].tolist() == [0.0, 0.25, 1.0, 3.0]
    longer = WERReward(WEROptions(max_rate=2.0))
    longer.recognizer = Says(*texts)
    assert longer.score(samples, prompts).values.tolist() == [0.0, -0.25, -1.0, -2.0]


def test_counts() -> None:
    assert word_errors("a b c d", "a x d e") == (3, 4)
    assert character_errors("abc", "abd") == (1, 3)
    assert character_errors("abc", "") == (3, 3)


def test_characters() -> None:
    reward = CERReward(WEROptions())
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
    for options in ({"recognizer": "whisper"}, {"checkpoint": "a.pth"}):
        with pytest.raises(ValidationError, match="checkpoint"):
            WEROptions.model_validate(options)


def test_what_is_at_hand(tmp_path: Path) -> None:
    assert available(WEROptions())
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


def test_whisper_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(PluginError, match="needs the package 'transformers'") as error:
        recognizer_of(WEROptions(recognizer="whisper", checkpoint=tmp_path))
    assert "rlzoo-speech[whisper]" in error.value.hint


@pytest.fixture(scope="module")
def tiny_whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper of random weights and a vocabulary of bytes, saved by transformers."""
    transformers = pytest.importorskip("transformers", reason="the extra 'whisper' is not installed")
    folder = tmp_path_factory.mktemp("whisper")
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)] + ["\u0120"]
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(letters)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.WhisperTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), unk_token="<|endoftext|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    number = tokenizer.convert_tokens_to_ids
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_mel_bins=80,
        pad_token_id=number("<|endoftext|>"), bos_token_id=number("<|endoftext|>"),
        eos_token_id=number("<|endoftext|>"), decoder_start_token_id=number("<|startoftranscript|>"),
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.generation_config.suppress_tokens = None
    model.generation_config.begin_suppress_tokens = None
    model.generation_config.is_multilingual = False
    transformers.WhisperProcessor(transformers.WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def test_whisper_hears_rows_apart_and_long_clips_in_pieces(tiny_whisper: Path) -> None:
    recognizer = recognizer_of(WEROptions(recognizer="whisper", checkpoint=tiny_whisper))
    assert isinstance(recognizer, Whisper)
    recognizer.max_tokens = 8
    waves = [noise(RATE, 0), 0.01 * noise(RATE // 2, 1), torch.zeros(160), noise(31 * RATE, 2)]
    together = recognizer.transcribe(to_samples(waves, RATE))
    alone = [recognizer.transcribe(to_samples([wave], RATE))[0] for wave in waves]
    assert together == alone
    pieces = [recognizer.transcribe(to_samples([part], RATE))[0] for part in waves[3].split(30 * RATE)]
    assert together[3] == " ".join(piece for piece in pieces if piece).strip()
    assert any(together)


def test_a_folder_that_is_no_whisper(tiny_whisper: Path, tmp_path: Path) -> None:
    for content in (None, "{", '{"model_type": "whisper"}'):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(DataError, match="is no folder of a Whisper model"):
            Whisper(tmp_path)
