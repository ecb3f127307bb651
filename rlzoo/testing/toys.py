"""Two tiny policies, a reward and a prompt set with a known optimum.

Each toy's network is affine in the state, with its own gain and bias at every step of the default schedule, so a
rollout is a linear-Gaussian chain: expected reward, KL and the best reachable objective have closed forms
(`rlzoo.testing.closed_form`). Prompts choose a mode and a length, so padding is part of every test. The toys are
trained on recordings when they are built, in about half a second, the same way every time.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from rlzoo.core.policy import GaussianDiffusionPolicy, Policy, RectifiedFlowPolicy
from rlzoo.core.prompts import PromptSet
from rlzoo.core.reward import Reward
from rlzoo.core.types import Batch, Crop, Media, Prompt, Samples, Schedule, Scores
from rlzoo.errors import ConfigError
from rlzoo.functional import length_mask, masked_mean
from rlzoo.testing.specs import ToyPolicyOptions, ToyPromptOptions, ToyRewardOptions

MODES = 4
WIDTH = 4  # longest state
SPREAD = 0.5  # std of the recordings around their mode
MEDIA = Media("vector")


def mode_of(prompt: Prompt) -> int:
    """Index, below `MODES`, of the mean of a prompt's recordings."""
    return zlib.crc32(prompt.text.encode()) % MODES


def length_of(prompt: Prompt) -> int:
    """Number of elements of a prompt's state, 2 to `WIDTH`."""
    return 2 + len(prompt.text) % (WIDTH - 1)


def mode_means() -> Tensor:
    """(MODES, WIDTH): the means of the recordings, all in [-1, 0.5], so that a reward at 1 is never met by chance."""
    return torch.rand(MODES, WIDTH, generator=torch.Generator().manual_seed(7)) * 1.5 - 1.0


class _ToyPolicy(Policy):
    """Shared base of both toys: conditioning, and a network that is affine in x with a table over times."""

    media = MEDIA
    _knots: Tensor

    def _build(self, options: ToyPolicyOptions) -> None:
        nn.Module.__init__(self)
        self.options = options
        knots = self.schedule(options.num_steps).times[:-1].flip(0)
        self.register_buffer("_knots", knots, persistent=False)  # (knots,) float64, increasing
        self.gain = nn.Parameter(torch.zeros(len(knots)))
        self.bias = nn.Parameter(torch.zeros(len(knots), MODES, WIDTH))
        self.load_state_dict(_pretrained(type(self), options) if options.pretrain_steps else self.state_dict())

    def condition(self, prompts: Sequence[Prompt]) -> Batch:
        lengths = torch.tensor([length_of(prompt) for prompt in prompts], device=self.gain.device)
        modes = torch.tensor([mode_of(prompt) for prompt in prompts], device=self.gain.device)
        # The mask is stored at its full width: rows taken from a batch then keep the width of their states.
        return Batch({"mode": modes, "length": lengths, "mask": length_mask(lengths, int(lengths.max()))})

    def state_shape(self, cond: Batch) -> tuple[int, ...]:
        return tuple(cond.get("mask").shape[1:])

    def lengths(self, cond: Batch) -> Tensor:
        return cond.get("length")

    def mask(self, cond: Batch) -> Tensor | None:
        return cond.get("mask")

    def trim(self, cond: Batch) -> Batch:
        longest = int(cond.get("length").max())
        return Batch({**cond.tensors, "mask": cond.get("mask")[:, :longest]})

    def frames(self, cond: Batch) -> Tensor:
        """A frame is an element."""
        return cond.get("length")

    def crop(self, cond: Batch, first: Tensor, count: Tensor) -> tuple[Batch, Crop]:
        """An element depends on none of its neighbours, so a crop is its window."""
        crop = {"mode": cond.get("mode"), "length": count, "first": first}
        return Batch(crop | {"mask": length_mask(count, int(count.max()))}), Crop(first, count)

    def forward(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        """Linear interpolation of gain and bias between the knots; constant outside."""
        knots = self._knots.to(t)
        right = torch.searchsorted(knots, t.contiguous()).clamp(1, len(knots) - 1)
        share = ((t - knots[right - 1]) / (knots[right] - knots[right - 1])).clamp(0, 1)
        rows = torch.arange(len(x_t), device=x_t.device)
        place = torch.arange(x_t.shape[-1], device=x_t.device).expand(len(x_t), -1)
        if "first" in cond.tensors:
            place = (place + cond.get("first")[:, None]).clamp(max=WIDTH - 1)
        bias = self.bias[:, cond.get("mode")[:, None], place].transpose(0, 1)  # (N, knots, D)
        gain_N = torch.lerp(self.gain[right - 1], self.gain[right], share.to(self.gain))
        bias_ND = torch.lerp(bias[rows, right - 1], bias[rows, right], share.to(self.gain)[:, None])
        return (gain_N[:, None] * x_t + bias_ND) * cond.get("mask")

    def predict(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        """`forward` in the state's own precision: a toy cast to float64 is exact to float64."""
        output: Tensor = self(x_t, t, cond)
        return output

    def _steps(self, num_steps: int | None) -> int:
        steps = self.options.num_steps if num_steps is None else num_steps
        if steps < 2:
            raise ConfigError(f"a toy cannot sample in {steps} step(s)", "set rollout.num_steps to at least 2")
        return steps


class GaussianToy(_ToyPolicy, GaussianDiffusionPolicy):
    """Gaussian diffusion over vectors of 2 to 4 elements; see the module's docstring."""

    def __init__(self, options: ToyPolicyOptions) -> None:
        self._build(options)

    def schedule(self, num_steps: int | None = None) -> Schedule:
        """K + 1 noise levels sin(u), u evenly from 0.45 pi to 0; the last step has no noise."""
        steps = self._steps(num_steps)
        times = torch.sin(torch.linspace(0.45 * math.pi, 0.0, steps + 1, dtype=torch.float64))
        return Schedule(times, torch.arange(steps) < steps - 1)

    def sample_times(self, uniform: Tensor) -> Tensor:
        """Evenly between the lowest and the highest noise level that the network is asked about."""
        low, high = self._knots[0], self._knots[-1]
        return (low + (high - low) * uniform.to(self._knots)).to(uniform)


class FlowToy(_ToyPolicy, RectifiedFlowPolicy):
    """Rectified flow over vectors of 2 to 4 elements; see the module's docstring."""

    def __init__(self, options: ToyPolicyOptions) -> None:
        self._build(options)

    def schedule(self, num_steps: int | None = None) -> Schedule:
        """K + 1 times from 1 to 0, evenly; the last step has no noise."""
        steps = self._steps(num_steps)
        return Schedule(torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64), torch.arange(steps) < steps - 1)


@lru_cache(maxsize=16)
def _pretrained(kind: type[_ToyPolicy], options: ToyPolicyOptions) -> dict[str, Tensor]:
    """Weights after `pretrain_steps` Adam steps on the denoising loss of fresh recordings."""
    policy = kind(options.model_copy(update={"pretrain_steps": 0}))
    generator = torch.Generator().manual_seed(options.seed)
    modes = torch.arange(MODES).repeat(64)
    cond = Batch({"mode": modes, "mask": torch.ones(len(modes), WIDTH, dtype=torch.bool)})
    means = mode_means()
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.pretrain_steps)
    for _ in range(options.pretrain_steps):
        x = means[modes] + SPREAD * torch.randn(len(modes), WIDTH, generator=generator)
        t = policy.sample_times(torch.rand(len(modes), generator=generator))
        noise = torch.randn(x.shape, generator=generator)
        optimizer.zero_grad()
        policy.denoising_loss(x, cond, t, noise).mean().backward()
        optimizer.step()
        decay.step()
    return {name: value.detach().clone() for name, value in policy.state_dict().items()}


class ToyReward(Reward[ToyRewardOptions]):
    """Mean over a sample's elements of slope x - curvature (x - target)^2."""

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """(N,) scores with a gradient; see `Reward.score`."""
        x, o = samples.data, self.options
        return Scores(
            masked_mean(o.slope * x - o.curvature * (x - o.target) ** 2, length_mask(samples.lengths, x.shape[-1]))
        )


class ToyPrompts(PromptSet):
    """Prompts `a`, `bb`, `ccc` ...: every mode and every length occurs. Recordings lie around each prompt's mode."""

    def __init__(self, options: ToyPromptOptions) -> None:
        self.options = options

    def _make(self, first: int, count: int) -> list[Prompt]:
        numbers = range(first, first + count)
        return [Prompt(id=f"toy-{n:03d}", text=chr(97 + n % 26) * (1 + n % 5)) for n in numbers]

    def train(self) -> list[Prompt]:
        """The training prompts."""
        return self._make(0, self.options.train)

    def heldout(self) -> list[Prompt]:
        """The held-out prompts."""
        return self._make(1000, self.options.heldout)

    def recordings(self, prompts: Sequence[Prompt], sample_rate: int | None = None) -> Samples:
        """One recording of each prompt, (N, longest), always the same for the same prompt."""
        lengths = torch.tensor([length_of(prompt) for prompt in prompts])
        data = torch.zeros(len(prompts), int(lengths.max()))
        for row, prompt in enumerate(prompts):
            generator = torch.Generator().manual_seed(zlib.crc32(prompt.id.encode()))
            noise = torch.randn(WIDTH, generator=generator)
            data[row, : lengths[row]] = (mode_means()[mode_of(prompt)] + SPREAD * noise)[: lengths[row]]
        return Samples(data, lengths, MEDIA)
