"""The policy interface, and the two families of maths behind it: Gaussian diffusion and rectified flow.

A policy is a K-step Markov chain from noise to a sample. `transition` gives p(x[k+1] | x[k], cond) as a distribution,
so that sampling, log-probability, ratio and KL all come from one piece of code.

Noise is an argument everywhere, never drawn inside: the engine draws it per row, which makes a sample independent of
its batch mates, of the batch size and of the number of processes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from rlzoo.core.types import Batch, Crop, Media, Prompt, Reduction, Samples, Schedule
from rlzoo.errors import ConfigError, DataError


class StepDistribution(Protocol):
    """p(x[k+1] | x[k], cond) for N rows."""

    @property
    def mode(self) -> Tensor:
        """(N, *S), taken at deterministic steps."""
        ...

    def rsample(self, noise: Tensor) -> Tensor:
        """Standard normal noise (N, *S) -> a differentiable draw (N, *S)."""
        ...

    def log_prob(self, x: Tensor, reduction: Reduction = "mean") -> Tensor:
        """(N, *S) -> (N,), over the elements that are not padding, in nats; "sum" is the true log-density."""
        ...

    def kl(self, other: StepDistribution, reduction: Reduction = "mean") -> Tensor:
        """KL(self || other), (N,), closed form."""
        ...


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """(N,) valid lengths -> (N, size) bool, true before each row's length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def masked_reduce(x: Tensor, mask: Tensor | None, reduction: Reduction) -> Tensor:
    """(N, *S) -> (N,): mean or sum over the elements where `mask` (N, *S) is true; None counts all.

    Added up in float64: in float32 the last bit depends on how far a row was padded, and ratios would be 1 only nearly.
    """
    dims = tuple(range(1, x.dim()))
    if mask is not None:
        x = torch.where(mask, x, 0.0)
    total = x.sum(dims, dtype=torch.float64)
    if reduction == "mean":
        total = total / (math.prod(x.shape[1:]) if mask is None else mask.sum(dims).clamp(min=1))
    return total.to(x.dtype)


@dataclass(frozen=True)
class Gaussian:
    """Diagonal Gaussian; always float32, whatever the network computed in.

    `mean` (N, *S); `std` (N,) or (N, *S), zero at deterministic steps, which have no density; `mask` (N, *S) or None.
    """

    mean: Tensor
    std: Tensor
    mask: Tensor | None = None

    @property
    def mode(self) -> Tensor:
        return self.mean

    def _std(self) -> Tensor:
        return self.std if self.std.dim() > 1 else self.std.view(-1, *([1] * (self.mean.dim() - 1)))

    def rsample(self, noise: Tensor) -> Tensor:
        x = torch.addcmul(self.mean, self._std(), noise)
        return x if self.mask is None else x * self.mask

    def log_prob(self, x: Tensor, reduction: Reduction = "mean") -> Tensor:
        std = self._std()
        density = -0.5 * ((x - self.mean) / std) ** 2 - std.log() - 0.5 * math.log(2 * math.pi)
        return masked_reduce(density, self.mask, reduction)

    def kl(self, other: StepDistribution, reduction: Reduction = "mean") -> Tensor:
        if not isinstance(other, Gaussian):
            raise TypeError(f"no closed-form KL between Gaussian and {type(other).__name__}")
        p, q = self._std(), other._std()
        nats = (q / p).log() + (p**2 + (self.mean - other.mean) ** 2) / (2 * q**2) - 0.5
        return masked_reduce(nats.expand_as(self.mean), self.mask, reduction)


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """(N,) -> (N, 1, ..., 1) in `like`'s dtype and device, to broadcast over (N, *S)."""
    return values.to(like).view(-1, *([1] * (like.dim() - 1)))


class Policy(nn.Module, ABC):
    """A generative model seen as a K-step Markov chain. N rows, S one state's shape; see `rlzoo.core.types`.

    A subclass writes `condition`, `forward` and what its family leaves open. Rows are independent: nothing a method
    returns for a row may depend on the other rows or on padding.
    """

    media: Media
    loss_norm: Literal["l1", "l2"] = "l2"
    zero_shot: bool = False
    """True if prompts bring the voice they are spoken in: attributes `voice`, a recording, and `voice_text`."""
    rows_on_cores: bool = False
    """True if `forward` gives each row a core with `rlzoo.parallel.map_rows`, which sums gradients as row by row.
    Several rows are then trained at once on a CPU."""

    @abstractmethod
    def condition(self, prompts: Sequence[Prompt]) -> Batch:
        """B prompts -> B rows of conditioning on the policy's device."""

    @abstractmethod
    def state_shape(self, cond: Batch) -> tuple[int, ...]:
        """S, the padded shape of one state of this batch."""

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        """The network: noisy state (N, *S) at times t (N,) -> its raw output (N, *S) (noise, velocity ...)."""

    def predict(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        """One counted network evaluation per row: `forward`, in float32."""
        output: Tensor = self(x_t, t, cond)
        return output.float()

    @abstractmethod
    def schedule(self, num_steps: int | None = None) -> Schedule:
        """The K denoising steps of a rollout; None: the policy's default. ConfigError for a K it cannot do."""

    @abstractmethod
    def transition(
        self, x: Tensor, k: Tensor, cond: Batch, schedule: Schedule, prediction: Tensor | None = None
    ) -> StepDistribution:
        """p(x[k+1] | x[k], cond); x (N, *S), k (N,) int64, so that steps may be mixed.

        `prediction` (N, *S): what `predict` says at (x, schedule.times[k], cond), where the caller has it already.
        """

    @abstractmethod
    def noisy(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Forward process q(x_t | x): clean (N, *S), noise (N, *S), t (N,) -> (N, *S)."""

    @abstractmethod
    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Training target of `predict`, (N, *S)."""

    @abstractmethod
    def clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The clean state implied by a prediction at x_t, (N, *S)."""

    @abstractmethod
    def sample_times(self, uniform: Tensor) -> Tensor:
        """Uniform draws (N,) in [0, 1) -> training times t (N,)."""

    def decode(self, x: Tensor, cond: Batch) -> Samples:
        """Clean states (N, *S) -> what rewards see. Keeps the graph.

        Samples may have another shape and other lengths than the states, as audio has that is made of mel frames; their
        padded width follows from that of the states and not from the longest row, so that pieces of a batch fit.
        """
        return Samples(x, self.lengths(cond), self.media)

    def lengths(self, cond: Batch) -> Tensor:
        """(N,) int64: valid extent of the last axis of each row's state, not of its sample; default: all of it."""
        first = next(iter(cond.tensors.values()))
        return torch.full((len(cond),), self.state_shape(cond)[-1], dtype=torch.int64, device=first.device)

    def mask(self, cond: Batch) -> Tensor | None:
        """(N, *S) bool, false on padding, and on what the prompt gives and the policy only goes on with; None: no such.

        Noise, densities and losses count where it is true.
        """
        return None

    def trim(self, cond: Batch) -> Batch:
        """The same rows with no more padding than the longest of them needs; default: as they are.

        For rows of a longer batch. A policy that overrides this computes less on them.
        """
        return cond

    def frames(self, cond: Batch) -> Tensor:
        """(N,) int64: how many frames each row has, the unit of windows. For policies that offer `window`."""
        raise ConfigError(f"{type(self).__name__} has no windows", "set train.window_frames = 0")

    def crop(self, cond: Batch, first: Tensor, count: Tensor) -> tuple[Batch, Crop]:
        """Windows of `count` (N,) frames from frame `first` (N,): their conditioning, and where to cut the states.

        Whatever `transition`, `predict` and losses say of a crop inside its window is what they say of the whole row
        there; `mask` is true on the window alone. For policies that offer `window`.
        """
        raise ConfigError(f"{type(self).__name__} has no windows", "set train.window_frames = 0")

    def supervise(self, prompts: Sequence[Prompt], recordings: Samples) -> tuple[Tensor, Batch]:
        """Recordings of N prompts -> clean states (N, *S) and conditioning that is aligned with them.

        Default: for policies whose states are what they decode to and whose lengths follow from the prompt alone.
        """
        cond = self.condition(prompts)
        if recordings.lengths.tolist() != self.lengths(cond).tolist():
            raise DataError(
                f"{type(self).__name__} gives these prompts the lengths {self.lengths(cond).tolist()[:4]}, "
                f"their recordings have {recordings.lengths.tolist()[:4]}",
                "this policy does not align itself with recordings (`Policy.supervise`): learn its own samples instead",
            )
        return recordings.data.to(cond.tensors[next(iter(cond.tensors))].device), cond

    def export(self, path: Path) -> None:
        """Write the weights as a file that others read; ConfigError if the policy has no such format."""
        raise ConfigError(
            f"{type(self).__name__} writes no files for other programs",
            "name the run itself where rlzoo shall use it: --checkpoint RUN",
        )

    def error(self, prediction: Tensor, target: Tensor, cond: Batch) -> Tensor:
        """(N, *S) twice -> (N,): l1 or l2 distance per element, padding left out."""
        difference = prediction - target
        distance = difference.abs() if self.loss_norm == "l1" else difference**2
        return masked_reduce(distance, self.mask(cond), "mean")

    def denoising_loss(self, x: Tensor, cond: Batch, t: Tensor, noise: Tensor) -> Tensor:
        """(N,): how badly the policy denoises clean x (N, *S) at times t (N,) with this noise (N, *S).

        t and noise are arguments so that policy, reference and an old policy can be shown the same draw.
        """
        return self.error(self.predict(self.noisy(x, noise, t), t, cond), self.target(x, noise, t), cond)


class GaussianDiffusionPolicy(Policy):
    """Denoising diffusion (Ho et al., arXiv:2006.11239) whose network predicts the noise.

    Time is the noise level sigma = sqrt(1 - alpha_bar), in [0, 1]: 1 is pure noise, 0 is clean. Sigma and not
    alpha_bar, because near the clean end 1 - alpha_bar is 1e-6 and would drown in float32.
    """

    clip_clean: float | None = None
    """Clamp the implied clean state to +-this inside `transition`, as WaveGrad 2 does; its gradient is zero outside."""

    def noisy(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        sigma = per_row(t, x)
        return (1 - sigma**2).sqrt() * x + sigma * noise

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise

    def clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        sigma = per_row(t, x_t)
        # A level of exactly 1 holds no signal at all; any estimate is as good as any other, infinity is not one.
        return (x_t - sigma * prediction) / (1 - sigma**2).clamp(min=1e-8).sqrt()

    @staticmethod
    def posterior(sigma_t: Tensor, sigma_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Posterior q(x_s | x_t, x0): coefficients of x0 and x_t in its mean, and its std (Ho et al., Eq. 6-7)."""
        alpha_bar_t, alpha_bar_s = 1 - sigma_t**2, 1 - sigma_s**2
        alpha = alpha_bar_t / alpha_bar_s
        beta = 1 - alpha
        of_x0 = alpha_bar_s.sqrt() * beta / sigma_t**2
        return of_x0, alpha.sqrt() * (sigma_s / sigma_t) ** 2, beta.sqrt() * sigma_s / sigma_t

    def transition(
        self, x: Tensor, k: Tensor, cond: Batch, schedule: Schedule, prediction: Tensor | None = None
    ) -> Gaussian:
        """Posterior q(x_s | x_t, x0_hat) with variance beta_tilde (Ho et al., Eq. 6-7), coefficients in float64.

        Steps that the schedule makes deterministic are DDIM's with eta = 0 (arXiv:2010.02502, Eq. 12), which keep the
        marginals; the posterior's mean alone would lose its variance.
        """
        t, of_x0, of_x, std = self._coefficients(schedule.to(x.device), x.dtype)[:, k].unbind()
        x0 = self.clean(x, self.predict(x, t, cond) if prediction is None else prediction, t)
        if self.clip_clean is not None:
            x0 = x0.clamp(-self.clip_clean, self.clip_clean)
        mean = torch.addcmul(per_row(of_x, x) * x, per_row(of_x0, x), x0)
        return Gaussian(mean, std, self.mask(cond))

    def _coefficients(self, schedule: Schedule, dtype: torch.dtype) -> Tensor:
        """(4, K): level, what the mean takes of x0 and of x, std. Computed once for a schedule, in float64."""

        def compute() -> Tensor:
            sigma_t, sigma_s, random = schedule.times[:-1], schedule.times[1:], schedule.stochastic
            of_x0, of_x, std = self.posterior(sigma_t, sigma_s)
            ddim = (1 - sigma_s**2).sqrt() - (1 - sigma_t**2).sqrt() * sigma_s / sigma_t
            of_x0, of_x = torch.where(random, of_x0, ddim), torch.where(random, of_x, sigma_s / sigma_t)
            std = torch.where(random, std, torch.zeros_like(std))
            return torch.stack([sigma_t, of_x0, of_x, std]).to(dtype)

        return schedule.once((self.posterior, dtype), compute)


NoiseForm = Literal["flow", "constant", "cps"]


class FlowSteps:
    """The denoising steps of a rectified flow x_t = (1 - t) x + t noise; time t is in [0, 1], 1 is noise.

    With `noise_level` a > 0 the ODE becomes a chain whose steps have a density, but for the last. Steps that the
    schedule makes deterministic are the ODE's.
    """

    noise_level: float = 0.7
    noise_form: NoiseForm = "flow"
    """Flow-GRPO's a sqrt(t / (1 - t)) per unit of sqrt(time) (arXiv:2505.05470), the same a at all times as in
    DanceGRPO (arXiv:2505.07818, there 0.3), or Flow-CPS's exchange of the share sin(a pi / 2) of a state's noise for
    fresh noise (arXiv:2509.05952), which alone leaves it with just the noise of its time, however few the steps."""

    def flow_step(self, x: Tensor, v: Tensor, k: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """States (N, *S) before steps k (N,), velocities (N, *S) -> means (N, *S), standard deviations (N,).

        Coefficients in float64. `flow` and `constant` are Euler steps of the SDE with the ODE's marginals.
        """
        schedule = schedule.to(x.device)
        times, random = schedule.times, schedule.stochastic[k]
        t, s = times[k], times[k + 1]
        if self.noise_form == "cps":
            std = torch.where(random, s * math.sin(self.noise_level * math.pi / 2), torch.zeros_like(s))
            kept = (s**2 - std**2).clamp(min=0).sqrt()  # of the noise that is in x
            clean, noise = x - per_row(t, x) * v, x + per_row(1 - t, x) * v
            return per_row(1 - s, x) * clean + per_row(kept, x) * noise, std.to(x.dtype)
        dt = s - t  # negative: time runs towards the data
        # At t = 1 the diffusion coefficient is infinite; Flow-GRPO's code then has the next time in the denominator.
        left = 1 - torch.where(t < 1, t, times[1].expand_as(t))
        growth = (t / left).sqrt() if self.noise_form == "flow" else torch.ones_like(t)
        sigma = torch.where(random, self.noise_level * growth, torch.zeros_like(t))
        drift = sigma**2 / (2 * t)
        mean = x * per_row(1 + drift * dt, x) + v * per_row((1 + drift * (1 - t)) * dt, x)
        return mean, (sigma * (-dt).sqrt()).to(x.dtype)


class RectifiedFlowPolicy(FlowSteps, Policy):
    """Rectified flow whose network predicts the velocity noise - x (arXiv:2209.03003); its steps are `FlowSteps`."""

    def noisy(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        time = per_row(t, x)
        return (1 - time) * x + time * noise

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise - x

    def clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        return x_t - per_row(t, x_t) * prediction

    def sample_times(self, uniform: Tensor) -> Tensor:
        return uniform

    def transition(
        self, x: Tensor, k: Tensor, cond: Batch, schedule: Schedule, prediction: Tensor | None = None
    ) -> Gaussian:
        t = schedule.to(x.device).times[k].to(x.dtype)
        v = self.predict(x, t, cond) if prediction is None else prediction
        return Gaussian(*self.flow_step(x, v, k, schedule), self.mask(cond))


class RectifiedFlowForm(FlowSteps, GaussianDiffusionPolicy):
    """A Gaussian diffusion, run as a rectified flow with the same weights: `class Flow(RectifiedFlowForm, Diffusion)`.

    Both mix a clean state with noise, alpha x + sigma noise, so at the same ratio of noise to signal each is the other
    on another scale: t = sigma / (alpha + sigma), x_flow = x_diffusion / (alpha + sigma). The network is asked at
    x_diffusion and sigma and predicts what it always did; the velocity follows from the clean state that this implies.
    Without noise a step of one is exactly a step of the other (DDIM), whatever the times.

    A rollout begins at t = 1, from noise alone. Where the diffusion's schedule begins a little later, its network is
    asked at that level.
    """

    @staticmethod
    def noise_level_of(t: Tensor) -> tuple[Tensor, Tensor]:
        """Flow times (N,) -> the diffusion's levels sigma (N,), and what a flow's state is multiplied with (N,)."""
        size = (t**2 + (1 - t) ** 2).sqrt()
        return t / size, 1 / size

    def _as_diffusion(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        sigma, scale = self.noise_level_of(t)
        highest = float(super().schedule().times[0])  # type: ignore[safe-super]  # of the class behind this one
        return x_t * per_row(scale, x_t), sigma.clamp(max=highest)

    def predict(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        x, sigma = self._as_diffusion(x_t, t)
        return super().predict(x, sigma, cond)

    def schedule(self, num_steps: int | None = None) -> Schedule:
        """The diffusion's noise levels as times, but for the first, which is 1."""
        found = super().schedule(num_steps)  # type: ignore[safe-super]
        times = found.times / (found.times + (1 - found.times**2).sqrt())
        times[0] = 1.0
        return Schedule(times, found.stochastic)

    def noisy(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        time = per_row(t, x)
        return (1 - time) * x + time * noise

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return super().target(x, noise, self.noise_level_of(t)[0])

    def clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        x, sigma = self._as_diffusion(x_t, t)
        return super().clean(x, prediction, sigma)

    def sample_times(self, uniform: Tensor) -> Tensor:
        sigma = super().sample_times(uniform)  # type: ignore[safe-super]
        return sigma / (sigma + (1 - sigma**2).clamp(min=0).sqrt())

    def transition(
        self, x: Tensor, k: Tensor, cond: Batch, schedule: Schedule, prediction: Tensor | None = None
    ) -> Gaussian:
        t = schedule.to(x.device).times[k].to(x.dtype)
        x0 = self.clean(x, self.predict(x, t, cond) if prediction is None else prediction, t)
        if self.clip_clean is not None:
            x0 = x0.clamp(-self.clip_clean, self.clip_clean)
        return Gaussian(*self.flow_step(x, (x - x0) / per_row(t, x), k, schedule), self.mask(cond))
