"""The network, spectra and vocoder of F5-TTS against the published packages, and files in the published layout."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from f5_reference import f5_tts, vocos
from f5_tiny import CONFIG, randomise
from rlzoo_f5tts.checkpoint import merged, read_model, read_vocoder, write_model
from rlzoo_f5tts.lora import adapt
from rlzoo_f5tts.mel import GriffinLim, Mel, Vocos
from rlzoo_f5tts.network import DiT, DiTConfig
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from rlzoo.errors import ConfigError, DataError
from rlzoo.functional import length_mask

GENERATIONS = {"v1": (True, None), "v0": (False, 1)}
PUBLISHED = {
    "v1 base": ("v1", 1024, 22, 16, 337_096_804),
    "base": ("v0", 1024, 22, 16, 337_096_804),
    "small": ("v0", 768, 18, 12, 159_228_772),
}


def both(generation: str, dim=128, depth=2, heads=2, text_dim=32, blocks=2, vocabulary=40):
    """The package's network and ours, with the same random weights."""
    padding, pe = GENERATIONS[generation]
    theirs = f5_tts().DiT(
        dim=dim, depth=depth, heads=heads, dim_head=64, ff_mult=2, text_dim=text_dim, conv_layers=blocks, mel_dim=100,
        text_num_embeds=vocabulary, text_mask_padding=padding, pe_attn_head=pe,
    ).eval()  # fmt: skip
    for name, parameter in theirs.named_parameters():
        if any(part in name for part in ("attn_norm", "norm_out", "proj_out", "grn")):
            torch.nn.init.normal_(parameter, std=0.05)  # zero at first, which would hide everything behind it
    config = DiTConfig(
        dim=dim, depth=depth, heads=heads, ff=2 * dim, text_dim=text_dim, text_blocks=blocks, text_ff=2 * text_dim,
        vocabulary=vocabulary, filler_masked=padding, rotary_heads=pe or 0,
    )  # fmt: skip
    ours = DiT(config)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def inputs(frames=40, known=10, characters=15, vocabulary=40):
    generator = torch.Generator().manual_seed(0)
    x, reference = torch.randn(2, 1, frames, 100, generator=generator)
    reference[:, known:] = 0
    text = torch.randint(vocabulary, (1, characters), generator=generator)
    return x, reference, text, torch.rand(1, generator=generator)


def assert_equal(theirs, ours, vocabulary=40):
    x, reference, text, t = inputs(vocabulary=vocabulary)
    padded = F.pad(text + 1, (0, x.shape[1] - text.shape[1]))
    for untold in (True, False):
        expected = theirs(x, reference, text, t, drop_text=untold, drop_audio_cond=untold)
        found = ours(x, reference * (not untold), padded, t, None, torch.tensor([untold]))
        assert float((found - expected).detach().abs().max()) < 1e-5
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (expected * weight).sum().backward()
    (found * weight).sum().backward()
    named = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        gradient = named[name].grad
        if parameter.grad is None or gradient is None:
            assert parameter.grad is gradient is None
            continue
        assert float((gradient - parameter.grad).abs().max()) < 1e-4, name


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_network_is_the_packages(generation):
    assert_equal(*both(generation))


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_are_the_packages(name):
    generation, dim, depth, heads, count = PUBLISHED[name]
    theirs, ours = both(generation, dim, depth, heads, 512, 4, 2545)
    assert sum(p.numel() for p in ours.parameters()) == count
    assert_equal(theirs, ours, 2545)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name):
    _, dim, depth, heads, count = PUBLISHED[name]
    with torch.device("meta"):
        network = DiT(DiTConfig(dim=dim, depth=depth, heads=heads, ff=2 * dim))
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize("habits", [{}, {"filler_masked": False, "rotary_heads": 1}])
def test_a_row_is_the_same_alone_and_padded(habits):
    network = DiT(CONFIG.model_copy(update=habits))
    randomise(network)
    x, reference, text, _ = inputs(vocabulary=CONFIG.vocabulary)
    frames = torch.tensor([23, 40])
    mask = length_mask(frames, 40)
    text = F.pad(text + 1, (0, 25)).repeat(2, 1) * mask
    x, reference, t = x.repeat(2, 1, 1), reference.repeat(2, 1, 1), torch.tensor([0.3, 0.7])
    with torch.no_grad():
        batch = network(x, reference, text, t, mask)
        x[0, 23:] = 7.0
        dirty = network(x, reference, text, t, mask)
        alone = network(x[:1, :23], reference[:1, :23], text[:1, :23], t[:1])
    assert float((batch[0, :23] - alone[0]).abs().max()) < 1e-4
    assert torch.equal(dirty[0, :23], batch[0, :23])


def test_checkpointing_changes_no_gradient():
    network = DiT(CONFIG)
    randomise(network)
    x, reference, text, t = inputs(vocabulary=CONFIG.vocabulary)
    text, gradients = F.pad(text + 1, (0, 25)), []
    for network.checkpointing in (False, True):
        network.zero_grad()
        network(x, reference, text, t).square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_spectra_are_the_packages():
    module = f5_tts().cfm
    wave = 0.1 * torch.randn(24_000, generator=torch.Generator().manual_seed(0))
    assert float((Mel()(wave) - module.MelSpec()(wave[None])[0]).abs().max()) < 1e-4


def test_the_vocoder_is_the_packages(tmp_path):
    package = vocos()
    backbone, head = package.models.VocosBackbone(100, 64, 128, 3), package.heads.ISTFTHead(64, 1024, 256, "center")
    theirs = package.pretrained.Vocos(torch.nn.Identity(), backbone, head).eval()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    ours = read_vocoder(tmp_path / "pytorch_model.bin")
    mel = torch.randn(2, 100, 30, generator=torch.Generator().manual_seed(0))
    assert float((ours(mel) - theirs.decode(mel)).abs().max()) < 1e-4


def test_griffin_lim_gives_a_waveform_with_the_spectrum():
    mel = Mel()
    time = torch.arange(24_000) / 24_000
    spectrum = mel((0.3 * torch.sin(2 * torch.pi * 440 * time))[:-64])
    wave = GriffinLim(mel)(spectrum[None])[0]
    assert wave.shape == (93 * 256,)
    heard = (mel(wave).exp() - spectrum.exp())[:, 4:-4].square().mean() / spectrum.exp()[:, 4:-4].square().mean()
    assert float(heard) < 0.05


def published(folder: Path, kind: str) -> Path:
    """Tiny weights as F5-TTS's trainer and the community write them."""
    network = DiT(CONFIG)
    randomise(network)
    plain = {f"transformer.{name}": value for name, value in network.state_dict().items()}
    plain |= {"mel_spec.mel_stft.spectrogram.window": torch.ones(1024)}
    averaged = {f"ema_model.{name}": value for name, value in plain.items()}
    averaged |= {"initted": torch.tensor(True), "step": torch.tensor(3)}
    other = {name: value + 1 for name, value in plain.items()}
    path = folder / f"model.{'safetensors' if kind.startswith('safe') else 'pt'}"
    if kind == "safetensors":
        save_file(averaged, path)
    elif kind == "safetensors-half":
        save_file({name: value.half() if value.is_floating_point() else value for name, value in plain.items()}, path)
    elif kind == "pt":
        torch.save({"ema_model_state_dict": averaged, "model_state_dict": other, "optimizer_state_dict": {}}, path)
    else:
        torch.save({"model_state_dict": plain, "update": 5}, path)
    return path


@pytest.mark.parametrize("kind", ["safetensors", "safetensors-half", "pt", "pt-plain"])
def test_published_layouts_are_read(tmp_path, kind):
    expected = DiT(CONFIG)
    randomise(expected)
    found = read_model(published(tmp_path, kind))
    assert found.config == CONFIG
    tolerance = 1e-3 if kind.endswith("half") else 0.0
    for name, value in expected.state_dict().items():
        assert float((found.state_dict()[name] - value).abs().max()) <= tolerance
    assert torch.equal(found.text_embed.positions, expected.text_embed.positions)


def test_the_generation_is_told_or_remembered(tmp_path):
    path = published(tmp_path, "safetensors")
    old = read_model(path, filler_masked=False, rotary_heads=1)
    assert (old.config.filler_masked, old.config.rotary_heads) == (False, 1)
    write_model(tmp_path / "again.safetensors", old, old.config, {})
    assert read_model(tmp_path / "again.safetensors").config == old.config


def test_adapters_are_merged_where_weights_are_written(tmp_path):
    network = DiT(CONFIG)
    randomise(network)
    adapt(network, 2, 4.0, "")
    randomise(network, 3)
    write_model(tmp_path / "model.safetensors", network, CONFIG, {"step": 12})
    plain = read_model(tmp_path / "model.safetensors")
    x, reference, text, t = inputs(vocabulary=CONFIG.vocabulary)
    text = F.pad(text + 1, (0, 25))
    with torch.no_grad():
        gap = plain(x, reference, text, t) - network(x, reference, text, t)
    assert float(gap.abs().max()) < 1e-5
    assert set(merged(network)) == set(DiT(CONFIG).state_dict())
    with pytest.raises(ConfigError, match="matches no layer"):
        adapt(DiT(CONFIG), 2, 4.0, "nothing")


def test_the_packages_loader_reads_what_we_write(tmp_path):
    """The steps of `load_checkpoint` with averaged weights, on the package's own model: every key has its place."""
    package = f5_tts()
    network = DiT(CONFIG)
    randomise(network)
    write_model(tmp_path / "model.safetensors", network, CONFIG, {"step": 12})
    theirs = package.CFM(
        transformer=package.DiT(
            dim=64, depth=2, heads=1, dim_head=64, ff_mult=1.5, text_dim=16, conv_layers=1, mel_dim=100,
            text_num_embeds=CONFIG.vocabulary,
        )
    )  # fmt: skip
    stored = load_file(tmp_path / "model.safetensors")
    theirs.load_state_dict({k.replace("ema_model.", ""): v for k, v in stored.items() if k not in ("initted", "step")})
    x, reference, text, t = inputs(vocabulary=CONFIG.vocabulary)
    with torch.no_grad():
        expected = theirs.eval().transformer(x, reference, text, t)
        found = network(x, reference, F.pad(text + 1, (0, 25)), t)
    assert float((found - expected).detach().abs().max()) < 1e-5


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("true",)


def spoilt(folder: Path, how: str) -> Path:
    path = published(folder, "safetensors")
    tensors = load_file(path)
    if how == "missing":
        del tensors["ema_model.transformer.proj_out.bias"]
    elif how == "shape":
        tensors["ema_model.transformer.proj_out.bias"] = torch.zeros(3)
    elif how == "nan":
        tensors["ema_model.transformer.proj_out.bias"][0] = torch.nan
    elif how == "stranger":
        tensors = {"decoder.estimator.down_blocks.0.weight": torch.zeros(1)}
    elif how == "grad-tts":
        tensors = {"decoder.estimator.downs.0.0.weight": torch.zeros(1)}
    elif how == "e2":
        tensors = {"ema_model.transformer.layers.0.0.weight": torch.zeros(1)}
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-10])
        return path
    elif how == "code":
        path = folder / "model.pt"
        torch.save({"model_state_dict": {"a": torch.zeros(1)}, "evil": Evil()}, path, pickle_module=pickle)
        return path
    save_file(tensors, path)
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "proj_out.bias' is missing"),
        ("shape", r"proj_out.bias' is \(3,\), expected \(100,\)"),
        ("nan", "not finite"),
        ("stranger", "Matcha-TTS"),
        ("grad-tts", "Grad-TTS"),
        ("e2", "E2-TTS"),
        ("cut", "not a complete safetensors file"),
        ("code", "which is code and not weights"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, how, message):
    with pytest.raises(DataError, match=message):
        read_model(spoilt(tmp_path, how))


def test_a_vocoder_of_another_kind_is_refused(tmp_path):
    save_file({"head.out.weight": torch.zeros(1)}, tmp_path / "v.safetensors")
    with pytest.raises(DataError, match="not a Vocos vocoder"):
        read_vocoder(tmp_path / "v.safetensors")
    weights = Vocos(16, 32, 1).state_dict() | {"backbone.embed.weight": torch.zeros(16, 80, 7)}
    save_file(weights, tmp_path / "v.safetensors")
    with pytest.raises(DataError, match="of 80 bands"):
        read_vocoder(tmp_path / "v.safetensors")
