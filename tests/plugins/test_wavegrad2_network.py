"""The fast network equals the literal one, rows ignore padding, and text side and losses do what their papers say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from threading import Barrier
from typing import Any

import pytest
import torch
from plain.wavegrad2 import denoise
from rlzoo_wavegrad2.network import PRESETS, NetworkConfig, WaveGrad2Network, rows, winograd
from rlzoo_wavegrad2.network.encoder import gaussian_upsampling, run_lstm
from rlzoo_wavegrad2.network.layers import downsample, modulate, upsample, upsample_convolve
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.flop_counter import FlopCounterMode

from rlzoo import parallel

NARROW = {
    "base": NetworkConfig(
        encoder_channels=16,
        speaker_channels=4,
        predictor_channels=8,
        down_channels=(8, 12, 12, 16, 16),
        up_channels=(24, 16, 16, 12, 12, 8),
    ),
    "mini": PRESETS["mini"],
}
NARROW["large"] = NARROW["base"].model_copy(update={"large": True, "dilations": ((1, 2, 4, 8),) * 5})


def inputs(config: NetworkConfig, rows: int = 2, frames: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    noisy = torch.randn(rows, frames * config.hop, generator=generator)
    hidden = torch.randn(rows, config.hidden_channels, frames, generator=generator)
    return noisy, hidden, torch.rand(rows, generator=generator)


@pytest.mark.parametrize("name", sorted(NARROW))
def test_denoiser_and_its_gradients_equal_the_literal_network(name: str) -> None:
    config = NARROW[name]
    decoder = WaveGrad2Network(config).decoder
    noisy, hidden, level = inputs(config)
    fast = decoder(noisy, hidden, level)
    fast.square().mean().backward()
    weights = {key: value.detach().clone().requires_grad_() for key, value in decoder.state_dict().items()}
    plain = denoise(weights, config, noisy, hidden, level)
    plain.square().mean().backward()
    assert (fast - plain).norm() <= 1e-5 * plain.norm()
    for key, parameter in decoder.named_parameters():
        reference = weights[key].grad
        assert parameter.grad is not None
        assert reference is not None
        assert (parameter.grad - reference).norm() <= 1e-4 * reference.norm() + 1e-9, key


@pytest.mark.parametrize("tile", [400, 2**19])
@pytest.mark.parametrize("name", sorted(NARROW))
def test_rows_on_the_cpu_equal_the_literal_network(name: str, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, where nothing but a wrong formula can differ: also a sign at the bend of a leaky ReLU cannot."""
    monkeypatch.setattr(rows, "FEWEST_CHANNELS", 1)
    monkeypatch.setattr(rows, "TILE", tile)
    monkeypatch.setattr(winograd, "_FEWEST_CHANNELS", 10)  # some convolutions by Winograd, some directly
    monkeypatch.setattr(winograd, "_FEWEST_WINDOWS", 2)
    config = NARROW[name]
    torch.manual_seed(0)
    decoder = WaveGrad2Network(config).decoder.double()
    noisy, hidden, level = inputs(config)  # the level stays float32, in which both embed it
    noisy, hidden = noisy.double().requires_grad_(), hidden.double().requires_grad_()
    fast = decoder(noisy, hidden, level)
    fast.square().mean().backward()
    with torch.no_grad():
        tiled = decoder(noisy, hidden, level)
    weights = {key: value.detach().clone().requires_grad_() for key, value in decoder.state_dict().items()}
    same_noisy, same_hidden = (x.detach().clone().requires_grad_() for x in (noisy, hidden))
    plain = denoise(weights, config, same_noisy, same_hidden, level)
    plain.square().mean().backward()
    assert (fast - plain).norm() <= 1e-10 * plain.norm()
    assert (tiled - fast).norm() <= 1e-12 * fast.norm()
    pairs = [(parameter.grad, weights[key].grad) for key, parameter in decoder.named_parameters()]
    for found, expected in [*pairs, (noisy.grad, same_noisy.grad), (hidden.grad, same_hidden.grad)]:
        assert found is not None
        assert expected is not None
        assert (found - expected).norm() <= 1e-9 * expected.norm() + 1e-12


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2  # whatever happened
    torch.set_num_threads(before)


@pytest.mark.parametrize("tile", [3000, 2**21])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_any_number_of_cores_computes_the_same(
    mode: Any, tile: int, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit, a row among others or alone, tiles or whole rows to a core, or its operations shared by all;
    and where operations are watched, all of them are seen."""
    for module, name, value in ((rows, "FEWEST_CHANNELS", 1), (rows, "TILE", tile), (winograd, "_FEWEST_CHANNELS", 10)):
        monkeypatch.setattr(module, name, value)
    decoder = WaveGrad2Network(NARROW["base"]).decoder
    noisy, hidden, level = inputs(NARROW["base"], rows=3)
    crews = list[int]()
    each = parallel.each
    monkeypatch.setattr(parallel, "each", lambda *given: (crews.append(parallel.size()), each(*given)))
    with mode():
        batch = decoder(noisy, hidden, level, torch.tensor([9, 4, 7]))
        assert set(crews) == {1, 2}
        alone = decoder(noisy[1:2, : 4 * 300], hidden[1:2, :, :4], level[1:2])
        with FlopCounterMode(display=False) as both:
            watched = decoder(noisy, hidden, level, torch.tensor([9, 4, 7]))
        torch.set_num_threads(3)  # more than there are rows of like length, and than most operations have portions
        shared = decoder(noisy, hidden, level, torch.tensor([9, 4, 7]))
        torch.set_num_threads(1)
        with FlopCounterMode(display=False) as one:
            in_order = decoder(noisy, hidden, level, torch.tensor([9, 4, 7]))
        torch.set_num_threads(2)
    assert torch.equal(batch[1:2, : 4 * 300], alone)
    assert torch.equal(batch, in_order)
    assert torch.equal(shared, in_order)
    assert (watched - in_order).norm() <= 2e-6 * in_order.norm()
    assert both.get_total_flops() == one.get_total_flops()


def test_gradients_of_several_cores_are_those_of_one(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the order of sums; and PyTorch has its threads again behind them."""
    for module, name in ((rows, "FEWEST_CHANNELS"), (winograd, "_FEWEST_CHANNELS"), (winograd, "_FEWEST_WINDOWS")):
        monkeypatch.setattr(module, name, 1)
    decoder = WaveGrad2Network(NARROW["base"]).decoder.double()
    noisy, hidden, level = inputs(NARROW["base"], rows=3)
    found = []
    for threads in (2, 1):
        torch.set_num_threads(threads)
        loss = decoder(noisy.double(), hidden.double(), level, torch.tensor([9, 4, 7])).square().mean()
        assert torch.get_num_threads() == threads
        found.append(torch.autograd.grad(loss, list(decoder.parameters())))
        assert torch.get_num_threads() == threads
        assert parallel.size() == 1
    torch.set_num_threads(2)
    for several, one in zip(*found, strict=True):
        torch.testing.assert_close(several, one, rtol=1e-10, atol=1e-14)


def test_what_is_not_trained_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of biases alone, which is what RL trains by default, is the same and takes fewer products."""
    for module, name in ((rows, "FEWEST_CHANNELS"), (winograd, "_FEWEST_CHANNELS"), (winograd, "_FEWEST_WINDOWS")):
        monkeypatch.setattr(module, name, 1)
    decoder = WaveGrad2Network(NARROW["base"]).decoder.double()
    noisy, hidden, level = inputs(NARROW["base"])
    biases = {name: p for name, p in decoder.named_parameters() if name.endswith("bias")}
    found, flops = [], []
    for trained in (decoder.parameters(), biases.values()):
        decoder.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_()
        loss = decoder(noisy.double(), hidden.double(), level).square().mean()
        with FlopCounterMode(display=False) as backward:
            found.append(torch.autograd.grad(loss, [p for p in decoder.parameters() if p.requires_grad]))
        flops.append(backward.get_total_flops())
    among_all = dict(zip((name for name, _ in decoder.named_parameters()), found[0], strict=True))
    for name, alone in zip(biases, found[1], strict=True):
        torch.testing.assert_close(alone, among_all[name], rtol=1e-12, atol=1e-15)
    assert flops[1] < 0.6 * flops[0]


def test_every_core_takes_a_piece() -> None:
    """Also where there are fewer pieces than cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    met = Barrier(2, timeout=30)  # broken unless two work at once
    try:
        with torch.no_grad(), parallel.pool():
            parallel.each(lambda piece: met.wait(), [(0,), (1,)])
    finally:
        torch.set_num_threads(before)
    assert not met.broken


def test_what_goes_wrong_in_a_tile_is_heard(two_threads: None) -> None:
    def work(begin: int, end: int, first: int, last: int) -> None:
        assert torch.get_num_threads() == 1
        assert not torch.is_grad_enabled()
        done.append(begin)
        assert parallel.size() == (2 if only else 1)
        if begin == 5:
            raise ArithmeticError("tile five")

    done, only = list[int](), False
    with torch.no_grad(), pytest.raises(ArithmeticError, match="tile five"), parallel.pool():
        parallel.each(work, [(i, 0, 0, 0) for i in range(8)])
    assert 5 in done
    done.clear()
    with torch.no_grad(), parallel.pool():
        parallel.each(work, [(i, 0, 0, 0) for i in (3, 1, 2)])
        assert sorted(done) == [1, 2, 3]
        only = True  # a single piece: whoever has it may share it
        parallel.each(work, [(7, 0, 0, 0)])


def test_the_denoiser_is_one_graph() -> None:
    """Nothing in it makes a compiler stop and start again; without Inductor, which takes its time."""
    shape = {"up_channels": (12, 8, 4), "down_channels": (4, 8), "factors": (5, 4), "dilations": ((1, 2, 4, 8),) * 2}
    config = NARROW["mini"].model_copy(update={**shape, "encoder_channels": 12})
    decoder = WaveGrad2Network(config, init=False).decoder
    given = (*inputs(config, frames=8), torch.tensor([8, 3]))
    traced = torch.compile(decoder, backend="eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(traced(*given), decoder(*given))


@pytest.mark.parametrize("dilation", [1, 2, 8])
@pytest.mark.parametrize("length", [1, 70, 131, 4000])
def test_winograd_equals_a_convolution(dilation: int, length: int) -> None:
    x, weight, bias = torch.randn(length, 5), torch.randn(7, 5, 3), torch.randn(7)
    how = winograd.Prepared(winograd.Filter([weight]), dilation, False)
    [out] = winograd.Convolution.apply(x, None, None, None, weight, bias, how)
    expected = F.conv1d(x.t()[None], weight, bias, padding=dilation, dilation=dilation)[0].t()
    assert torch.allclose(out, expected, atol=3e-5)


@pytest.mark.parametrize(
    ("kind", "dilation"),
    [
        ("plain", 1),
        ("plain", 4),
        ("activated", 1),
        ("activated", 4),
        ("modulated", 1),
        ("modulated", 4),
        ("positioned", 1),
    ],
)
def test_winograd_s_gradients_are_a_convolution_s(kind: str, dilation: int, two_threads: None) -> None:
    """In float64, of every argument, where windows and portions do not divide the row."""
    generator = torch.Generator().manual_seed(0)

    def given(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    x, weight, bias, residual = given(4001, 5), given(6, 5, 3), given(6), given(4001, 6)
    scale = given(4001, 5) if kind == "modulated" else None
    shift = {"modulated": (4001, 5), "positioned": (1, 5)}.get(kind)
    moved = None if shift is None else given(*shift)
    parts = 2 if kind == "positioned" else 1
    how = winograd.Prepared(winograd.Filter([weight]), dilation, kind != "plain", parts)
    arguments = [part for part in (x, scale, moved, weight, bias) if part is not None]
    found = torch.cat(
        winograd.Convolution.apply(x, scale, moved, None if parts == 2 else residual, weight, bias, how), 1
    )
    inner = x if scale is None else scale * x + moved
    inner = inner if kind == "plain" else F.leaky_relu(inner, 0.2)
    inner = inner + moved if kind == "positioned" else inner
    expected = F.conv1d(inner.t()[None], weight, bias, padding=dilation, dilation=dilation)[0].t()
    if parts == 1:
        expected, arguments = expected + residual, [*arguments, residual]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    direction = torch.randn(4001, 6, generator=generator, dtype=torch.float64)
    of_found, of_expected = (torch.autograd.grad((out * direction).sum(), arguments) for out in (found, expected))
    for ours, theirs in zip(of_found, of_expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_without_numba_the_denoiser_is_the_same() -> None:
    """Some Python or processor that numba is not for: everything runs, the plain way, and says so."""
    code = """
import sys, warnings
sys.modules["numba"] = None
import torch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from rlzoo_wavegrad2.network import PRESETS, WaveGrad2Network
assert [str(w.message) for w in caught if "numba" in str(w.message)], caught
torch.manual_seed(0)
decoder = WaveGrad2Network(PRESETS["mini"]).decoder
hidden = torch.ones(1, decoder.ublock_preconv.conv1d.in_channels, 20)
with torch.no_grad():
    out = decoder(torch.linspace(-1, 1, 1600)[None], hidden, torch.tensor([0.5]))
print(out.double().norm().item())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    torch.manual_seed(0)
    decoder = WaveGrad2Network(PRESETS["mini"]).decoder
    hidden = torch.ones(1, decoder.ublock_preconv.conv1d.in_channels, 20)
    with torch.no_grad():
        out = decoder(torch.linspace(-1, 1, 1600)[None], hidden, torch.tensor([0.5]))
    assert float(found.stdout) == pytest.approx(out.double().norm().item(), rel=1e-5)


def test_prepared_filters_follow_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "FEWEST_CHANNELS", 1)
    monkeypatch.setattr(winograd, "_FEWEST_CHANNELS", 1)
    monkeypatch.setattr(winograd, "_FEWEST_WINDOWS", 1)
    config = NARROW["base"]
    decoder, args = WaveGrad2Network(config).decoder, inputs(config)
    with torch.no_grad():
        before = decoder(*args)
        for parameter in decoder.parameters():
            parameter.mul_(1.1)
        trained = decoder(*args)
        swapped = {key: value / 1.1 for key, value in decoder.state_dict().items()}
        plain = denoise(decoder.state_dict(), config, *args)
        back = torch.func.functional_call(decoder, swapped, args)
    assert (trained - plain).norm() <= 1e-4 * plain.norm()
    assert (back - before).norm() <= 1e-4 * before.norm()
    assert (trained - before).norm() >= 0.1 * before.norm()


@pytest.mark.parametrize("name", sorted(NARROW))
def test_a_row_does_not_see_its_padding(name: str) -> None:
    config = NARROW[name]
    decoder = WaveGrad2Network(config).decoder.eval()
    noisy, hidden, level = inputs(config)
    # With gradients, for without them a CPU computes rows one by one.
    batch = decoder(noisy, hidden, level, torch.tensor([9, 5]))
    alone = decoder(noisy[1:, : 5 * config.hop], hidden[1:, :, :5], level[1:])
    assert torch.allclose(batch[1, : 5 * config.hop], alone[0], atol=2e-5)
    assert not batch[1, 5 * config.hop :].any()


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
@pytest.mark.parametrize("kernel", [1, 3])
def test_polyphase_upsampling_equals_interpolation_and_convolution(factor: int, kernel: int) -> None:
    x, weight, bias = torch.randn(2, 6, 11), torch.randn(7, 6, kernel), torch.randn(7)
    raised = F.interpolate(x, scale_factor=factor, mode="linear", align_corners=False)
    assert torch.allclose(upsample(x, factor), raised, atol=1e-6)
    expected = F.conv1d(raised, weight, bias, padding=kernel // 2)
    assert torch.allclose(upsample_convolve(x, weight, bias, factor), expected, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
def test_downsampling_equals_interpolation(factor: int) -> None:
    x = torch.randn(2, 3, 12 * factor)
    expected = F.interpolate(x, scale_factor=1 / factor, mode="linear", align_corners=False)
    assert torch.allclose(downsample(x, factor), expected, atol=1e-6)


def test_modulation_gradient_is_right() -> None:
    args = [torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(modulate, args)


def test_lstm_equals_a_packed_one() -> None:
    lstm = nn.LSTM(5, 4, 2, batch_first=True, bidirectional=True)
    x, lengths = torch.randn(3, 7, 5), torch.tensor([7, 2, 5])
    packed, _ = lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    expected, _ = pad_packed_sequence(packed, batch_first=True, total_length=7)
    assert torch.allclose(run_lstm(lstm, x, lengths), expected, atol=1e-6)


def test_gaussian_upsampling_of_narrow_ranges_repeats_each_phoneme() -> None:
    hidden = torch.eye(3)[None]  # one-hot phonemes
    frames, lengths = torch.tensor([[2.0, 3.0, 1.0]]), torch.tensor([3])
    out = gaussian_upsampling(hidden, frames, torch.full((1, 3), 0.45), lengths)
    assert out.shape == (1, 3, 6)
    # Centres lie at 1, 3.5 and 5.5 and frames at 0, 1 ... 5 (not t + 0.5): each frame takes the nearest centre.
    assert out[0].argmax(0).tolist() == [0, 0, 0, 1, 1, 2]
    inside = out[0].sum(0)
    assert torch.allclose(inside, torch.ones(6), atol=1e-3)


def test_encoder_rows_do_not_see_their_padding() -> None:
    network = WaveGrad2Network(NARROW["base"]).eval()
    ids, lengths = torch.randint(64, 147, (2, 8)), torch.tensor([8, 5])
    with torch.no_grad():
        batch = network.encode(ids, lengths)
        alone = network.encode(ids[1:, :5], lengths[1:])
    assert torch.allclose(batch[1, :5], alone[0], atol=1e-6)


def test_batch_norm_statistics_leave_padding_out() -> None:
    network = WaveGrad2Network(NARROW["base"]).train()
    ids, lengths = torch.randint(64, 147, (2, 8)), torch.tensor([8, 5])
    longer = F.pad(ids, (0, 6), value=70)
    network.encoder(ids, lengths)
    first = network.encoder.cnn[0][1].running_mean.clone()
    fresh = WaveGrad2Network(NARROW["base"]).train()
    fresh.load_state_dict({k: v for k, v in network.state_dict().items()})
    for norm in (conv[1] for conv in fresh.encoder.cnn):
        norm.reset_running_stats()
    fresh.encoder(longer, lengths)
    assert torch.allclose(first, fresh.encoder.cnn[0][1].running_mean, atol=1e-6)
