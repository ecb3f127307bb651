"""Training on random windows of each row instead of all of it.

A row of T frames is cut into ceil(T / size) windows of nearly equal lengths, and a window is drawn with a probability
in proportion to its length. The mean of any per-element quantity over the drawn window is then, on average, its mean
over the row, the edges included; a window of one length placed uniformly would count the edges too little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlzoo.core.policy import Policy, StepDistribution
from rlzoo.core.types import Batch, Crop, Schedule, Trajectory, Transitions
from rlzoo.functional import row_uniform


def draw_windows(seeds: Sequence[int | str], purpose: str, frames: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """N seeds, (N,) frames -> first frame and number of frames of each row's window, (N,) int64 on the CPU."""
    frames = frames.cpu()
    pieces = (frames + size - 1) // size
    # The window that a uniformly drawn frame lies in.
    frame = torch.minimum((row_uniform(seeds, purpose).double() * frames).long(), frames - 1)
    index = ((frame + 1) * pieces - 1) // frames
    first = frames * index // pieces
    return first, frames * (index + 1) // pieces - first


def crop(policy: Policy, purpose: str, seeds: Sequence[int | str], cond: Batch, size: int) -> tuple[Batch, Crop]:
    """Conditioning (N) -> that of one drawn window per row of at most `size` frames, and where states are to be cut."""
    frames = policy.frames(cond)
    first, count = draw_windows(seeds, purpose, frames, size)
    return policy.crop(cond, first.to(frames), count.to(frames))


def crop_states(
    policy: Policy, purpose: str, seeds: Sequence[int | str], cond: Batch, states: Sequence[Tensor], size: int
) -> tuple[Batch, list[Tensor]]:
    """Implement `TrainContext.crop`; nothing is cut if `size` is 0."""
    if not size:
        return cond, list(states)
    cond, place = crop(policy, purpose, seeds, cond, size)
    return cond, [place.cut(state) for state in states]


def _of_transitions(
    policy: Policy, seeds: Sequence[int], k: Sequence[int], cond: Batch, size: int
) -> tuple[Batch, Crop]:
    keys = [f"{seed}/{step}" for seed, step in zip(seeds, k, strict=True)]
    return crop(policy, "window", keys, cond, size)


def transitions(policy: Policy, trajectory: Trajectory, row: Tensor, k: Tensor, size: int) -> Transitions:
    """The transitions (row, k), both (M,), without padding that none needs, or, where `size` is not 0, as windows."""
    before, after = trajectory.state(k, row).detach(), trajectory.state(k + 1, row).detach()
    cond, log_probs = trajectory.cond[row], trajectory.window_log_probs
    if not size or log_probs is None:
        cond = policy.trim(cond)
        (*_, width) = policy.state_shape(cond)
        return Transitions(row, k, before[..., :width], after[..., :width], cond, trajectory.log_probs[k, row])
    cond, place = _of_transitions(policy, trajectory.seeds_of(row), k.tolist(), cond, size)
    return Transitions(row, k, place.cut(before), place.cut(after), cond, log_probs[k, row], place)


@dataclass(frozen=True)
class Windows:
    """The windows of a rollout's rows at one step, drawn before it begins: then no step waits for a GPU's numbers."""

    cond: Batch
    place: Crop

    def step(
        self, policy: Policy, x: Tensor, k: Tensor, cond: Batch, schedule: Schedule
    ) -> tuple[StepDistribution, StepDistribution]:
        """p(x[k+1] | x[k]) of whole rows (N, *S), and the same of each row's window.

        The window's comes from the prediction for the whole row: no second network evaluation.
        """
        prediction = policy.predict(x, schedule.to(x.device).times[k].to(x.dtype), cond)
        return (
            policy.transition(x, k, cond, schedule, prediction),
            policy.transition(self.place.cut(x), k, self.cond, schedule, self.place.cut(prediction)),
        )


def windows_of(policy: Policy, cond: Batch, seeds: Sequence[int], steps: int, size: int) -> list[Windows]:
    """Those of all K steps."""
    drawn = [Windows(*_of_transitions(policy, seeds, [k] * len(seeds), cond, size)) for k in range(steps)]
    for window in drawn:
        assert window.place.size  # asked for here, not in the loop
    return drawn
