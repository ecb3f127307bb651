"""Error rates: counting, cutting, independence of rows, both recognisers, bad input."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from rlzoo.api import Prompt
from rlzoo.audio import read_audio, to_samples
from rlzoo.errors import ConfigError, DataError

pytest.importorskip("pocketsphinx", reason="the extra 'wer' is not installed")
pytest.importorskip("jiwer", reason="the extra 'wer' is not installed")
pytest.importorskip("whisper_normalizer", reason="the extra 'wer' is not installed")

from rlzoo_wer import WEROptions
from rlzoo_wer.recognizers import PocketSphinx, Wav2Vec2
from rlzoo_wer.reward import CERReward, WERReward, character_errors, word_errors

RATE = 16_000
CLIPS = Path(__file__).parents[2] / "../shared/data/ljspeech/wavs"


class Says:
    """A recogniser that hears what it is told, clip by clip (told by the first sample)."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def to(self, device: torch.device | str) -> None:
        pass

    def transcribe(self, wave: Tensor) -> str:
        return self.texts[round(wave[0].item())]


@pytest.fixture(scope="module")
def wer() -> WERReward:
    return WERReward(WEROptions())


def test_rates_are_counted_after_normalisation_and_cut() -> None:
    texts = ("Mr. Smith paid twenty dollars!", "mister smith paid 10", "", "a b c d e f g h i j k l")
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
    state: list[str] = [PocketSphinx().transcribe(wave) for _ in range(2)]
    assert state[0] == state[1]
    assert "surpassed" in state[0]


def test_a_prompt_without_words_and_the_wrong_rate_are_refused(wer: WERReward) -> None:
    with pytest.raises(ConfigError, match=r"prompt 'p' has no words"):
        wer.score(to_samples([torch.zeros(9)], RATE), [Prompt("p", " -- ")])
    with pytest.raises(DataError, match="needs audio at 16000 Hz"):
        wer.score(to_samples([torch.zeros(9)], 8_000), [Prompt("p", "a")])


def test_options_that_contradict_each_other() -> None:
    for options in ({"recognizer": "wav2vec2"}, {"checkpoint": "a.pth"}):
        with pytest.raises(ValidationError, match="goes with recognizer"):
            WEROptions.model_validate(options)


def test_wav2vec2_reads_the_published_layout(tmp_path: Path) -> None:
    """Random weights with the file's 32 labels; the recogniser must hear label by label what the network says."""
    from torchaudio.models import wav2vec2_base

    torch.manual_seed(0)
    network = wav2vec2_base(aux_num_out=32).eval()
    path = tmp_path / "wav2vec2.pth"
    torch.save(network.state_dict(), path)
    recognizer = Wav2Vec2(path)
    wave = noise(8_000, 0)
    with torch.no_grad():
        logits = network(wave[None])[0][0]
    logits = torch.cat([logits[:, :1], logits[:, 4:]], 1)
    assert torch.allclose(recognizer.network(wave[None])[0][0], logits, atol=1e-5)
    best = [index for index in torch.unique_consecutive(logits.argmax(-1)).tolist() if index]
    assert recognizer.labels[:4] == ("-", "|", "E", "T")
    assert recognizer.transcribe(wave) == "".join(recognizer.labels[i] for i in best).replace("|", " ").strip()
    assert isinstance(recognizer.transcribe(torch.zeros(10)), str)


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_text("hello")
    for name in ("a.pth", "b.pth", "absent.pth"):
        with pytest.raises(DataError, match="is not a wav2vec 2"):
            Wav2Vec2(tmp_path / name)
