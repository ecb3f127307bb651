"""Pretraining on a corpus of two notes: data, losses in closed form, a run that learns and resumes exactly, a voice."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rlzoo_gradtts import GradTTSOptions, PretrainOptions
from rlzoo_gradtts.data import Utterance, crops, load_utterances, mean_pitch, pitch_contour, to_utterance
from rlzoo_gradtts.levels import noise_level
from rlzoo_gradtts.losses import CLEAN_RATE, STYLE_WEIGHT, Losses
from rlzoo_gradtts.mel import Mel
from rlzoo_gradtts.network import GradTTSNetwork, NetworkConfig
from rlzoo_gradtts.phones import phone_ids
from rlzoo_gradtts.policy import SHIPPED, VOICES, GradTTSPolicy
from rlzoo_gradtts.pretrain import _sample, mean_steps, pretrain, start, validate
from rlzoo_gradtts.style import divergence, sample, summarise
from torch import Tensor, nn

from rlzoo.api import Prompt
from rlzoo.audio import read_audio, write_audio
from rlzoo.config.checking import check_options
from rlzoo.errors import ConfigError, DataError
from rlzoo.pretraining.panel import Panel
from rlzoo.speech.corpus.speech import SpeechCorpus

CONFIG = NetworkConfig(style=8)
TINY = NetworkConfig(
    channels=16, encoder_layers=2, decoder_dilations=(1, 2), denoiser_dilations=(1, 2), style=5, style_hidden=8
)
FAST = {
    "channels": 16,
    "style_numbers": 4,
    "mean_steps": 0,
    "utterances_per_step": 3,
    "window_frames": 16,
    "warmup_steps": 5,
    "learning_rate": 3e-3,
    "log_every": 1,
    "validation_utterances": 1,
    "validation_steps": (2,),
    "text_style": "cmu",
    "device": "cpu",
}
HERTZ = {"AA1": 120.0, "IY1": 200.0}


@pytest.fixture(autouse=True)
def pyworld():
    return pytest.importorskip("pyworld", reason="pyworld (extra `corpus`) is not installed")


def note(hertz: float, seconds: float, rate: int = 16_000) -> Tensor:
    time = torch.arange(round(seconds * rate)) / rate
    return 0.1 * sum(torch.cos(2 * math.pi * h * hertz * time + h * h) / h for h in range(1, 12))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AA1 is a note of 120 Hz, IY1 one of 200 Hz, each 100 ms, with silence around."""
    root = tmp_path_factory.mktemp("corpus")
    (root / "wavs").mkdir()
    metadata, phones = [], []
    for i in range(8):
        names = ["AA1" if (i >> bit) & 1 else "IY1" for bit in range(3)]
        silence = torch.zeros(800)
        wave = torch.cat([silence, *(note(HERTZ[name], 0.1) for name in names), silence])
        write_audio(root / "wavs" / f"u{i}.wav", wave, 16_000)
        said = " ".join({"AA1": "ah", "IY1": "ee"}[name] for name in names)
        metadata.append(f"u{i}|{said}|{said}")
        row = {"id": f"u{i}", "phones": ["sil", *names, "sil"], "ends": [0.05, 0.15, 0.25, 0.35, 0.4]}
        phones.append(json.dumps(row))
    (root / "metadata.csv").write_text("\n".join(metadata) + "\n")
    (root / "phones.jsonl").write_text("\n".join(phones) + "\n")
    for name, ids in {"train": range(6), "validation": [6], "test": [7]}.items():
        (root / f"{name}.txt").write_text("".join(f"u{i}\n" for i in ids))
    return root


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


# --- data ------------------------------------------------------------------------------------------------------------


def test_an_utterance_is_its_phones_frames_pitch_and_spectrum(corpus: Path) -> None:
    item = SpeechCorpus.open(corpus, split="train")[1]
    found = to_utterance(item, item.load(), CONFIG, Mel(CONFIG))
    assert found.ids.tolist() == phone_ids(["sil", "AA1", "IY1", "IY1", "sil"])
    assert found.frames.tolist() == [4, 8, 8, 8, 4]
    assert found.mel.shape == (128, 32)
    assert torch.equal(found.mel, Mel(CONFIG)(item.load())[:, :32])
    assert torch.equal(found.summary, summarise(found.mel))
    assert found.clean
    hertz = 100 * found.log_pitch.exp()
    assert hertz[[1, 3]].tolist() == pytest.approx([120, 200], rel=0.01)
    assert found.log_pitch.tolist() == pytest.approx([p.mean().item() for p in found.contour.split([4, 8, 8, 8, 4])])
    assert found.contour.shape == (32,)
    # The frame that begins the second note stands on the edge between both.
    assert (100 * found.contour[6:11].exp()).tolist() == pytest.approx([120] * 5, rel=0.01)
    assert (100 * found.contour[14:26].exp()).tolist() == pytest.approx([200] * 12, rel=0.01)
    assert 120 < 100 * found.contour[12].exp() < 200


def test_pitch_is_a_line_where_nothing_is_voiced_and_constant_beyond() -> None:
    wave = torch.cat([torch.zeros(4000), note(120, 0.3), torch.zeros(4800), note(180, 0.3), torch.zeros(4000)])
    found = pitch_contour(wave, 112, CONFIG)
    assert found.shape == (112,)
    first, last = math.log(1.2), math.log(1.8)
    # Voiced: frames 20 to 44 and 68 to 92, less what the ends of the notes cost.
    wanted = np.interp(range(112), [0, 43, 69, 111], [first, first, last, last])
    assert np.abs(found.numpy() - wanted).max() < 0.06
    steps = found[48:64].diff()
    assert steps.min() > 0.5 * (last - first) / 24
    torch.testing.assert_close(steps, steps[:1].expand(15))
    assert torch.equal(found[:15], found[:1].expand(15))
    assert not pitch_contour(torch.zeros(4800), 24, CONFIG).any()


def test_the_pitch_of_a_phone_is_the_mean_of_its_frames() -> None:
    contour = torch.tensor([0.1, 0.3, -0.4, 0.5, 0.9, 0.7])
    found = mean_pitch(contour, torch.tensor([2, 0, 1, 3, 0]))
    assert found.tolist() == pytest.approx([0.2, -0.4, -0.4, 0.7, 0.7])


def test_pitch_is_measured_before_the_recording_condition(corpus: Path, tmp_path: Path) -> None:
    """Spectra are those of the recordings, pitch that of clean/; a row with a condition is not clean."""
    noisy = Path(shutil.copytree(corpus, tmp_path / "noisy"))
    before = load_utterances(SpeechCorpus.open(noisy, split="train"), CONFIG)
    (noisy / "clean").mkdir()
    generator = torch.Generator().manual_seed(0)
    for path in (noisy / "wavs").iterdir():
        wave, rate = read_audio(path)
        shutil.copy(path, noisy / "clean" / path.name)
        write_audio(path, (0.3 * torch.randn(len(wave), generator=generator)).clamp(-1, 1), rate)
    lines = [json.loads(line) for line in (noisy / "phones.jsonl").read_text().splitlines()]
    for line in lines[:2]:
        line["condition"] = {"noise_db": 3.0}
    (noisy / "phones.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    after = load_utterances(SpeechCorpus.open(noisy, split="train"), CONFIG)
    assert [u.clean for u in after] == [False, False, True, True, True, True]
    for was, now in zip(before, after, strict=True):
        assert torch.equal(was.contour, now.contour)
        assert torch.equal(was.log_pitch, now.log_pitch)
        assert (now.mel - was.mel).abs().mean() > 1
        assert not torch.allclose(now.summary, was.summary)
    loud = to_utterance(item := SpeechCorpus.open(noisy, split="train")[0], item.load(), CONFIG, Mel(CONFIG))
    assert not torch.allclose(loud.contour, after[0].contour, atol=0.05)


def ramp(name: str, frames: int) -> Utterance:
    """Its spectrum's value is the frame."""
    ids, ones = torch.full((frames,), 3), torch.ones(frames, dtype=torch.long)
    values = torch.arange(float(frames))
    return Utterance(name, "", ids, ones, torch.zeros(frames), 10 * values, values.expand(4, -1), name == "a")


def test_crops_stand_everywhere_they_fit_and_say_where() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = crops([ramp("a", 9)] * 2000 + [ramp("b", 2)], 3, generator)
    assert batch.mel.shape == (2001, 4, 3)
    wanted = batch.starts[:-1, None] + torch.arange(3)
    assert torch.equal(batch.mel[:-1], wanted[:, None].float().expand(-1, 4, -1))
    assert batch.mel[-1, 0].tolist() == [0, 1, 0]
    assert batch.sizes.unique(return_counts=True)[1].tolist() == [1, 2000]
    counts = torch.bincount(batch.starts[:-1])
    assert len(counts) == 7
    assert counts.min() > 220  # 286 expected, standard deviation 16
    assert batch.phones[[0, -1]].tolist() == [9, 2]
    assert batch.frames[-1].tolist() == [1, 1] + [0] * 7
    assert batch.contour[[0, -1]].tolist() == [[10.0 * i for i in range(9)], [0, 10] + [0] * 7]  # whole, as phones
    assert torch.equal(batch.summary[0], summarise(torch.arange(9.0).expand(4, -1)))  # of all, not of the crop
    assert batch.clean.tolist() == [True] * 2000 + [False]


def test_what_is_too_short_for_a_spectrum_is_left_out(corpus: Path) -> None:
    whole = SpeechCorpus.open(corpus, split="train")
    short = replace(whole[0], phones=("sil",), ends=(0.04,))  # 640 samples: longer than three frames, not than four
    found = load_utterances(SpeechCorpus(corpus, [short, *whole[1:3]], 16_000), CONFIG)
    assert [u.id for u in found] == [item.id for item in whole[1:3]]
    with pytest.raises(DataError, match="no usable recording"):
        load_utterances(SpeechCorpus(corpus, [short], 16_000), CONFIG)
    with pytest.raises(DataError, match="640 samples, fewer than 4 frames"):
        to_utterance(short, short.load(), CONFIG, Mel(CONFIG))


# --- losses ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def network() -> GradTTSNetwork:
    torch.manual_seed(0)
    network = GradTTSNetwork(TINY)
    network.average.fill_(-4.0)
    for parameter in network.denoiser.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network


def utterances(corpus: Path) -> list[Utterance]:
    return load_utterances(SpeechCorpus.open(corpus, split="train"), TINY)


def test_noise_levels_are_sines_of_even_angles() -> None:
    uniform = torch.linspace(0, 1, 7)
    wanted = [0.01, *(math.sin(math.pi / 2 * u) for u in uniform[1:-1].tolist()), 0.999]
    assert noise_level(uniform).tolist() == pytest.approx(wanted)


def test_losses_are_mean_squared_errors_and_a_divergence(corpus: Path, network: GradTTSNetwork) -> None:
    (u,) = utterances(corpus)[:1]
    start, size = 7, 16
    batch = replace(crops([u], size, torch.Generator()), starts=torch.tensor([start]), mel=u.mel[None, :, 7:23])
    ones = torch.ones(1, 1, size)
    with torch.no_grad():
        nn.init.normal_(network.plain.gains.weight)
        nn.init.normal_(network.mean.styled.weight)
        found = Losses(network)(batch, torch.Generator().manual_seed(3))
        encoded, planned = network.encode(u.ids[None], torch.tensor([5]))
        expanded = network.expand(encoded[0], u.frames, u.contour)[start : start + size]
        features, plain = network.decode(expanded[None], u.contour[None, start : start + size], ones)
        centre, log_variance = network.posterior(u.summary[None])
        generator = torch.Generator().manual_seed(3)
        style = sample(centre, log_variance, generator)
        mean = network.mean_spectrum(features, plain, style)
        sigma = noise_level(torch.rand(1, generator=generator))
        noise = torch.randn(1, 128, size, generator=generator)
        style_noise = torch.randn(1, TINY.style, generator=generator)
        clean, alpha = (batch.mel - mean) / TINY.residual_scale, (1 - sigma**2).sqrt()
        noisy_style = alpha * style + sigma * style_noise
        predicted = network.style_denoiser(noisy_style, sigma, features.mean(2))
        v = network.denoiser(alpha * clean + sigma * noise, sigma, features, predicted, ones)
        style_v = (alpha * noisy_style - predicted) / sigma
    wanted = {
        "mean": (mean - batch.mel).square().mean(),
        "diffusion": (v - (alpha * noise - sigma * clean)).square().mean(),
        "durations": (planned.log_frames[0] - (u.frames + 0.5).log()).square().mean(),
        "pitch": (planned.log_pitch[0] - u.log_pitch).square().mean(),
        "style": STYLE_WEIGHT * divergence(centre, log_variance)[0],
        "style_diffusion": (style_v - (alpha * style_noise - sigma * style)).square().mean(),
    }
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-3 if name.startswith("style_") else 1e-4), name


def test_padding_costs_nothing(corpus: Path, network: GradTTSNetwork) -> None:
    """A short and a long row together lose what they lose alone, weighted by what they hold."""
    nn.init.constant_(network.reference.log_variance.bias, -80.0)  # clamped at -8: styles are drawn, but hardly
    long, whole = utterances(corpus)[:2]
    short = replace(whole, ids=whole.ids[:2], frames=whole.frames[:2], log_pitch=whole.log_pitch[:2])
    short = replace(short, mel=whole.mel[:, :12], contour=whole.contour[:12])
    with torch.no_grad():
        both, first, second = (
            Losses(network)(crops(rows, 32, torch.Generator()), torch.Generator())
            for rows in ([long, short], [long], [short])
        )
    assert both["mean"].item() == pytest.approx(float(32 * first["mean"] + 12 * second["mean"]) / 44, rel=1e-2)
    assert both["style"].item() == pytest.approx(float(first["style"] + second["style"]) / 2, rel=1e-4)
    for name in ("durations", "pitch"):
        assert both[name].item() == pytest.approx(float(5 * first[name] + 2 * second[name]) / 7, rel=1e-4)


def touched(network: GradTTSNetwork, loss: Tensor) -> set[str]:
    """The parts of the network that a loss trains."""
    network.zero_grad()
    loss.backward(retain_graph=True)
    return {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}


def test_each_loss_trains_its_own_parts(corpus: Path, network: GradTTSNetwork) -> None:
    """The chain bends features and leaves alone the mean and the style, whose denoiser leaves all else alone."""
    nn.init.normal_(network.plain.gains.weight)
    nn.init.normal_(network.mean.styled.weight)
    batch = crops(utterances(corpus)[:2], 16, torch.Generator())
    parts = Losses(network)(batch, torch.Generator())
    features = {"embedding", "encoder", "place", "comb", "decoder"}
    assert touched(network, parts["mean"]) == features | {"plain", "mean", "reference"}
    assert touched(network, parts["diffusion"]) == features | {"denoiser"}
    assert touched(network, parts["style"]) == {"reference"}
    assert touched(network, parts["style_diffusion"]) == {"style_denoiser"}
    assert touched(network, parts["durations"]) == {"durations"}
    assert touched(network, parts["pitch"]) == {"pitch"}
    network.zero_grad()
    torch.stack(list(parts.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_the_chain_waits_for_the_mean(corpus: Path, network: GradTTSNetwork) -> None:
    batch = crops(utterances(corpus)[:2], 16, torch.Generator())
    losses, chain = Losses(network, mean_steps=2), {"diffusion", "style_diffusion"}
    fresh, late = Losses(network, mean_steps=2), []
    with torch.no_grad():
        for _ in range(3):
            late.append(chain & losses(batch, torch.Generator()).keys())
            fresh.load_state_dict(losses.state_dict())
        assert late == [set(), set(), chain]
        assert fresh(batch, torch.Generator()).keys() >= chain  # a checkpoint knows how many steps were made


def test_the_clean_style_follows_what_is_called_clean(corpus: Path, network: GradTTSNetwork) -> None:
    us = [replace(u, clean=row != 1) for row, u in enumerate(utterances(corpus)[:3])]
    before = torch.linspace(-1, 1, TINY.style)
    network.clean_style.copy_(before)
    losses = Losses(network, mean_steps=9)
    with torch.no_grad():
        centre, _ = network.posterior(torch.stack([u.summary for u in us]))
        losses(crops([us[1]], 16, torch.Generator()), torch.Generator())
        assert torch.equal(network.clean_style, before)
        losses(crops(us, 16, torch.Generator()), torch.Generator())
    wanted = before + CLEAN_RATE * (centre[[0, 2]].mean(0) - before)
    torch.testing.assert_close(network.clean_style, wanted)
    assert not torch.allclose(wanted, before + CLEAN_RATE * (centre.mean(0) - before))


# --- training --------------------------------------------------------------------------------------------------------


def test_losses_fall_and_the_voice_loads_and_speaks(corpus: Path, tmp_path: Path) -> None:
    voice = pretrain(corpus, tmp_path / "run", PretrainOptions(**FAST, steps=30))
    logged = [row for row in rows(tmp_path / "run") if "mean" in row]
    assert len(logged) == 30
    for name, share in (("mean", 0.6), ("diffusion", 0.95), ("durations", 0.3), ("pitch", 0.5)):
        first, last = (sum(row[name] for row in part) / 5 for part in (logged[:5], logged[-5:]))
        assert last < share * first, name
    weights, description = VOICES.load(voice)
    torch.testing.assert_close(weights["average"], torch.cat([u.mel for u in utterances(corpus)], 1).mean(1))
    assert weights["clean_style"].any()
    assert NetworkConfig.model_validate(description["network"]) == NetworkConfig(channels=16, style=4)
    assert description["text"] == "cmu"
    card = description["card"]
    assert (card["step"], card["sentences"], list(card["phones"])) == (30, 6, ["AA1", "IY1", "sil"])
    assert card["options"]["window_frames"] == 16
    heard = tmp_path / "run/validation/0000030"
    assert sorted(p.name for p in heard.iterdir()) == [f"u6-{s}.wav" for s in ("2", "mean", "recordings")]
    assert len(read_audio(heard / "u6-2.wav")[0]) == 31 * 200
    policy = GradTTSPolicy(GradTTSOptions(checkpoint=voice))
    assert policy.frontend.style == "cmu"
    cond = policy.condition([Prompt("a", "", {"phones": "sil AA1 IY1 sil"})])
    assert policy.decode(torch.randn(1, *policy.state_shape(cond)), cond).row(0).std() > 0


def test_killed_and_resumed_is_bit_identical(corpus: Path, tmp_path: Path) -> None:
    options = PretrainOptions(**FAST | {"mean_steps": 3}, steps=5, save_every=2)

    class Killed(Exception):
        pass

    def kill(row: dict[str, float]) -> None:
        if row["step"] == 3:
            raise Killed

    pretrain(corpus, tmp_path / "whole", options)
    with pytest.raises(Killed):
        pretrain(corpus, tmp_path / "cut", options, on_step=kill)
    with pytest.raises(ConfigError, match="already holds a training run"):
        pretrain(corpus, tmp_path / "cut", options)
    pretrain(corpus, tmp_path / "cut", options, resume=True)
    whole, cut = (torch.load(tmp_path / name / "train.pt", weights_only=True) for name in ("whole", "cut"))
    for part in ("losses", "average"):
        for name, value in whole[part].items():
            assert torch.equal(value, cut[part][name]), name
    timeless = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in rows(tmp_path / n)] for n in ("whole", "cut")
    ]
    assert timeless[0] == timeless[1]
    assert ["diffusion" in row for row in timeless[0] if "mean" in row] == [False] * 3 + [True] * 2


def test_fine_tuning_starts_from_the_weights_of_a_voice(corpus: Path, tmp_path: Path) -> None:
    voice = pretrain(corpus, tmp_path / "run", PretrainOptions(**FAST, steps=2))
    own = {key: value for key, value in FAST.items() if key not in ("channels", "style_numbers", "text_style")}
    options = PretrainOptions(**own | {"learning_rate": 1e-9, "init": voice}, steps=1)
    before, after = VOICES.load(voice), VOICES.load(pretrain(corpus, tmp_path / "more", options))
    for name, value in before[0].items():
        # The clean style is no weight: it follows what the encoder says of clean recordings.
        torch.testing.assert_close(after[0][name], value, rtol=0, atol=1e-6 if name != "clean_style" else 0.02)
    assert (after[1]["text"], after[1]["init"], after[1]["network"]) == ("cmu", voice.name, before[1]["network"])
    for name, message in (("channels", "channels and init"), ("style_numbers", "style_numbers and init")):
        with pytest.raises(ConfigError, match=message):
            pretrain(corpus, tmp_path / "both", PretrainOptions(**own | {name: FAST[name], "init": voice}))


def test_judges_score_samples_mean_and_recordings(corpus: Path, tmp_path: Path) -> None:
    pretrain(corpus, tmp_path / "run", PretrainOptions(**FAST, steps=1, judges={"guard": {}}))
    (row,) = (row for row in rows(tmp_path / "run") if "validation/mel_2" in row)
    metrics = {"mel_2", "mel_mean", "guard_2", "guard_mean", "guard_recordings"}
    assert {f"validation/{name}" for name in metrics} == row.keys() - {"step", "seconds"}
    with pytest.raises(ConfigError, match=r"judges\.guard"):
        pretrain(corpus, tmp_path / "bad", PretrainOptions(**FAST, judges={"guard": {"nonsense": 1}}))
    assert not (tmp_path / "bad").exists()


def test_validation_measures_spectra_at_the_recordings_own_times(corpus: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = GradTTSNetwork(TINY)
    VOICES.save(tmp_path / "v.safetensors", network.state_dict(), {"network": TINY.model_dump(), "text": "flite"})
    policy = GradTTSPolicy(GradTTSOptions(checkpoint=tmp_path / "v.safetensors"))
    us = utterances(corpus)[:2]
    found = validate(policy, us, tmp_path / "out", [2], Panel({}, policy.device))
    with torch.no_grad():
        means = []
        for u in us:
            row, (style, _) = policy.encode(u.ids, u.frames, u.contour), network.posterior(u.summary[None])
            means.append(network.mean_spectrum(row["features"][None], row["plain"][None], style)[0])
    gaps = [(mean - u.mel).abs().mean().item() for mean, u in zip(means, us, strict=True)]
    assert found["validation/mel_mean"] == pytest.approx(sum(gaps) / 2, abs=1e-4)
    assert found == validate(policy, us, tmp_path / "out", [2], Panel({}, policy.device))


def test_samples_of_validation_keep_the_style_they_are_given(tmp_path: Path, network: GradTTSNetwork) -> None:
    VOICES.save(tmp_path / "v.safetensors", network.state_dict(), {"network": TINY.model_dump(), "text": "flite"})
    policy = GradTTSPolicy(GradTTSOptions(checkpoint=tmp_path / "v.safetensors"))
    cond = policy.condition([Prompt("a", "", {"phones": "sil AA IY sil"}), Prompt("b", "", {"phones": "sil AA"})])
    styles = torch.randn(2, TINY.style)
    with torch.no_grad():
        x, again, other = (_sample(policy, cond, 3, s) for s in (styles, styles, styles + 1))
    assert torch.equal(x, again)
    assert torch.equal(x[:, : TINY.style, 0], styles)
    assert not x[~policy.mask(cond)].any()
    assert not torch.allclose(x[..., 1:], other[..., 1:])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("rate", "has 8000 Hz, 16000 Hz were asked for"), ("phone", "'ax'"), ("times", "has no phone times")],
)
def test_a_wrong_corpus_is_refused_before_anything_is_made(
    corpus: Path, tmp_path: Path, wrong: str, message: str
) -> None:
    copy = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    times = copy / "phones.jsonl"
    if wrong == "rate":
        for path in (copy / "wavs").iterdir():
            write_audio(path, read_audio(path)[0][::2], 8000)
    elif wrong == "phone":
        times.write_text(times.read_text().replace('"AA1"', '"ax"'))
    else:
        times.unlink()
    with pytest.raises(DataError, match=message):
        pretrain(copy, tmp_path / "run", PretrainOptions(**FAST, steps=1))
    assert not (tmp_path / "run").exists()


def test_a_run_that_would_never_train_the_chain_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no step would train the denoisers"):
        pretrain(corpus, tmp_path / "run", PretrainOptions(**FAST | {"mean_steps": 5}, steps=5))
    assert not (tmp_path / "run").exists()


def test_the_voice_that_ships_can_be_gone_on_from():
    options = check_options(PretrainOptions, {"init": "shipped"}, "pretrain")
    assert options.init == "shipped"
    weights, voice = start(options)
    assert weights is not None
    assert voice["init"] == SHIPPED.name
    assert mean_steps(options) == 0
