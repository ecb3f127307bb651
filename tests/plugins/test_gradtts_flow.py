"""The voice as a rectified flow: the same weights, the same samples without noise, steps of the published noise."""

from __future__ import annotations

import pytest
import torch
from rlzoo_gradtts import GradTTSOptions
from rlzoo_gradtts.policy import GradTTSFlowPolicy, GradTTSPolicy

from rlzoo.api import Prompt, RectifiedFlowForm, Schedule
from rlzoo.functional import frozen_copy

PROMPTS = [Prompt("a", "Yes.")]


@pytest.fixture(scope="module")
def voices():
    flow = GradTTSPolicy(GradTTSOptions(process="flow", noise_form="constant", noise_level=0.3))
    return GradTTSPolicy(GradTTSOptions()), flow


def test_the_run_file_chooses_process_and_noise(voices) -> None:
    diffusion, flow = voices
    assert not isinstance(diffusion, RectifiedFlowForm)
    assert type(flow) is GradTTSFlowPolicy
    assert (flow.noise_form, flow.noise_level) == ("constant", 0.3)
    assert type(frozen_copy(flow)) is GradTTSFlowPolicy
    assert flow.state_dict().keys() == diffusion.state_dict().keys()


@torch.no_grad()
@pytest.mark.parametrize("steps", [4, 24])
def test_without_noise_both_processes_say_the_same(voices, steps: int) -> None:
    """From one state at the diffusion's own levels, whatever their number."""
    diffusion, flow = voices
    cond = diffusion.condition(PROMPTS)
    levels = diffusion.schedule(steps).times
    size, still = levels + (1 - levels**2).sqrt(), torch.zeros(steps, dtype=torch.bool)
    noise = torch.randn(1, *diffusion.state_shape(cond), generator=torch.Generator().manual_seed(0))
    x, y = noise, noise / float(size[0])
    for k in range(steps):
        index = torch.tensor([k])
        x = diffusion.transition(x, index, cond, Schedule(levels, still)).mode
        y = flow.transition(y, index, cond, Schedule(levels / size, still)).mode
    torch.testing.assert_close(y, x, rtol=0, atol=1e-3 * float(x.abs().max()))


@torch.no_grad()
def test_a_rollout_begins_at_noise_and_every_step_but_the_last_has_a_density(voices) -> None:
    flow = voices[1]
    cond, schedule = flow.condition(PROMPTS), flow.schedule(4)
    assert float(schedule.times[0]) == 1.0
    assert (schedule.times.diff() < 0).all()
    x = torch.randn(1, *flow.state_shape(cond), generator=torch.Generator().manual_seed(0))
    for k in range(4):
        step = flow.transition(x, torch.tensor([k]), cond, schedule)
        length = float(schedule.times[k] - schedule.times[k + 1])
        assert float(step.std[0]) == pytest.approx(0.3 * length**0.5 if k < 3 else 0.0)
        assert torch.isfinite(step.mode).all()
        x = step.mode
