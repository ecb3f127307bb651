"""The guard lets speech pass and names what is wrong with everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from rlzoo_guard import GuardOptions
from rlzoo_guard.reward import GuardReward
from torch import Tensor

from rlzoo.api import Prompt, Samples, Scores
from rlzoo.audio import read_audio, to_samples
from rlzoo.errors import DataError

RATE = 16_000
CLIPS = Path(__file__).parents[2] / "../shared/data/ljspeech"
TEXT = "a sentence of about thirty letters."


def speechlike(seconds: float = 2.0) -> Tensor:
    """A buzz in syllables with a little breath: what speech looks like to these checks."""
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(int(seconds * RATE)) / RATE
    buzz = torch.stack([torch.sin(2 * torch.pi * 120 * k * t) / k for k in range(1, 30)]).sum(0)
    syllables = (torch.sin(2 * torch.pi * 2 * t) > -0.5).float()
    return 0.08 * syllables * buzz + 0.0002 * torch.randn(len(t), generator=generator)


def score(*waves: Tensor, text: str = TEXT, options: GuardOptions | None = None) -> Scores:
    reward = GuardReward(options or GuardOptions())
    return reward.score(to_samples(list(waves), RATE), [Prompt("p", text)] * len(waves))


def test_speech_passes() -> None:
    assert score(speechlike()).values.tolist() == [0.0]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("clipped", lambda wave: (20 * wave).clamp(-1, 1)),
        ("dc", lambda wave: wave + 0.1),
        ("silence", lambda wave: torch.cat([wave, torch.zeros(6 * len(wave))])),
        ("level", lambda wave: 0.002 * wave),
        ("level", lambda wave: (5 * wave).clamp(-0.99, 0.99)),
        ("bandwidth", lambda wave: 0.1 * torch.sin(2 * torch.pi * 100 * torch.arange(len(wave)) / RATE)),
        ("bandwidth", lambda wave: 0.1 * torch.randn(len(wave), generator=torch.Generator().manual_seed(1))),
        ("pace", lambda wave: wave[: RATE // 4]),
        ("pace", lambda wave: wave.repeat(8)),
    ],
)
def test_what_is_wrong_is_named(name: str, change: object) -> None:
    assert callable(change)
    found = score(change(speechlike()))
    assert found.values.item() < 0
    assert found.parts[f"penalty_{name}"].item() > 0


def test_the_score_is_minus_the_sum_of_the_penalties_and_worse_is_worse() -> None:
    wave = speechlike()
    found = score(wave + 0.03, wave + 0.06, wave + 0.5, torch.zeros(RATE))
    penalties = torch.stack([value for name, value in found.parts.items() if name.startswith("penalty_")])
    assert torch.allclose(found.values, -penalties.sum(0))
    assert found.values[0] > found.values[1] > found.values[2] >= -6
    assert found.parts["silence"][3].item() == 1.0


def test_measurements_and_penalties_are_these_numbers() -> None:
    """By hand, with limits that each sound breaks: what was measured less the limit, over the limit's own scale."""
    second = torch.arange(RATE) / RATE
    tone = 0.1 * torch.sin(2 * torch.pi * 1000 * second)  # active at -23.01 dBFS, everything below 1016 Hz
    options = GuardOptions(
        max_clipped=0.01, max_dc=0.02, max_silence=0.25, min_level_dbfs=-20, max_level_dbfs=-10,
        min_bandwidth_hz=2000, max_bandwidth=0.5, min_seconds_per_letter=0.04, max_seconds_per_letter=0.05,
    )  # fmt: skip
    half = torch.cat([tone[: RATE // 2], torch.zeros(RATE // 2)])
    loud = torch.where(torch.arange(RATE) < RATE // 50, torch.ones(RATE), 0.5 * torch.sin(2 * torch.pi * 6000 * second))
    found = score(tone, tone + 0.05, half, loud, text="twenty letters heres", options=options)

    def penalty(name: str) -> list[float]:
        return found.parts[f"penalty_{name}"].tolist()

    assert found.parts["dc"].tolist()[:3] == pytest.approx([0, 0.05, 0], abs=1e-5)
    assert penalty("dc")[:3] == pytest.approx([0, (0.05 - 0.02) / 0.1, 0], abs=1e-4)
    assert found.parts["silence"].tolist() == pytest.approx([0, 0, 0.5, 0])
    assert penalty("silence") == pytest.approx([0, 0, (0.5 - 0.25) / 0.5, 0])
    assert found.parts["level_dbfs"][0].item() == pytest.approx(-23.01, abs=0.02)
    assert penalty("level")[0] == pytest.approx((23.01 - 20) / 20, abs=2e-3)
    assert found.parts["clipped"].tolist() == pytest.approx([0, 0, 0, 0.02])
    assert penalty("clipped") == pytest.approx([0, 0, 0, (0.02 - 0.01) / 0.05])
    assert found.parts["bandwidth_hz"][0].item() == pytest.approx(1000, abs=16)
    assert penalty("bandwidth")[0] == pytest.approx((2000 - 1000) / 2000, abs=0.01)
    assert penalty("bandwidth")[3] == pytest.approx((6000 - 4000) / 4001, abs=0.02)
    letters = sum(letter.isalnum() for letter in "twenty letters heres")
    assert found.parts["seconds_per_letter"].tolist() == pytest.approx([1 / letters] * 4)
    assert penalty("pace") == pytest.approx([(1 / letters - 0.05) / 0.05] * 4)
    short = score(tone[: RATE // 2], text="twenty letters heres", options=options)
    assert short.parts["penalty_pace"].item() == pytest.approx((0.04 - 0.5 / letters) / 0.04)


@pytest.mark.parametrize(("below", "share"), [(35, 0.0), (45, 0.5)])
def test_silence_is_what_lies_40_db_below_the_speech(below: float, share: float) -> None:
    tone = 0.1 * torch.sin(2 * torch.pi * 1000 * torch.arange(RATE // 2) / RATE)
    found = score(torch.cat([tone, 10 ** (-below / 20) * tone]))
    assert found.parts["silence"].item() == pytest.approx(share)


def test_a_row_does_not_depend_on_its_batch() -> None:
    waves = [speechlike(), speechlike(0.3), speechlike(0.01), torch.zeros(500)]
    batch = to_samples(waves, RATE)
    padded = Samples(torch.nn.functional.pad(batch.data, (0, 777)), batch.lengths, batch.media)
    together = GuardReward(GuardOptions()).score(padded, [Prompt("p", TEXT)] * 4)
    for row, wave in enumerate(waves):
        alone = score(wave)
        for name, value in alone.parts.items():
            assert together.parts[name][row].item() == pytest.approx(value.item(), abs=1e-5), name


def test_a_prompt_without_text_has_no_pace() -> None:
    assert score(speechlike(0.2), text="").parts["penalty_pace"].item() == 0


def test_limits_are_options_and_must_be_ordered() -> None:
    strict = score(speechlike(), options=GuardOptions(max_silence=0.0))
    assert strict.parts["penalty_silence"].item() > 0
    with pytest.raises(ValidationError, match="must be below"):
        GuardOptions(min_level_dbfs=-5)
    with pytest.raises(DataError, match="without a rate"):
        GuardReward(GuardOptions()).score(Samples(torch.zeros(1, 5), torch.tensor([5]), _no_rate()), [Prompt("p")])


def _no_rate() -> object:
    from rlzoo.api import Media

    return Media("audio")


def test_recordings_pass() -> None:
    if not CLIPS.is_dir():
        pytest.skip("the LJSpeech clips of ../shared are not here")
    rows = [line.split("|") for line in (CLIPS / "metadata.csv").read_text(encoding="utf-8").splitlines()]
    waves = [read_audio(CLIPS / "wavs" / f"{row[0]}.wav")[0] for row in rows]
    prompts = [Prompt(row[0], row[-1]) for row in rows]
    found = GuardReward(GuardOptions()).score(to_samples(waves, 22_050), prompts)
    assert len(waves) == 24
    assert not found.values.any(), {name: value.tolist() for name, value in found.parts.items()}
