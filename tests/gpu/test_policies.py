"""Every policy on the device, in every way of training it: it samples, trains and decodes, and no step waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from small_plugins import small
from torch import Tensor

from rlzoo.api import Batch, Policy, Prompt, Samples, Schedule
from rlzoo.config.registry import discover, import_target
from rlzoo.engine.rollout import Rollout, SamplingPlan, sample
from rlzoo.plugin import PolicySpec
from rlzoo.testing.fakecuda import Count, FakeCuda
from rlzoo.testing.specs import TOY_FLOW, TOY_GAUSSIAN, ToyPolicyOptions
from rlzoo.testing.toys import GaussianToy

POLICIES = {spec.name: spec for spec in (*discover().specs["policy"].values(), TOY_GAUSSIAN, TOY_FLOW)}
PROMPTS = [Prompt("a", "Yes."), Prompt("b", "Go on.")]


def variants(spec: PolicySpec) -> list[dict[str, Any]]:
    """The default, everything that can be trained instead, and what is computed again."""
    fields = spec.options.model_fields
    kinds = get_args(fields["trainable"].annotation) if "trainable" in fields else ()
    found: list[dict[str, Any]] = [{}, *({"trainable": kind} for kind in kinds if kind != fields["trainable"].default)]
    return [*found, {"activation_checkpointing": True}] if "activation_checkpointing" in fields else found


Make = Callable[..., Policy]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """`make(spec, device, **options)`: this policy, small."""

    def build(spec: PolicySpec, device: str, **options: Any) -> Policy:
        if spec in (TOY_FLOW, TOY_GAUSSIAN):
            chosen = spec.options.model_validate({"pretrain_steps": 30, **options})
        else:
            chosen = small(spec, tmp_path, monkeypatch, **options)
        policy: Policy = import_target(spec.target, spec.name, spec.extra)(chosen)
        return policy.to(device).eval()

    return build


def rolled(
    policy: Policy, steps: int, spec: PolicySpec, grad_steps: int = 0, micro_batch: int = 1, windows: bool = True
) -> Rollout:
    with torch.no_grad():
        cond = policy.condition(PROMPTS)
    window = 2 if "window" in spec.offers and windows and not grad_steps else 0
    seeds, schedule = (1, 2), policy.schedule(steps)
    kept = tuple(range(steps + 1))
    plan = SamplingPlan(
        schedule=schedule,
        seeds=seeds,
        grad_steps=grad_steps,
        micro_batch=micro_batch,
        probe=(0, 0),
        window_frames=window,
        kept=kept,
    )
    return sample(policy, cond, plan)


CASES = [
    pytest.param(
        spec, options, id=" ".join([spec.name, *map(str, options.values())]), marks=pytest.mark.slow if options else ()
    )
    for spec in POLICIES.values()
    for options in variants(spec)
]


@pytest.mark.parametrize(("spec", "options"), CASES)
def test_every_policy_samples_trains_and_decodes_there_as_here(
    spec: PolicySpec, options: dict[str, Any], make: Make
) -> None:
    with FakeCuda():
        policy = make(spec, "cuda", **options)
        done = rolled(policy, 2, spec)
        assert done.states.is_cuda
        assert done.samples.data.is_cuda
        assert done.samples.lengths.is_cuda
        with torch.no_grad():
            cond = policy.condition(PROMPTS)
        step = policy.transition(
            done.states[0], torch.zeros(2, dtype=torch.int64, device="cuda"), cond, policy.schedule(2)
        )
        step.log_prob(done.states[1]).sum().backward()
        noise = torch.zeros_like(done.states[-1])
        policy.denoising_loss(done.states[-1], cond, torch.full((2,), 0.5, device="cuda"), noise).sum().backward()
        if "sampling-grad" in spec.offers:
            rolled(policy, 2, spec, grad_steps=1, micro_batch=2).samples.data.square().sum().backward()
        trained = [p for p in policy.parameters() if p.requires_grad]
        assert any(p.grad is not None for p in trained)
        assert all(p.grad.is_cuda and torch.isfinite(p.grad).all() for p in trained if p.grad is not None)
        there = done.states.cpu()
    here = rolled(make(spec, "cpu", **options), 2, spec).states
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("spec", POLICIES.values(), ids=POLICIES)
def test_no_step_of_the_loop_waits(spec: PolicySpec, gpu: FakeCuda, make: Make) -> None:
    """With twice the steps there are no more waits."""
    check_loop(make(spec, "cuda"), spec, gpu)


def check_loop(policy: Policy, spec: PolicySpec, gpu: FakeCuda) -> None:
    found: list[Count] = []
    for steps in (4, 4, 8):  # the first fills caches
        with gpu.counted() as count:
            rolled(policy, steps, spec, micro_batch=2, windows=False)  # windows are drawn before the loop
        found.append(count)
    assert found[2].kernels > found[1].kernels
    assert not found[2].where - found[1].where


SPEECH = [name for name, spec in POLICIES.items() if spec.emits == "audio"]


@pytest.mark.parametrize("name", SPEECH)
def test_recordings_are_learnt_from_there(
    name: str, gpu: FakeCuda, corpus_of: Callable[[str], Path], make: Make
) -> None:
    from rlzoo_prompts import LJSpeechOptions
    from rlzoo_prompts.prompts import LJSpeechPrompts

    policy = make(POLICIES[name], "cuda")
    prompts = LJSpeechPrompts(LJSpeechOptions(path=corpus_of(name)))
    wanted = prompts.train()[:2]
    recordings: Samples = prompts.recordings(wanted, policy.media.sample_rate).to("cuda")
    x, cond = policy.supervise(wanted, recordings)
    assert x.is_cuda
    assert isinstance(cond, Batch)
    loss = policy.denoising_loss(x, cond, torch.full((len(x),), 0.5, device="cuda"), torch.ones_like(x))
    loss.sum().backward()


class LengthsLeftBehind(GaussianToy):
    def condition(self, prompts: Sequence[Prompt]) -> Batch:
        cond = super().condition(prompts)
        return Batch({**cond.tensors, "length": cond.get("length").cpu()})

    def mask(self, cond: Batch) -> Tensor | None:
        if "length" not in cond.tensors:  # where the toy is trained
            return cond.get("mask")
        return torch.arange(cond.get("mask").shape[1], device=self.gain.device) < cond.get("length")[:, None]


class TableThatIsNoBuffer(GaussianToy):
    def __init__(self, options: ToyPolicyOptions) -> None:
        super().__init__(options)
        self.table = torch.ones(4)

    def forward(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        return super().forward(x_t, t, cond) * self.table[: x_t.shape[1]]


class MaskOfTheCPU(GaussianToy):
    def mask(self, cond: Batch) -> Tensor | None:
        return torch.ones(cond.get("mask").shape, dtype=torch.bool)


class ScheduleOfTheCPU(GaussianToy):
    def transition(self, x: Tensor, k: Tensor, cond: Batch, schedule: Schedule, prediction: Tensor | None = None):
        self.level = self.schedule(len(schedule)).times[k]
        return super().transition(x, k, cond, schedule, prediction)


class NoiseOfTheWrongGenerator(GaussianToy):
    def forward(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        noise = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(0), device=x_t.device)
        return super().forward(x_t, t, cond) + 0 * noise


class DecodedByNumpy(GaussianToy):
    def decode(self, x: Tensor, cond: Batch) -> Samples:
        return super().decode(torch.from_numpy(np.tanh(x.detach().numpy())), cond)


class WrittenToTheCPU(GaussianToy):
    def decode(self, x: Tensor, cond: Batch) -> Samples:
        out = torch.zeros(x.shape)
        for row in range(len(x)):
            out[row].add_(x[row])
        return super().decode(out, cond)


class LevelReadByTheHost(GaussianToy):
    def forward(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        return super().forward(x_t, t, cond) * (1.0 if float(t[0]) > 0 else 2.0)


class ConstantSentEachTime(GaussianToy):
    def forward(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        return super().forward(x_t, t, cond) * torch.tensor([1.0], device=x_t.device)


class ChosenByAMask(GaussianToy):
    def forward(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        out = super().forward(x_t, t, cond).clone()
        out[cond.get("mask")] = out[cond.get("mask")] * 1
        return out


@pytest.mark.parametrize(
    "broken",
    [
        LengthsLeftBehind,
        TableThatIsNoBuffer,
        MaskOfTheCPU,
        ScheduleOfTheCPU,
        NoiseOfTheWrongGenerator,
        DecodedByNumpy,
        WrittenToTheCPU,
    ],
)
def test_planted_bugs_of_policies_are_caught(broken: type[GaussianToy], gpu: FakeCuda) -> None:
    policy = broken(ToyPolicyOptions(pretrain_steps=0))
    rolled(policy, 4, TOY_GAUSSIAN)  # nothing is seen on a CPU
    with pytest.raises((RuntimeError, TypeError), match=r"device|numpy"):
        rolled(policy.to("cuda"), 4, TOY_GAUSSIAN)


@pytest.mark.parametrize("broken", [LevelReadByTheHost, ConstantSentEachTime, ChosenByAMask])
def test_planted_waits_are_caught(broken: type[GaussianToy], gpu: FakeCuda) -> None:
    policy = broken(ToyPolicyOptions(pretrain_steps=0)).to("cuda")
    with pytest.raises(AssertionError):
        check_loop(policy, TOY_GAUSSIAN, gpu)
