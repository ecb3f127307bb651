"""`rlzoo eval` and `rlzoo compare`: what they find, and what they say about what they are given."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import rlzoo.testing
from rlzoo import cli
from rlzoo.api import Samples
from rlzoo.audio import to_samples
from rlzoo.engine.diversity import diversity
from rlzoo.testing.toys import MEDIA

TOYS = Path(rlzoo.testing.__file__).parent / "toy_runs.py"
PLUGINS = ["--plugin", str(TOYS), "--plugin", str(Path(__file__).parent / "hackable.py")]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """`command(*arguments)` -> (exit code, standard output, standard error), in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rlzoo", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        return caught.value.code or 0, said.out, said.err

    return run


def trained(command, reward, *more):
    """A short run on the toy policy in `./r`, trained on `reward`."""
    options = ["rollout.samples_per_prompt=8", "train.learning_rate=0.05", "train.eval_every=0", "eval.prompts=8"]
    flags = [part for option in [*options, "prompts.heldout=8", *more] for part in ("--set", option)]
    toys = ["--policy", "toy-gaussian", "--prompts", "toy", "--algo", "toy-gradient", "--device", "cpu"]
    code, _, err = command("run", *PLUGINS, *toys, "--reward", reward, "--steps", 25, *flags, "--out", "r")
    assert code == 0, err


def judged(command, *arguments):
    code, out, err = command("eval", *arguments, "--json", "--device", "cpu")
    assert code == 0, err
    return json.loads(out)["targets"]


def test_a_run_on_a_reward_made_to_be_hacked_trips_the_flag(command):
    trained(command, "loud")
    (found,) = judged(command, "r", *PLUGINS, "--judges", "natural,typical", "--samples-per-prompt", 4)
    assert found["paired"]["total"]["gain"] > 0.1
    assert found["hacking"]["hacked"]
    assert found["hacking"]["judges"]["natural"]["worse"]
    assert found["kl"]["per_element"]["mean"] > 0.01
    code, out, _ = command("eval", "r", *PLUGINS, "--judges", "natural", "--device", "cpu")
    assert code == 0
    assert "WARNING, reward hacking: the training reward rose" in out


def test_an_honest_run_does_not_trip_the_flag_and_what_it_says_is_what_was_measured(command):
    trained(command, "natural")
    (found,) = judged(command, "r", *PLUGINS, "--judges", "typical", "--samples-per-prompt", 4)
    gain = found["paired"]["natural"]
    assert gain["low"] > 0
    assert gain["p"] < 0.05
    assert not found["hacking"]["hacked"]
    assert found["hacking"]["says"] == "no sign of reward hacking"
    # Pairs are of the same prompt, index and noise, in the same order; the figures follow from the rows.
    pairs = list(zip(found["rows"], found["base_rows"], strict=True))
    assert all((a["prompt"], a["index"]) == (b["prompt"], b["index"]) for a, b in pairs)
    differences = [a["scores"]["natural"] - b["scores"]["natural"] for a, b in pairs]
    assert gain["gain"] == pytest.approx(np.mean(differences), abs=1e-9)
    assert gain["wins"] + gain["ties"] + gain["losses"] == gain["prompts"] == 8
    # A policy that aims at the middle of the recordings varies less.
    assert found["diversity"]["paired"]["gain"] < 0


def test_a_policy_against_itself_differs_in_nothing(command):
    trained(command, "natural", "train.learning_rate=1e-9")
    (found,) = judged(command, "r", *PLUGINS, "--base", "r", "--judges", "loud", "--prompts", "train", "--count", 3)
    assert {row["prompt"] for row in found["rows"]} == {"toy-000", "toy-001", "toy-002"}
    assert found["rows"] == found["base_rows"]
    assert found["paired"]["loud"]["p"] == 1.0
    assert found["kl"]["nats"]["mean"] == pytest.approx(0, abs=1e-6)
    assert not found["hacking"]["hacked"]


def test_a_run_whose_starting_weights_have_changed_is_not_compared_with_them(command, tmp_path):
    trained(command, "natural", "train.steps=1")
    config = tmp_path / "r/config.json"
    values = json.loads(config.read_text())
    values["policy"]["seed"] = 1
    config.write_text(json.dumps(values))
    code, _, err = command("eval", "r", *PLUGINS, "--judges", "loud", "--device", "cpu", "--trust")
    assert code == 4
    assert "started from have changed since" in err
    assert "name a --base" in err
    assert (
        judged(command, "r", *PLUGINS, "--base", "r", "--judges", "loud", "--trust")[0]["paired"]["loud"]["gain"] == 0
    )


def test_diversity_is_the_distance_between_samples():
    data = torch.tensor([[1.0, 2.0, 0.0], [4.0, 6.0, 9.0]])
    assert diversity(Samples(data, torch.tensor([2, 3]), MEDIA)) == pytest.approx((12.5) ** 0.5)
    noise = torch.randn(4_000, generator=torch.Generator().manual_seed(0)) * 0.1
    assert diversity(to_samples([noise, noise], 8_000)) == 0
    assert diversity(to_samples([noise, noise / 10], 8_000)) == pytest.approx(20, abs=0.1)  # dB
    assert diversity(to_samples([noise[:10], noise[:80]], 8_000)) > 0


# --- recordings


def sine(folder, name="a.wav", *, rate=16_000, seconds=1.0, gain=0.2, channels=1):
    folder.mkdir(exist_ok=True)
    wave = gain * np.sin(np.arange(round(rate * seconds)) * 2 * np.pi * 300 / rate)
    soundfile.write(folder / name, np.stack([wave] * channels, 1), rate, subtype="FLOAT")
    return folder / name


def test_folders_are_compared_by_file_name(command, tmp_path):
    for name in ("a.wav", "b.wav", "c.wav"):
        sine(tmp_path / "quiet", name)
        sine(tmp_path / "loud", name, gain=3.0)
    sine(tmp_path / "quiet", "only-here.wav")
    (found,) = judged(command, "loud", "--base", "quiet", "--judges", "guard")
    assert found["paired"]["guard"]["prompts"] == 3
    assert found["paired"]["guard"]["gain"] < 0, "clipping"
    assert (found["hacking"], found["kl"], found["diversity"]) == (None, None, None)
    (alone,) = judged(command, "quiet", "--judges", "guard")
    assert (alone["samples"], alone["paired"], alone["sample_rate"]) == (4, None, 16_000)


def test_known_scores_are_looked_up_and_the_same(command, tmp_path):
    for index in range(4):
        sine(tmp_path / "d", f"{index}.wav", gain=0.1 * (index + 1))
    first, second = (judged(command, "d", "--judges", "guard")[0] for _ in range(2))
    assert (first["cache"], second["cache"]) == ({"hits": 0, "rows": 4}, {"hits": 4, "rows": 4})
    (computed,) = judged(command, "d", "--judges", "guard", "--no-cache")
    assert computed["cache"] == {"hits": 0, "rows": 0}
    assert first["rows"] == second["rows"] == computed["rows"]


@pytest.mark.parametrize(("rate", "seconds"), [(8_000, 1.0), (48_000, 1.0), (16_000, 0.01), (16_000, 60.0)])
def test_any_rate_and_length_has_a_score(rate, seconds, command, tmp_path):
    sine(tmp_path / "d", rate=rate, seconds=seconds)
    (found,) = judged(command, "d/a.wav", "--judges", "guard")
    assert np.isfinite(found["scores"]["guard"]["mean"])
    assert found["sample_rate"] == rate


def test_a_folder_with_several_rates_is_judged_at_what_the_judge_wants_and_that_is_said(command, tmp_path):
    sine(tmp_path / "d", rate=22_050)
    sine(tmp_path / "d", "b.wav", rate=24_000)
    (found,) = judged(command, "d", "--judges", "guard")
    assert found["samples"] == 2
    assert "22050 Hz and 24000 Hz" in found["notes"][0]


@pytest.mark.parametrize(("rate", "seconds", "gain"), [(8_000, 0.5, 0.2), (48_000, 0.01, 0.2), (16_000, 0.5, 0.0)])
def test_silence_clicks_and_other_rates_are_judged_together(rate, seconds, gain, command, tmp_path):
    """By what needs no weights; with weights: tests/plugins/test_extremes.py."""
    pytest.importorskip("pocketsphinx", reason="the extra 'wer' is not installed")
    sine(tmp_path / "d", rate=rate, seconds=seconds, gain=gain)
    (tmp_path / "d/metadata.csv").write_text("a|Some words.")
    (found,) = judged(command, "d", "--judges", "guard,dnsmos,wer,cer")
    assert all(np.isfinite(found["scores"][name]["mean"]) for name in ("guard", "dnsmos"))
    assert judged(command, "d/a.wav", "--judges", "guard")[0]["rows"][0]["text"] == "Some words."
    assert found["scores"]["wer"]["mean"] == -1
    assert -1 <= found["scores"]["cer"]["mean"] < -0.7  # a recogniser hears some letter in anything


GUARD = ["--judges", "guard"]
MISTAKES = {
    "missing": (["eval", "none", *GUARD], 4, "'none' does not exist", "check the path"),
    "missing wav": (["eval", "none.wav", *GUARD], 4, "'none.wav'", "folder of recordings"),
    "no wav": (["eval", "bare", *GUARD], 4, "'bare' holds no recording", "check the path"),
    "text": (["eval", "text.wav", *GUARD], 4, "text.wav' cannot be read as audio", "give a WAV or FLAC file"),
    "empty file": (["eval", "empty.wav", *GUARD], 4, "empty.wav' cannot be read as audio", "give a WAV"),
    "no samples": (["eval", "none-inside.wav", *GUARD], 4, "has no samples", "record it again"),
    "nan": (["eval", "nan.wav", *GUARD], 4, "NaN or infinite in", "what wrote it"),
    "stereo": (["eval", "stereo.wav", *GUARD], 4, "has 2 channels, expected one", "mix it down"),
    "another rate than the base": (["eval", "at8", "--base", "at16", *GUARD], 4, "has a rate of 8000 Hz", "resample"),
    "other names than the base": (["eval", "at8", "--base", "mixed", *GUARD], 4, "no file name in common", "same"),
    "out nowhere": (["eval", "at16", *GUARD, "--out", "no/e.json"], 4, "'no' is not a directory", "another --out"),
    "no judge": (["eval", "at16"], 2, "no judge is named", "--judges NAME"),
    "unknown judge": (["eval", "at16", "--judges", "gaurd"], 2, "unknown reward 'gaurd'", "did you mean 'guard'"),
    "judge of something else": (["eval", "at16", *PLUGINS, "--judges", "loud"], 2, "judges vector", "name a reward"),
    "option of no judge": (["eval", "at16", *GUARD, "--set", "judges.wer.x=1"], 2, "does not judge here", "--judges"),
    "foreign table": (["eval", "at16", *GUARD, "--set", "train.steps=1"], 2, "no such table", "policy, prompts"),
    "unknown split": (["eval", "--policy", "toy-gaussian", *PLUGINS, "--judges", "loud", "--prompts", "toy:dev"],
                      2, "unknown split 'dev'", "heldout, train"),
    "recordings against a policy": (["eval", "at16", "--base", "text.ckpt", *GUARD], 2, "cannot be compared", "runs"),
    "weights that are text": (["eval", "text.ckpt", *GUARD], 4, "is not a complete safetensors file", ""),
    "compare nothing": (["compare", "none", "at16"], 4, "'none'", ""),
    "compare folders": (["compare", "at16", "at8"], 4, "'at16' is not a run directory", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_with_a_hint_and_leaves_nothing(name, command, tmp_path):
    sine(tmp_path / "at16")
    sine(tmp_path / "at8", rate=8_000)
    sine(tmp_path / "mixed", "b.wav")
    sine(tmp_path / "mixed", "c.wav", rate=8_000)
    sine(tmp_path, "stereo.wav", channels=2)
    soundfile.write(tmp_path / "nan.wav", np.full(100, np.nan), 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "none-inside.wav", np.zeros(0), 16_000)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "notes.txt").write_text("no audio")
    (tmp_path / "text.wav").write_text("this is text")
    (tmp_path / "text.ckpt").write_text("this is text")
    (tmp_path / "empty.wav").touch()
    before = sorted(tmp_path.rglob("*"))
    arguments, code, message, hint = MISTAKES[name]
    found, _, err = command(*arguments)
    assert "Traceback" not in err
    lines = err.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("error: "))
    assert message in lines[at]
    assert hint in "\n".join(lines[at + 1 :])
    assert found == code
    assert sorted(tmp_path.rglob("*")) == before
