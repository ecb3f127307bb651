"""Recordings as clean states of the shipped voice: their own phones, durations and pitch, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from rlzoo_gradtts import GradTTSOptions
from rlzoo_gradtts.data import pitch_contour
from rlzoo_gradtts.phones import phone_ids
from rlzoo_gradtts.policy import SHIPPED, VOICES, GradTTSPolicy
from rlzoo_gradtts.style import summarise
from rlzoo_prompts import LJSpeechOptions
from rlzoo_prompts.prompts import LJSpeechPrompts
from torch import Tensor
from typer.testing import CliRunner

from rlzoo.api import Batch, Prompt
from rlzoo.audio import read_audio, resample, to_samples, write_audio
from rlzoo.cli import app
from rlzoo.errors import DataError
from rlzoo.speech.corpus.engines.hibari import HibariEngine
from rlzoo.speech.corpus.speak import Recipe, speak_corpus
from rlzoo.speech.corpus.speech import SpeechCorpus

TEXTS = ["Open the door.", "The rain has stopped.", "She read a letter."]


@pytest.fixture(scope="module")
def policy() -> GradTTSPolicy:
    """It speaks all of the residual, so that a state decodes to its recording."""
    return GradTTSPolicy(GradTTSOptions(temperature=1.0))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The voice's own speaker."""
    pytest.importorskip("pyworld", reason="pyworld (extra `corpus`) is not installed")
    pytest.importorskip("hibari", reason="hibari (extra `hibari`) is not installed")
    folder = tmp_path_factory.mktemp("hibari") / "corpus"
    recipe = Recipe(HibariEngine(), 16_000, validation_fraction=0, test_fraction=0)
    speak_corpus(TEXTS, folder, recipe, jobs=1, progress=False)
    for path in folder.glob("*.txt"):  # two to learn from, one held out, whatever the hashes say
        path.unlink()
    return folder


@pytest.fixture
def corpus(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "corpus"))


def supervised(policy: GradTTSPolicy, corpus: Path, rate: int = 16_000):
    prompts = LJSpeechPrompts(LJSpeechOptions(path=corpus))
    wanted = prompts.train() + prompts.heldout()
    recordings = prompts.recordings(wanted, rate)
    return wanted, recordings, *policy.supervise(wanted, recordings)


def styled_mean(policy: GradTTSPolicy, x: Tensor, cond: Batch, row: int) -> Tensor:
    """The mean spectrum (M, T) of a row's real frames in its own style."""
    size, style = int(cond.get("frames")[row]), x[row : row + 1, : policy.config.style, 0]
    own = [cond.get(name)[row : row + 1, :, :size] for name in ("features", "plain")]
    with torch.no_grad():
        return policy.network.mean_spectrum(*own, style)[0]


def test_states_are_the_recordings_and_conditioned_on_their_own_times(policy: GradTTSPolicy, corpus: Path) -> None:
    prompts, recordings, x, cond = supervised(policy, corpus)
    items, hop = {item.id: item for item in SpeechCorpus.open(corpus)}, policy.config.hop
    assert len(prompts) == 3
    assert tuple(x.shape[1:]) == policy.state_shape(cond)
    assert not x[~policy.mask(cond)].any()
    samples = policy.decode(x, cond)
    for row, prompt in enumerate(prompts):
        item, size = items[prompt.id], int(cond.get("frames")[row])
        wave = recordings.row(row)
        assert 0 <= len(wave) - size * hop < hop
        spectrum = policy.mel(wave)[:, :size]
        style, _ = policy.network.posterior(summarise(spectrum)[None])
        torch.testing.assert_close(x[row, : policy.config.style, 0], style[0])
        made = styled_mean(policy, x, cond, row) + policy.config.residual_scale * x[row, :, 1 : 1 + size]
        torch.testing.assert_close(made, spectrum, rtol=1e-5, atol=1e-5)
        # Not of `spectrum`: Griffin-Lim makes a difference of 1e-6 in a spectrum one of 5e-3 in the waveform.
        own = policy.spectra(x, cond)[row, :, :size]
        torch.testing.assert_close(own, spectrum, rtol=1e-5, atol=1e-5)
        assert torch.equal(samples.row(row), policy.mel.invert(own))
        frames = torch.tensor(item.ends).mul(80).round().diff(prepend=torch.zeros(1)).long()
        frames[-1] += size - frames.sum()
        ids = torch.tensor(phone_ids(item.phones))
        own = policy.encode(ids, frames, pitch_contour(wave, size, policy.config))
        for name in ("features", "plain"):
            torch.testing.assert_close(cond.get(name)[row, :, :size], own[name])


def test_the_voice_knows_what_its_speaker_said(policy: GradTTSPolicy, corpus: Path) -> None:
    """The mean spectrum is near the recording at its times, and not near its frames in another order."""
    _, _, x, cond = supervised(policy, corpus)
    order = torch.Generator().manual_seed(1)
    for row, size in enumerate(cond.get("frames").tolist()):
        mean = styled_mean(policy, x, cond, row)
        left = policy.config.residual_scale * x[row, :, 1 : 1 + size]
        cut_up = (mean + left)[:, torch.randperm(size, generator=order)] - mean
        assert left.square().mean() < 0.1 * cut_up.square().mean()


def test_another_rate_is_resampled(policy: GradTTSPolicy, corpus: Path) -> None:
    _, _, x, cond = supervised(policy, corpus)
    for path in (corpus / "wavs").iterdir():
        wave, _ = read_audio(path)
        write_audio(path, resample(wave, 16_000, 32_000), 32_000)
    moved = shutil.copytree(corpus, corpus.with_name("faster"))  # what is known of a folder is kept
    _, recordings, y, other = supervised(policy, Path(moved), 32_000)
    assert recordings.media.sample_rate == 32_000
    assert torch.equal(policy.lengths(cond), policy.lengths(other))
    assert (x - y)[:, :112, 1:].abs().mean() < 0.1  # the last bands lie where resampling filters end


def test_own_samples_need_no_times(policy: GradTTSPolicy) -> None:
    prompts = [Prompt("a", "Open the door."), Prompt("b", "The rain has not stopped.", {"audio": "run/samples/b.wav"})]
    cond = policy.condition(prompts)
    samples = policy.decode(0.3 * torch.randn(2, *policy.state_shape(cond)), cond)
    x, same = policy.supervise(prompts, samples)
    assert all(torch.equal(same.get(name), cond.get(name)) for name in cond.tensors)
    for row, size in enumerate(cond.get("frames").tolist()):
        spectrum = policy.mel(samples.row(row))
        style, _ = policy.network.posterior(summarise(spectrum)[None])
        torch.testing.assert_close(x[row, : policy.config.style, 0], style[0])
        made = styled_mean(policy, x, cond, row) + policy.config.residual_scale * x[row, :, 1 : 1 + size]
        torch.testing.assert_close(made, spectrum, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("change", [-200, 1, 200])
def test_own_samples_have_the_length_that_was_planned(policy: GradTTSPolicy, change: int) -> None:
    prompt = Prompt("a", "Open the door.")
    planned = (int(policy.condition([prompt]).get("frames")) - 1) * policy.config.hop
    policy.supervise([prompt], to_samples([torch.zeros(planned)], 16_000))
    wrong = to_samples([torch.zeros(planned + change)], 16_000)
    with pytest.raises(DataError, match=f"plans {planned} samples, its recording has {planned + change}"):
        policy.supervise([prompt], wrong)


def rewritten(corpus: Path, **changes) -> None:
    path = corpus / "phones.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(json.dumps({k: changes.get(k, lambda v: v)(v) for k, v in r.items()}) + "\n" for r in lines)
    )


def test_recordings_without_times_say_how_to_make_them(policy: GradTTSPolicy, corpus: Path) -> None:
    (corpus / "phones.jsonl").unlink()
    with pytest.raises(
        DataError, match=r"the voice plans \d+ samples, its recording has \d+.*does not exist"
    ) as raised:
        supervised(policy, corpus)
    assert f"rlzoo corpus align {corpus}" in str(raised.value.hint)


@pytest.mark.parametrize("factor", [0.8, 1.3])
def test_times_that_do_not_fit_are_refused(policy: GradTTSPolicy, corpus: Path, factor: float) -> None:
    rewritten(corpus, ends=lambda ends: [end * factor for end in ends])
    with pytest.raises(DataError, match=r"phone times (make|end at)"):
        supervised(policy, corpus)


def test_a_phone_that_the_voice_never_learnt_is_refused(policy: GradTTSPolicy, corpus: Path) -> None:
    assert "AO1" in policy.card["phones"]
    assert "AO" not in policy.card["phones"]
    rewritten(corpus, phones=lambda phones: ["AO" if phone == "AO1" else phone for phone in phones])
    with pytest.raises(DataError, match="has the phone 'AO', which this voice never learnt") as raised:
        supervised(policy, corpus)
    assert "rlzoo pretrain --data" in str(raised.value.hint)


def test_a_voice_that_lists_no_phones_accepts_all_of_the_table(corpus: Path, tmp_path: Path) -> None:
    state, description = VOICES.load(SHIPPED)
    del description["card"]
    VOICES.save(tmp_path / "bare.safetensors", state, description)
    policy = GradTTSPolicy(GradTTSOptions(checkpoint=tmp_path / "bare.safetensors"))
    rewritten(corpus, phones=lambda phones: ["AO" if phone == "AO1" else phone for phone in phones])
    _, _, x, _ = supervised(policy, corpus)
    assert x.isfinite().all()
    moved = Path(shutil.copytree(corpus, corpus.with_name("foreign")))
    rewritten(moved, phones=lambda phones: ["ɔ" if phone == "AO" else phone for phone in phones])
    with pytest.raises(DataError, match="'ɔ' is not an ARPAbet phone"):
        supervised(policy, moved)


def test_a_foreign_recording_of_no_corpus_is_refused(policy: GradTTSPolicy, tmp_path: Path) -> None:
    prompt = Prompt("a", "Open the door.", {"audio": str(tmp_path / "a.wav")})
    with pytest.raises(DataError, match="belongs to no corpus with phone times"):
        policy.supervise([prompt], to_samples([torch.zeros(100)], 16_000))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "option"), [("sft", "algorithm.source=recordings"), ("dlpo", "algorithm.target=data")]
)
def test_algorithms_learn_from_recordings(corpus: Path, tmp_path: Path, algorithm: str, option: str) -> None:
    command = ["run", "--algo", algorithm, "--policy", "gradtts", "--reward", "guard", "--prompts", "ljspeech"]
    sets = [option, f"prompts.path={corpus}", "rollout.prompts_per_step=2", "rollout.samples_per_prompt=2"]
    command += ["--steps", "2", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, command + [part for item in sets for part in ("--set", item)])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["policy/diffusion_loss"] for row in rows if "policy/diffusion_loss" in row]
    assert len(losses) == 2
    assert all(0 < loss < 1 for loss in losses)
