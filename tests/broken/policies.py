"""Policies with one bug each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlzoo.api import Batch, Gaussian, Samples, Schedule
from rlzoo.functional import length_mask
from rlzoo.testing.specs import ToyPolicyOptions
from rlzoo.testing.toys import GaussianToy


class Toy(GaussianToy):
    """A sound toy that is made without arguments."""

    def __init__(self) -> None:
        super().__init__(ToyPolicyOptions(pretrain_steps=0))
        with torch.no_grad():
            self.gain.fill_(0.9)
            self.bias.fill_(0.2)


class NoiseInside(Toy):
    """Draws noise inside the network."""

    def forward(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        return super().forward(x_t, t, cond) + 0.01 * torch.randn_like(x_t)


class TrainEvalMismatch(Toy):
    """Drops half of the outputs when a gradient is wanted, as a dropout left on in training does."""

    def forward(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        output = super().forward(x_t, t, cond)
        return output * (torch.arange(x_t.shape[-1]) % 2) if torch.is_grad_enabled() else output


class UnmaskedPadding(Toy):
    """Averages losses and log-probabilities over padding too."""

    def mask(self, cond: Batch) -> Tensor | None:
        return None


class BatchStatistics(Toy):
    """Subtracts the mean over the batch, as batch normalisation does."""

    def forward(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        output = super().forward(x_t, t, cond)
        return (output - 0.1 * output[:1]) * cond.get("mask")


class NoGradient(Toy):
    """Predicts under no_grad."""

    def predict(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        with torch.no_grad():
            return super().predict(x_t, t, cond)


class DensityWithoutNoise(Toy):
    """Claims a density for the last step, which has no noise."""

    def schedule(self, num_steps: int | None = None) -> Schedule:
        schedule = super().schedule(num_steps)
        return Schedule(schedule.times, torch.ones_like(schedule.stochastic))


@dataclass(frozen=True)
class VarianceForStd(Gaussian):
    """Divides by the standard deviation once instead of twice."""

    def log_prob(self, x: Tensor, reduction: Any = "mean") -> Tensor:
        return Gaussian(self.mean, self.std.sqrt(), self.mask).log_prob(x, reduction)


class WrongDensity(Toy):
    """Its log_prob is not that of its draws."""

    def transition(self, *args: Any, **options: Any) -> Gaussian:
        step = super().transition(*args, **options)
        return VarianceForStd(step.mean, step.std, step.mask)


@dataclass(frozen=True)
class DetachedKL(Gaussian):
    """Computes the KL without a gradient."""

    def kl(self, other: Any, reduction: Any = "mean") -> Tensor:
        with torch.no_grad():
            return super().kl(other, reduction)


class KLInsideNoGrad(Toy):
    """Its KL has no gradient."""

    def transition(self, *args: Any, **options: Any) -> Gaussian:
        step = super().transition(*args, **options)
        return DetachedKL(step.mean, step.std, step.mask)


class SharedCopies(Toy):
    """A deep copy is the policy itself."""

    def __deepcopy__(self, memo: Any) -> SharedCopies:
        return self


class NoisyTail(Toy):
    """Leaves something beyond a sample's length."""

    def decode(self, x: Tensor, cond: Batch) -> Samples:
        return Samples(x + 0.1, self.lengths(cond), self.media)


class TurnedTarget(Toy):
    """Trains towards the noise with its sign turned."""

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return -noise


class NoHalo(Toy):
    """An element looks at its neighbour, and crops hold none."""

    def forward(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        neighbour = torch.nn.functional.pad(x_t, (1, 0))[..., :-1]
        return (super().forward(x_t, t, cond) + 0.1 * neighbour) * cond.get("mask")


class Doubling(Toy):
    """Sound: it says every element of a state twice, as a vocoder makes many samples of one mel frame."""

    def decode(self, x: Tensor, cond: Batch) -> Samples:
        return Samples(x.repeat_interleave(2, -1), 2 * self.lengths(cond), self.media)


class DoublingForgotten(Doubling):
    """Its samples have the lengths of its states."""

    def decode(self, x: Tensor, cond: Batch) -> Samples:
        return Samples(super().decode(x, cond).data, self.lengths(cond), self.media)


class DoublingPadding(Doubling):
    """Takes all of the padded width for valid."""

    def decode(self, x: Tensor, cond: Batch) -> Samples:
        data = super().decode(x, cond).data
        return Samples(data, torch.full((len(data),), data.shape[-1]), self.media)


class DoublingTooFar(Doubling):
    """Its lengths end beyond its samples."""

    def decode(self, x: Tensor, cond: Batch) -> Samples:
        return Samples(super().decode(x, cond).data, 3 * self.lengths(cond), self.media)


class DoublingOffset(Doubling):
    """Subtracts a mean that counts padding."""

    def decode(self, x: Tensor, cond: Batch) -> Samples:
        return super().decode((x - x.mean(-1, keepdim=True)) * cond.get("mask"), cond)


class DoublingCut(Doubling):
    """Cuts to the longest row, so that pieces of a batch have widths of their own."""

    def decode(self, x: Tensor, cond: Batch) -> Samples:
        samples = super().decode(x, cond)
        return Samples(samples.data[..., : int(samples.lengths.max())], samples.lengths, self.media)


class DoublingMask(Doubling):
    """Its mask ends one element before its states do."""

    def mask(self, cond: Batch) -> Tensor | None:
        return length_mask(self.lengths(cond) - 1, cond.get("mask").shape[1])


class ShortSamples(Toy):
    """Says of samples in the shape of its states that they are one element shorter."""

    def decode(self, x: Tensor, cond: Batch) -> Samples:
        lengths = self.lengths(cond) - 1
        return Samples(x * length_mask(lengths, x.shape[-1]), lengths, self.media)


class TrimsTooMuch(Toy):
    """Trims rows to what the shortest of any batch has."""

    def trim(self, cond: Batch) -> Batch:
        return Batch({**cond.tensors, "mask": cond.get("mask")[:, :2]})


LENGTHS = {
    ShortSamples: "decode and lengths disagree",
    DoublingForgotten: "not zero beyond its length",
    DoublingPadding: "length depends on its batch mates",
    DoublingTooFar: "padded to 8",
    DoublingOffset: "beside others a sample is",
    DoublingCut: "cuts to the longest row",
    DoublingMask: "mask and lengths disagree",
}
"""What `samples_are_valid` says of policies that are wrong about lengths."""

BROKEN = {
    "same_seed_same_rollout": NoiseInside,
    "ratio_starts_at_one": TrainEvalMismatch,
    "ignores_padding": UnmaskedPadding,
    "rows_are_independent": BatchStatistics,
    "gradient_reaches_parameters": NoGradient,
    "steps_are_sound": DensityWithoutNoise,
    "log_prob_is_the_samplers": WrongDensity,
    "kl_has_a_gradient": KLInsideNoGrad,
    "copies_are_independent": SharedCopies,
    "samples_are_valid": NoisyTail,
    "target_leads_back": TurnedTarget,
    "windows_are_exact": NoHalo,
    "trim_cuts_padding": TrimsTooMuch,
}
