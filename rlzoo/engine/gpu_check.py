"""Checks of `rlzoo doctor --gpu`: policies and rewards on this GPU compared with a CPU, and their speed.

Every line stands for itself, so that a page of them can be pasted into an issue. Nothing is trained or written.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rlzoo.config.registry import Registry, import_target, weights_at_hand
from rlzoo.config.schema import RolloutTable, TrainTable
from rlzoo.core.policy import Policy
from rlzoo.core.reward import Reward
from rlzoo.core.specs import PolicySpec, RewardSpec
from rlzoo.core.types import Batch, Prompt, Samples
from rlzoo.engine import estimate
from rlzoo.engine.rollout import Rollout, SamplingPlan, sample
from rlzoo.engine.selfcheck import RATIO_TOLERANCE
from rlzoo.errors import RlzooError
from rlzoo.speech.audio import resample_samples, to_samples

SECONDS = 170.0
"""After so long what is left is skipped."""
TEXTS = ("Yes.", "Open the door.", "It is late.")
REPEATS, STEPS = 2, 3
TIMED_ROWS = 48
"""Samples at once where speed is measured."""
AGREEMENT = 1e-3
"""Largest relative difference of a CPU's and a GPU's float32: they add up in another order."""
SCORE_AGREEMENT = 0.02
"""Tolerance of scores, on scales of about five points."""


@dataclass(frozen=True)
class Line:
    """One finding; `ok` is None if nothing was promised."""

    what: str
    found: str
    ok: bool | None = None


def check(registry: Registry, device: torch.device, timed: bool) -> Iterator[Line]:
    """Check every policy and reward that can be made from its defaults here; an error is a line, too.

    `timed`: measure speed and memory as well, which a stand-in for a GPU has none of.
    """
    started = time.monotonic()
    parts: list[tuple[str, Callable[[], Iterator[Line]]]] = []
    for name in registry.names("policy"):
        parts.append((name, partial(_policy, registry.policy(name), device, timed)))
    for name in registry.names("reward"):
        parts.append((name, partial(_reward, registry.reward(name), device, timed)))
    for name, part in parts:
        if time.monotonic() - started > SECONDS:
            yield Line(name, f"skipped: {SECONDS:.0f} s are over")
            continue
        try:
            yield from part()
        except RlzooError as error:
            yield Line(name, f"not checked: {error.message}")
        except Exception as error:  # whatever a driver or library throws belongs on the page
            yield Line(name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", False)


def _made(spec: PolicySpec | RewardSpec) -> Any:
    return import_target(spec.target, f"'{spec.name}'", spec.extra)(spec.options())


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds of one run of `work`, the device's own part included."""
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _missing(spec: PolicySpec | RewardSpec) -> str:
    """Why a plugin cannot be made from its defaults here; empty if it can. Downloads nothing."""
    required = [name for name, field in spec.options.model_fields.items() if field.is_required()]
    if required:
        return f"it needs the options {', '.join(required)}"
    return "" if weights_at_hand(spec, spec.options()) else "its weights are not on this machine"


# --- policies --------------------------------------------------------------------------------------------------------


def _rollout(policy: Policy, cond: Batch, micro_batch: int) -> Rollout:
    seeds, schedule = tuple(range(len(cond))), policy.schedule(STEPS)
    kept = tuple(range(STEPS + 1))
    return sample(policy, cond, SamplingPlan(schedule=schedule, seeds=seeds, micro_batch=micro_batch, kept=kept))


def _log_probs(policy: Policy, cond: Batch, done: Rollout) -> Tensor:
    """(K, N) of the random steps, computed as training does."""
    schedule, found = policy.schedule(STEPS), []
    for k in schedule.stochastic.nonzero()[:, 0].tolist():
        step = policy.transition(done.states[k], torch.full((len(cond),), k, device=done.states.device), cond, schedule)
        found.append(step.log_prob(done.states[k + 1]))
    return torch.stack(found)


def _gradient(policy: Policy, cond: Batch, done: Rollout) -> Tensor:
    trained = [p for p in policy.parameters() if p.requires_grad]
    found = torch.autograd.grad(_log_probs(policy, cond, done).sum(), trained, allow_unused=True)
    return torch.cat([gradient.flatten() for gradient in found if gradient is not None])


def _policy(spec: PolicySpec, device: torch.device, timed: bool) -> Iterator[Line]:
    if reason := _missing(spec):
        yield Line(spec.name, f"not checked: {reason}")
        return
    here: Policy = _made(spec).eval()
    there = copy.deepcopy(here).to(device)
    prompts = [Prompt(str(number), text) for number, text in enumerate(TEXTS)]
    with torch.no_grad():
        cond = there.condition(prompts).repeat(REPEATS)
        at_home = here.condition(prompts).repeat(REPEATS)
    rows = len(cond)
    _gradient(there, cond, _rollout(there, cond, rows))  # compiles, where a policy does
    done = _rollout(there, cond, rows // 2)
    yield from _same(spec.name, here, at_home, there, cond, done)
    yield from _twice(spec.name, there, cond, done)
    if timed:
        yield _memory(spec.name, there, prompts, device)
        yield _speed(spec.name, there, cond.repeat(TIMED_ROWS // rows), device)


def _same(name: str, here: Policy, at_home: Batch, there: Policy, cond: Batch, done: Rollout) -> Iterator[Line]:
    worst = 0.0
    sampled = done.log_probs[there.schedule(STEPS).stochastic.to(done.log_probs.device)]
    with torch.enable_grad():
        worst = float((_log_probs(there, cond, done) - sampled).detach().abs().max())
    allowed = RATIO_TOLERANCE["fp32"]
    yield Line(f"{name}: first ratio", f"log-ratio {worst:.1e} per element, {allowed:.0e} allowed", worst <= allowed)
    k, schedule = torch.zeros(len(cond), dtype=torch.int64), here.schedule(STEPS)
    with torch.no_grad():
        ours = here.transition(done.states[0].cpu(), k, at_home, schedule).mode
        theirs = there.transition(done.states[0], k.to(done.states.device), cond, schedule).mode.cpu()
    gap = float((ours - theirs).norm() / ours.norm())
    yield Line(f"{name}: a step as on the CPU", f"{gap:.1e} apart, {AGREEMENT:.0e} allowed", gap <= AGREEMENT)


def _twice(name: str, policy: Policy, cond: Batch, done: Rollout) -> Iterator[Line]:
    again = _rollout(policy, cond, len(cond) // 2)
    same = torch.equal(done.states, again.states)
    yield Line(f"{name}: sampled twice", "the same to the last bit" if same else "differs in its last bits")
    one, two = _gradient(policy, cond, done), _gradient(policy, cond, done)
    gap = float((one - two).norm() / one.norm().clamp(min=1e-30))
    yield Line(f"{name}: trained twice", "the same to the last bit" if torch.equal(one, two) else f"{gap:.1e} apart")


def _memory(name: str, policy: Policy, prompts: Sequence[Prompt], device: torch.device) -> Line:
    rows = 8
    row = estimate.measure(policy, prompts, RolloutTable(num_steps=STEPS), TrainTable(), rows=2)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    estimate.measure(policy, prompts, RolloutTable(num_steps=STEPS), TrainTable(), rows=rows)
    peak = torch.cuda.max_memory_allocated(device) - before
    expected = row.graph_bytes * rows
    if peak <= 0:
        return Line(f"{name}: memory", f"{expected / 1e6:.0f} MB expected for {rows} rows; no peak is known here")
    found = f"{expected / 1e6:.0f} MB expected for {rows} rows, {peak / 1e6:.0f} MB taken"
    return Line(f"{name}: memory", found, 0.5 < expected / peak < 2)


def _speed(name: str, policy: Policy, cond: Batch, device: torch.device) -> Line:
    rows = len(cond)
    done = _rollout(policy, cond, rows)
    _gradient(policy, cond, done)
    sampling = _seconds(device, lambda: _rollout(policy, cond, rows))
    training = _seconds(device, lambda: _gradient(policy, cond, done))
    found = f"{rows / sampling:.3g} samples/s of {STEPS} steps, {rows / training:.3g} trained, {rows} at once"
    return Line(f"{name}: speed", found)


# --- rewards ---------------------------------------------------------------------------------------------------------


def _clips(rate: int = 16_000) -> list[Tensor]:
    """Three clips of a gliding buzz, each with another pitch and length."""
    found = []
    for number, seconds in enumerate((1.6, 0.8, 1.1)):
        time_L = torch.arange(int(seconds * rate)) / rate
        phase = 2 * torch.pi * (110 + 30 * number) * (time_L + 0.1 * time_L**2)
        buzz = torch.stack([torch.sin(h * phase) / h for h in range(1, 16)]).sum(0)
        found.append(0.1 * buzz * (0.2 + torch.sin(torch.pi * 3 * time_L) ** 2))
    return found


def _reward(spec: RewardSpec, device: torch.device, timed: bool) -> Iterator[Line]:
    if reason := _missing(spec):
        yield Line(spec.name, f"not checked: {reason}")
        return
    samples = to_samples(_clips(), 16_000)
    prompts = [Prompt(str(number), text) for number, text in enumerate(TEXTS)]

    def scored(reward: Reward[Any], batch: Samples) -> Tensor:
        with torch.no_grad():
            return reward.score(resample_samples(batch, reward.sample_rate), prompts).values

    here = scored(_made(spec), samples)
    reward, batch = _made(spec).to(device), samples.to(device)
    there = scored(reward, batch).cpu()
    gap = float((here - there).abs().max())
    found = f"{gap:.1e} apart, {SCORE_AGREEMENT:.0e} allowed"
    if timed:
        found += f"; {len(here) / _seconds(device, lambda: scored(reward, batch)):.3g} clips/s"
    yield Line(f"{spec.name}: scores as on the CPU", found, gap <= SCORE_AGREEMENT)


__all__ = ["Line", "check"]
