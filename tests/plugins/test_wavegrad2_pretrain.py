"""Pretraining on a corpus of two tones: it learns, resumes exactly, and leaves a voice that can be used."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from pydantic import ValidationError
from rlzoo_wavegrad2 import PretrainOptions, WaveGrad2Options
from rlzoo_wavegrad2.checkpoint import VOICES
from rlzoo_wavegrad2.data import LogMel, Recordings, Utterance, draw_starts, mel_cepstral_distance, windows
from rlzoo_wavegrad2.losses import Losses, stft_distance
from rlzoo_wavegrad2.network import PRESETS, WaveGrad2Network
from rlzoo_wavegrad2.policy import WaveGrad2Policy
from rlzoo_wavegrad2.pretrain import SpeechTask, for_device, pretrain, with_mel_steps
from rlzoo_wavegrad2.schedules import named_levels, placed_levels, to_schedule
from rlzoo_wavegrad2.tune import KNOTS, bumps, search, trials, tune_schedule
from tiny_wavegrad2 import TINY, make_tones
from torch import Tensor
from typer.testing import CliRunner

from rlzoo.api import Batch
from rlzoo.audio import read_audio, resample, write_audio
from rlzoo.cli import app
from rlzoo.errors import ConfigError, DataError
from rlzoo.speech.corpus.align import align_corpus
from rlzoo.speech.corpus.engines.flite import FliteEngine
from rlzoo.speech.corpus.textgrids import write_textgrid

FAST = {
    "text_style": "cmu",
    "preset": "tiny",
    "utterances_per_step": 2,
    "windows_per_utterance": 2,
    "window_frames": 12,
    "warmup_steps": 5,
    "learning_rate": 3e-3,
    "precision": "fp32",
    "log_every": 1,
    "mel_steps": 0,
    "validation_utterances": 1,
    "validation_steps": (2,),
}


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", TINY)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = {"train": range(6), "validation": [6], "test": [7]}
    return make_tones(tmp_path_factory.mktemp("corpus"), splits)


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def test_every_loss_falls_and_the_voice_loads(corpus: Path, tmp_path: Path) -> None:
    voice = pretrain(corpus, tmp_path / "run", PretrainOptions(**FAST, steps=40))
    logged = [row for row in rows(tmp_path / "run") if "noise" in row]
    for name, share in (("noise", 0.8), ("spectral", 0.97)):
        first, last = (sum(row[name] for row in part) / 5 for part in (logged[:5], logged[-5:]))
        assert last < share * first, name
    _, description = VOICES.load(voice)
    assert description["card"]["step"] == 40
    assert list(description["card"]["phones"]) == ["AA1", "IY1"]
    assert sorted(path.name for path in (tmp_path / "run/validation/0000040").iterdir()) == [
        "u6-2.wav",
        "u6-recordings.wav",
    ]


def test_the_first_steps_train_all_but_the_denoiser(corpus: Path, tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []
    task = SpeechTask(corpus, PretrainOptions(**{**FAST, "mel_steps": 2}), torch.device("cpu"))
    generator, noise = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    for _ in range(3):
        task.network.zero_grad()
        total, parts = task.losses(generator, noise)
        total.backward()
        seen.append(parts)
        touched = {name.split(".")[0] for name, p in task.network.named_parameters() if p.grad is not None}
        assert {"encoder", "resampling"} <= touched
        assert ("decoder" in touched) == ("noise" in parts) == (len(seen) == 3)
    before = seen[0]["spectral"].item()
    optimizer = torch.optim.Adam(task.trained.parameters(), 3e-3)
    task.trained.made.zero_()
    task.trained.options = task.options.model_copy(update={"mel_steps": 1000})
    for _ in range(60):
        optimizer.zero_grad()
        total, parts = task.losses(generator, noise)
        total.backward()
        optimizer.step()
    assert parts["spectral"].item() < 0.4 * before  # a sine is told from another by the phones alone


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 2000),
        ({"steps": 10}, 2),
        ({"minutes": 5}, 100),
        ({"mel_steps": 7}, 7),
        ({"spectral_weight": 0}, 0),
        ({"init": "v"}, 0),
        ({"init": "v", "mel_steps": 7}, 7),
    ],
)
def test_steps_without_the_denoiser(options: dict[str, Any], steps: int) -> None:
    assert with_mel_steps(PretrainOptions(**options)).mel_steps == steps
    with pytest.raises(ConfigError, match="no step would train the denoiser"):
        with_mel_steps(PretrainOptions(steps=10, mel_steps=10))


def test_the_mel_decoder_is_no_part_of_the_voice(corpus: Path, tmp_path: Path) -> None:
    voice = pretrain(corpus, tmp_path / "run", PretrainOptions(**{**FAST, "mel_steps": 1}, steps=2))
    assert VOICES.load(voice)[0].keys() == WaveGrad2Network(TINY).state_dict().keys()


def test_killed_and_resumed_is_bit_identical(corpus: Path, tmp_path: Path) -> None:
    options = PretrainOptions(**{**FAST, "mel_steps": 2}, steps=6, save_every=4)

    class Killed(Exception):
        pass

    def kill(row: dict[str, float]) -> None:
        if row["step"] == 5:
            raise Killed

    pretrain(corpus, tmp_path / "whole", options)
    with pytest.raises(Killed):
        pretrain(corpus, tmp_path / "cut", options, on_step=kill)
    pretrain(corpus, tmp_path / "cut", options, resume=True)
    whole, cut = (torch.load(tmp_path / name / "train.pt", weights_only=True) for name in ("whole", "cut"))
    for name, value in whole["losses"].items():
        assert torch.equal(value, cut["losses"][name]), name
    for name, value in whole["average"].items():
        assert torch.equal(value, cut["average"][name]), name
    timeless = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in rows(tmp_path / n)] for n in ("whole", "cut")
    ]
    assert timeless[0] == timeless[1]


def test_unknown_presets_are_named(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown preset 'huge'"):
        pretrain(corpus, tmp_path / "run", PretrainOptions(**FAST | {"preset": "huge"}, steps=1))
    assert not (tmp_path / "run").exists()


def test_a_bad_recording_is_refused_before_anything_is_made(corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "corpus")
    wav = sorted((tmp_path / "corpus/wavs").iterdir())[0]
    audio, rate = soundfile.read(wav, dtype="float32")
    audio[7] = np.nan
    soundfile.write(wav, audio, rate, subtype="FLOAT")
    with pytest.raises(DataError, match=rf"{wav.name}' is NaN or infinite in 1 of"):
        pretrain(tmp_path / "corpus", tmp_path / "run", PretrainOptions(**FAST, steps=1))
    assert not (tmp_path / "run").exists()


def recordings(hop: int, sizes: list[int]) -> Recordings:
    """Utterance i of sizes[i] frames: sample n is 100 i + n, one phone a frame with id i."""
    return Recordings(
        [
            Utterance(
                f"u{i}", "", torch.full((n,), i), torch.ones(n, dtype=torch.long), 100.0 * i + torch.arange(n * hop)
            )
            for i, n in enumerate(sizes)
        ],
        hop,
        torch.device("cpu"),
    )


def test_a_batch_holds_the_utterances_that_were_drawn_and_zeros_behind_them() -> None:
    hop = 4
    batch = recordings(hop, [3, 9, 5]).batch(torch.tensor([2, 0]))
    assert batch.totals.tolist() == batch.phones.tolist() == [5, 3]
    assert batch.ids.tolist() == [[2] * 5, [0] * 5]
    assert batch.frames.tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert torch.equal(batch.waves[0], 200 + torch.arange(5.0 * hop))
    assert torch.equal(batch.waves[1], torch.cat([torch.arange(3.0 * hop), torch.zeros(2 * hop)]))


def test_windows_take_the_same_place_in_frames_and_audio() -> None:
    hop, sizes = 4, [9, 2]
    batch = recordings(hop, sizes).batch(torch.tensor([0, 1]))
    hidden = torch.arange(9.0).expand(2, 3, -1) + torch.tensor([0.0, 25.0])[:, None, None]  # = first sample / hop
    starts = draw_starts(torch.tensor(sizes), 3, 5, torch.Generator().manual_seed(0))
    assert starts[0].max() <= 6
    assert not starts[1].any()
    cut_hidden, cut_wave = windows(batch, hidden, starts, 3)
    assert cut_hidden.shape == (10, 3, 3)
    for h, w in zip(cut_hidden[:5], cut_wave[:5], strict=True):
        assert torch.equal(w.view(3, hop)[:, 0], h[0] * hop)
        assert (h.diff(dim=1) == 1).all()
    for h, w in zip(cut_hidden[5:], cut_wave[5:], strict=True):
        assert h[0].tolist() == [25, 26, 0]
        assert w.tolist() == [*range(100, 108), 0, 0, 0, 0]


def test_windows_stand_everywhere_they_fit() -> None:
    starts = draw_starts(torch.tensor([10]), 4, 2000, torch.Generator().manual_seed(0))
    counts = torch.bincount(starts[0], minlength=7)
    assert len(counts) == 7
    assert counts.min() > 200  # 286 expected, standard deviation 16


def test_mel_cepstral_distance_is_the_rms_level_difference_without_loudness() -> None:
    # A ripple along the bands of amplitude A nepers is A / sqrt(2) rms; a common gain is c_0, which is left out.
    band = torch.arange(40) + 0.5
    ripple = 0.3 * torch.cos(math.pi / 40 * 3 * band)[:, None].expand(40, 7)
    distance = mel_cepstral_distance(ripple + 2.0, torch.zeros(40, 7))
    assert float(distance) == pytest.approx(20 / math.log(10) * 0.3 / math.sqrt(2), rel=1e-5)


def test_log_mel_has_a_column_per_frame_and_peaks_at_the_tone() -> None:
    mel = LogMel(PRESETS["mini"])
    wave = torch.sin(2 * math.pi * 1000 * torch.arange(8000) / 8000)[None]
    spectrum = mel(wave)
    assert spectrum.shape == (1, 40, 100)
    band = int(spectrum[0, :, 50].argmax())
    centre = int(mel.banks[:, band].argmax()) * 8000 / mel.fft
    assert centre == pytest.approx(1000, abs=120)


def test_search_finds_levels_that_the_grid_does_not_hold() -> None:
    wanted = torch.tensor([1.0, 0.97, 0.6, 0.3, placed_levels(4)[-1].item()], dtype=torch.float64)

    def distance(levels: torch.Tensor) -> float:
        return float((torch.logit(levels[1:] ** 2) - torch.logit(wanted[1:] ** 2)).abs().sum())

    tuned = search(distance, 4, rounds=4)
    assert tuned.distance < 0.5 * tuned.untuned
    assert all(a > b for a, b in zip(tuned.levels, tuned.levels[1:], strict=False))


def test_many_steps_are_bent_at_knots_and_cost_no_more_trials() -> None:
    asked = 0

    def distance(levels: torch.Tensor) -> float:
        nonlocal asked
        asked += 1
        assert bool((levels.diff() < 0).all())
        assert float(levels[-1]) == pytest.approx(float(placed_levels(25)[-1]))
        return float((torch.logit(levels[1:] ** 2) - torch.logit(placed_levels(25)[1:] ** 2) - 0.5)[1:-1].abs().sum())

    tuned = search(distance, 25)
    assert asked <= trials(25, 2) == 25 + 4 * KNOTS
    assert tuned.distance < 0.5 * tuned.untuned
    assert torch.equal(bumps(4)[:, 1:4], torch.eye(3, dtype=torch.float64))
    assert bumps(25).sum(0)[1:-1].tolist() == pytest.approx([1] * 24)


def test_tuned_schedules_are_kept_with_the_voice(corpus: Path, tmp_path: Path) -> None:
    voice = pretrain(corpus, tmp_path / "run", PretrainOptions(**FAST, steps=2))
    before, seen = voice.read_bytes(), []
    copy = tmp_path / "tuned.safetensors"
    (tuned,) = tune_schedule(voice, corpus, [2], out=copy, utterances=1, on_trial=lambda *trial: seen.append(trial))
    assert tuned.distance <= tuned.untuned
    assert seen[-1][0] == 2
    assert seen[-1][1] <= seen[-1][2] == trials(2, 2)
    assert seen[-1][3] == tuned.distance
    assert VOICES.load(copy)[1]["schedules"] == {"2": list(tuned.levels)}
    assert voice.read_bytes() == before
    tune_schedule(voice, corpus, [2], utterances=1)
    assert VOICES.load(voice)[1]["schedules"] == {"2": list(tuned.levels)}
    with pytest.raises(DataError, match="1 validation recordings, not 2"):
        tune_schedule(voice, corpus, [2], utterances=2)


def test_the_command_tunes_a_voice_and_says_what_it_brought(corpus: Path, tmp_path: Path) -> None:
    voice = pretrain(corpus, tmp_path / "run", PretrainOptions(**FAST, steps=1))
    arguments = ["tune-schedule", "--checkpoint", voice, "--data", corpus, "--steps", 3, "--steps", 2]
    done = CliRunner().invoke(app, [*map(str, arguments), "--utterances", "1"], catch_exceptions=False)
    assert done.exit_code == 0
    assert list(VOICES.load(voice)[1]["schedules"]) == ["3", "2"]
    assert f"stored in {voice}" in done.output
    assert "log-mel distance, placed" in done.output


def test_asking_for_a_tuned_schedule_that_is_not_there_is_refused() -> None:
    assert named_levels("tuned", 2, {"2": [0.9, 0.1]}).tolist() == [1.0, 0.9, 0.1]
    with pytest.raises(ConfigError, match="no schedule was tuned for 3 steps") as caught:
        named_levels("tuned", 3, {"2": [0.9, 0.1]})
    assert "this voice has 2" in caught.value.hint


def test_fine_tuning_starts_from_the_weights_of_a_voice(corpus: Path, tmp_path: Path) -> None:
    voice = pretrain(corpus, tmp_path / "run", PretrainOptions(**FAST, steps=3))
    options = {key: value for key, value in FAST.items() if key != "preset"} | {"learning_rate": 1e-9, "init": voice}
    tuned = pretrain(corpus, tmp_path / "more", PretrainOptions(**options, steps=1))
    before, after = VOICES.load(voice), VOICES.load(tuned)
    for name, value in before[0].items():
        if "running_" not in name and "num_batches" not in name:
            torch.testing.assert_close(after[0][name], value, rtol=0, atol=1e-6)
    assert (after[1]["text"], after[1]["init"], after[1]["network"]) == ("cmu", voice.name, before[1]["network"])
    assert after[1]["card"]["options"]["init"] == voice.name  # and no folder of whoever made it
    with pytest.raises(ConfigError, match="preset and init"):
        pretrain(corpus, tmp_path / "both", PretrainOptions(**FAST, init=voice))


def test_a_rollout_in_training_is_the_policys(tmp_path: Path) -> None:
    levels = [0.9, 0.6, 0.3]
    torch.manual_seed(0)
    network = WaveGrad2Network(TINY).eval()
    VOICES.save(tmp_path / "v.safetensors", network.state_dict(), {"network": TINY.model_dump(), "text": "flite"})
    policy = WaveGrad2Policy(WaveGrad2Options(checkpoint=tmp_path / "v.safetensors"))
    noise, hidden = torch.randn(3, 2, 960), torch.randn(2, TINY.hidden_channels, 12)
    condition = Batch({"hidden": hidden, "frames": torch.tensor([12, 12])})
    schedule = to_schedule(torch.tensor([1.0, *levels], dtype=torch.float64))
    x, estimates = noise[0], []
    with torch.no_grad():
        for k in range(3):
            sigma = schedule.times[k].float().expand(2)
            estimates.append(policy.clean(x, policy(x, sigma, condition), sigma))
            x = policy.transition(x, torch.full((2,), k), condition, schedule).rsample(noise[min(k + 1, 2)])
    losses = Losses(network, PretrainOptions(**FAST | {"rollout_levels": levels}))
    wanted = sum(stft_distance(estimate, estimates[2], losses.resolutions) for estimate in estimates[:2]) / 3
    assert wanted > 0.1
    torch.testing.assert_close(losses.rollout(hidden, estimates[2], noise), wanted, rtol=1e-3, atol=1e-4)


def test_rows_count_by_their_weight_in_the_distance_of_spectra() -> None:
    one, other = torch.randn(3, 960), torch.randn(3, 960)
    whole = stft_distance(one, other, [64, 128])
    torch.testing.assert_close(stft_distance(one, other, [64, 128], torch.ones(3)), whole)
    # Alone, a row's spectral convergence does not depend on its weight, and its logarithms count for one row in three.
    window = torch.hann_window(64)
    spectra = [torch.stft(wave[1:2], 64, 16, window=window, return_complex=True).abs() for wave in (one, other)]
    convergence = (spectra[0] - spectra[1]).norm() / spectra[1].norm()
    logs = (spectra[0].clamp(min=0.01).log() - spectra[1].clamp(min=0.01).log()).abs().mean()
    some = stft_distance(one, other, [64], torch.tensor([0.0, 2.0, 0.0]))
    torch.testing.assert_close(some, convergence + 2 / 3 * logs)


def test_the_distance_of_the_clean_estimate_at_the_level_of_the_noise_loss(corpus: Path) -> None:
    options = PretrainOptions(**FAST, estimate_weight=0.5)
    task = SpeechTask(corpus, options, torch.device("cpu"))
    losses, batch = task.trained, task.recordings.batch(torch.tensor([0, 3]))
    starts = torch.zeros(2, 1, dtype=torch.int64)
    hidden = torch.zeros(2, TINY.hidden_channels, batch.waves.shape[1] // TINY.hop)
    _, clean = windows(batch, hidden, starts, options.window_frames)
    generator = torch.Generator().manual_seed(1)
    level = losses.draw_levels(2, generator)[:, None]
    noise = torch.randn(clean.shape, generator=generator)
    sigma = (1 - level**2).sqrt()
    # Without a prediction the noise is still in the estimate; with the true one the estimate is the recording.
    for predicted, heard in ((0 * noise, clean + sigma / level * noise), (noise, clean)):
        losses.denoise = lambda *_, found=predicted: found
        predicted.requires_grad_(True)
        parts = losses(batch, starts, torch.Generator().manual_seed(1))
        (gradient,) = torch.autograd.grad(parts["estimate"], predicted, retain_graph=True)
        assert torch.isfinite(gradient).all()
        assert gradient.any()
        wanted = stft_distance(heard, clean, losses.resolutions, level[:, 0])
        torch.testing.assert_close(parts["estimate"], wanted, rtol=1e-3, atol=1e-3)
        total = losses.total({"noise": parts["noise"], "estimate": parts["estimate"]})
        torch.testing.assert_close(total, parts["noise"] + 0.5 * parts["estimate"])
    task.trained.options = options.model_copy(update={"estimate_weight": 0.0})
    assert "estimate" not in losses(batch, starts, generator)


def test_noise_levels_are_uniform_in_log_snr_where_that_is_asked_for() -> None:
    drawn = {}
    for name in ("published", "log-snr"):
        losses = Losses(WaveGrad2Network(TINY), PretrainOptions(**FAST, level_sampling=name))
        drawn[name] = losses.draw_levels(20_000, torch.Generator().manual_seed(0)).double()
    noisiest, cleanest = (float(torch.logit(level**2)) for level in placed_levels(2)[1:].flip(0))
    share = ((torch.logit(drawn["log-snr"] ** 2) - noisiest) / (cleanest - noisiest)).sort().values
    assert (share - torch.linspace(0, 1, len(share), dtype=torch.float64)).abs().max() < 0.02
    assert drawn["published"].median() < 0.6 < 0.8 < drawn["log-snr"].median()


def test_a_narrow_encoder_drops_less(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PRESETS["base"].encoder_channels == 512
    wide = TINY.model_copy(update={"encoder_channels": 512})
    for network, options, expected in ((TINY, {}, 0.1), (wide, {}, 0.5), (TINY, {"dropout": 0.3}, 0.3)):
        monkeypatch.setitem(PRESETS, "tiny", network)
        task = SpeechTask(corpus, PretrainOptions(**FAST, **options), torch.device("cpu"))
        seen: list[tuple[float, bool]] = []
        monkeypatch.setattr(
            "torch.nn.functional.dropout", lambda x, p, training, seen=seen: seen.append((p, training)) or x
        )
        for trains in (True, False):
            task.network.train(trains)
            task.network.encode(torch.ones(1, 3, dtype=torch.int64), torch.tensor([3]))
        assert seen == [(expected, True)] * 3 + [(expected, False)] * 3


def test_training_for_two_steps_brings_their_samples_nearer(corpus: Path, tmp_path: Path) -> None:
    levels, distance = [0.8, 0.4], {}
    for weight in (0.0, 1.0):
        options = PretrainOptions(**FAST, steps=30, rollout_levels=levels, rollout_weight=weight)
        _, description = VOICES.load(pretrain(corpus, tmp_path / str(weight), options))
        assert description["schedules"] == {"2": levels}
        logged = [row["rollout"] for row in rows(tmp_path / str(weight)) if "rollout" in row]
        distance[weight] = sum(logged[-10:]) / 10
    assert distance[1.0] < 0.8 * distance[0.0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"rollout_levels": (0.3, 0.8)}, "must fall"), ({"utterances_per_step": 1}, "half of the windows")],
)
def test_a_rollout_that_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PretrainOptions(**{**FAST, "windows_per_utterance": 1, "rollout_levels": (0.8, 0.3), **wrong})


def test_judges_score_samples_and_recordings(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("speechmos", reason="speechmos is not installed")
    options = PretrainOptions(**FAST, steps=1, judges={"dnsmos": {}})
    pretrain(corpus, tmp_path / "run", options)
    (row,) = (row for row in rows(tmp_path / "run") if "validation/mel_2" in row)
    assert 1 < row["validation/dnsmos_2"] < 5
    assert row["validation/dnsmos_recordings"] != row["validation/dnsmos_2"]
    assert row["validation/mcd_2"] > 1
    with pytest.raises(ConfigError, match=r"judges\.dnsmos"):
        pretrain(corpus, tmp_path / "bad", PretrainOptions(**FAST, judges={"dnsmos": {"chekpoint": "x"}}))


def test_a_gpu_changes_defaults_and_not_what_was_set() -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    there = for_device(PretrainOptions(windows_per_utterance=1), cuda)
    assert (there.utterances_per_step, there.windows_per_utterance) == (64, 1)
    assert (there.precision, there.compile) == ("bf16-mixed", True)
    assert not for_device(PretrainOptions(), cpu).compile
    assert for_device(PretrainOptions(precision="fp32", compile=False), cuda).precision == "fp32"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # the tracer warns of what it looks at, and goes on
def test_a_compiled_denoiser_learns_the_same(corpus: Path, tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    for name, compiled in (("plain", False), ("compiled", True)):
        pretrain(corpus, tmp_path / name, PretrainOptions(**FAST, steps=3, compile=compiled))
    plain, compiled_rows = (rows(tmp_path / name) for name in ("plain", "compiled"))
    for one, other in zip(plain, compiled_rows, strict=True):
        for key in one.keys() - {"seconds"}:
            assert other[key] == pytest.approx(one[key], rel=1e-3, abs=1e-4), key
    assert VOICES.load(tmp_path / "plain/voice.safetensors")[0].keys() == (
        VOICES.load(tmp_path / "compiled/voice.safetensors")[0].keys()
    )


@pytest.mark.slow
def test_the_published_size_trains_on_ljspeechs_layout_with_textgrids(tmp_path: Path) -> None:
    """Real speech at 22.05 kHz, aligned here, through one validation: `base` as in the policy's README, but short."""
    if shutil.which("flite") is None:
        pytest.skip("the program flite is not installed")
    for package in ("pocketsphinx", "praatio"):
        pytest.importorskip(package, reason=f"{package} (extra `corpus`) is not installed")
    root = tmp_path / "LJSpeech"
    (root / "wavs").mkdir(parents=True)
    texts = {"LJ1": "The boat left.", "LJ2": "She read a letter.", "LJ3": "We sat down."}
    for name, text in texts.items():
        spoken = FliteEngine().speak(text)
        wave = resample(torch.from_numpy(spoken.wave).float(), spoken.rate, 22050)
        write_audio(root / "wavs" / f"{name}.wav", wave, 22050)
    (root / "metadata.csv").write_text("".join(f"{name}|{text}|{text}\n" for name, text in texts.items()))
    for split, names in {"train": "LJ1 LJ2", "validation": "LJ3", "test": ""}.items():
        (root / f"{split}.txt").write_text("\n".join(names.split()))
    align_corpus(root, progress=False)
    for row in map(json.loads, (root / "phones.jsonl").read_text().splitlines()):
        write_textgrid(root / "TextGrid" / f"{row['id']}.TextGrid", row["phones"], row["ends"])
    (root / "phones.jsonl").unlink()
    options = PretrainOptions(
        preset="base", textgrids=root / "TextGrid", text_style="cmu", peak="each", trim_silence=True, steps=2,
        log_every=1, utterances_per_step=1, windows_per_utterance=1, window_frames=16, validation_steps=(2,),
        precision="fp32", half=True,
    )  # fmt: skip
    voice = pretrain(root, tmp_path / "voice", options)
    first, second, validation = rows(tmp_path / "voice")
    assert first["noise"] > 0.3
    assert all(math.isfinite(value) for value in (*second.values(), *validation.values()))
    assert validation["validation/mcd_2"] > 0
    state, description = VOICES.load(voice)
    assert sum(value.numel() for name, value in state.items() if "running" not in name) >= 44_079_009
    assert description["text"] == "cmu"
    sample, rate = read_audio(tmp_path / "voice/validation/0000002/LJ3-2.wav")
    assert rate == 22050
    assert len(sample) % 300 == 0
