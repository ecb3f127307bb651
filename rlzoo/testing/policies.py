"""Contract of every policy. Each check takes a `PolicySubject` and raises `Broken` with the likely cause."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlzoo.core.policy import Policy, StepDistribution, masked_reduce
from rlzoo.core.specs import Capability
from rlzoo.core.types import Batch, Prompt, Schedule
from rlzoo.engine.rollout import Rollout, SamplingPlan, sample
from rlzoo.testing.results import Broken, Skipped

TOLERANCE = 1e-4  # of float32 sums over different batch shapes, per element
PROMPTS = (
    Prompt("check-short", "No."),
    Prompt("check-middle", "Come in, please."),
    Prompt("check-long", "It is late, go home."),
)


@dataclass(frozen=True)
class PolicySubject:
    """A policy to check: how to make it, what it says it offers, prompts of different lengths."""

    make: Callable[[], Policy]
    offers: frozenset[Capability] = frozenset({"log-prob", "denoising-loss", "sampling-grad"})
    prompts: Sequence[Prompt] = field(default=PROMPTS)


def _rollout(policy: Policy, prompts: Sequence[Prompt], seeds: Sequence[int], grad_steps: int = 0) -> Rollout:
    policy.eval()
    with torch.no_grad():
        cond = policy.condition(prompts)
    schedule = policy.schedule()
    every = tuple(range(len(schedule) + 1))
    plan = SamplingPlan(schedule=schedule, seeds=tuple(seeds), grad_steps=grad_steps, kept=every)
    return sample(policy, cond, plan)


def _made(subject: PolicySubject) -> tuple[Policy, Batch, Schedule, Rollout]:
    policy = subject.make()
    done = _rollout(policy, subject.prompts, range(len(subject.prompts)))
    with torch.no_grad():
        return policy, policy.condition(subject.prompts), policy.schedule(), done


def _step(policy: Policy, done: Rollout, cond: Batch, schedule: Schedule, k: int) -> StepDistribution:
    return policy.transition(done.states[k], torch.full((len(cond),), k, device=done.states.device), cond, schedule)


def _random_steps(schedule: Schedule) -> list[int]:
    return [int(k) for k in schedule.stochastic.nonzero()[:, 0]]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise Broken(message)


def _gap(a: Tensor, b: Tensor) -> float:
    difference = (a - b).abs()
    return math.inf if not bool(torch.isfinite(difference).all()) else float(difference.max())


def same_seed_same_rollout(subject: PolicySubject) -> None:
    """A rollout follows from its seeds alone, and moves no global generator."""
    policy = subject.make()
    before = torch.get_rng_state()
    first = _rollout(policy, subject.prompts, range(len(subject.prompts)))
    _require(torch.equal(before, torch.get_rng_state()), "sampling draws from torch's global generator")
    second = _rollout(policy, subject.prompts, range(len(subject.prompts)))
    same = torch.equal(first.states, second.states) and torch.equal(first.log_probs, second.log_probs)
    _require(same, "the same seeds give another rollout; likely cause: noise or dropout inside the network")


def ratio_starts_at_one(subject: PolicySubject) -> None:
    """Log-probabilities recomputed as training does (mixed steps, with gradient) equal those of the sampler."""
    policy, cond, schedule, done = _made(subject)
    pairs = [(k, row) for k in _random_steps(schedule) for row in range(len(cond))]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))[:8].tolist()
    k, row = (torch.tensor([pairs[i][j] for i in order], device=done.states.device) for j in (0, 1))
    with torch.enable_grad():
        step = policy.transition(done.states[k, row], k, cond[row], schedule)
        logp = step.log_prob(done.states[k + 1, row]).detach()
    gap = _gap(logp, done.log_probs[k, row])
    _require(
        gap < TOLERANCE,
        f"the ratio is not 1 before any update (log-ratio {gap:.2g} per element): sampling and training see different "
        "policies; likely cause: dropout, a branch on grad mode, rows that depend on batch mates, or unmasked padding",
    )


def ignores_padding(subject: PolicySubject) -> None:
    """A sample, its log-probabilities and its loss are the same alone and beside a longer one."""
    policy = subject.make()
    order = sorted(
        range(len(subject.prompts)), key=lambda i: int(policy.lengths(policy.condition([subject.prompts[i]])))
    )
    short, long = subject.prompts[order[0]], subject.prompts[order[-1]]
    alone, beside = _rollout(policy, [short], [3]), _rollout(policy, [short, long], [3, 4])
    with torch.no_grad():
        cond_alone, cond = policy.condition([short]), policy.condition([short, long])
    size = int(policy.lengths(cond_alone)[0])
    _require(int(policy.lengths(cond)[0]) == size, "a prompt's length depends on its batch mates")
    gap = _gap(alone.states[:, 0, ..., :size], beside.states[:, 0, ..., :size])
    _require(gap < 10 * TOLERANCE, f"padding leaks into the sample: {gap:.2g} from what it is alone")
    gap = _gap(alone.log_probs[:, 0], beside.log_probs[:, 0])
    _require(gap < TOLERANCE, f"padding leaks into log-probabilities ({gap:.2g} per element); is `mask` complete?")
    t = policy.sample_times(torch.tensor([0.5], device=beside.states.device))
    noise = beside.states[0]
    with torch.no_grad():
        loss_alone = policy.denoising_loss(alone.states[-1], cond_alone, t, noise[:1, ..., : alone.states.shape[-1]])
        dirty = beside.states[-1].clone()
        dirty[0, ..., size:] = 7.0
        loss = policy.denoising_loss(beside.states[-1], cond, t.expand(2), noise)
        step = _step(policy, beside, cond, policy.schedule(), _random_steps(policy.schedule())[0])
        gap_dirty = _gap(step.log_prob(dirty)[0], step.log_prob(beside.states[-1])[0])
    gap = _gap(loss_alone[0], loss[0])
    _require(gap < 10 * TOLERANCE, f"padding leaks into the denoising loss ({gap:.2g}); does `error` use `mask`?")
    _require(gap_dirty == 0, "log_prob looks at padded elements")


def rows_are_independent(subject: PolicySubject) -> None:
    """Turning the order of a batch turns its results and changes nothing else."""
    policy, cond, schedule, done = _made(subject)
    back = torch.arange(len(cond) - 1, -1, -1, device=done.states.device)
    k = torch.full((len(cond),), _random_steps(schedule)[0], device=done.states.device)
    x = done.states[int(k[0])]
    with torch.no_grad():
        gap = _gap(
            policy.transition(x, k, cond, schedule).mode[back],
            policy.transition(x[back], k, cond[back], schedule).mode,
        )
    _require(gap < TOLERANCE, f"a row depends on its place in the batch ({gap:.2g}); likely cause: batch statistics")


def gradient_reaches_parameters(subject: PolicySubject) -> None:
    """Log-probability, loss and sample, as far as they are offered, have a finite, non-zero gradient."""
    policy, cond, schedule, done = _made(subject)
    parameters = [p for p in policy.parameters() if p.requires_grad]
    _require(bool(parameters), "no parameter is trainable")
    k, losses = _random_steps(schedule)[0], {}
    if "log-prob" in subject.offers:
        losses["log_prob"] = _step(policy, done, cond, schedule, k).log_prob(done.states[k + 1]).sum()
    if "denoising-loss" in subject.offers:
        t = policy.sample_times(torch.full((len(cond),), 0.5, device=done.states.device))
        losses["denoising_loss"] = policy.denoising_loss(done.states[-1], cond, t, done.states[0]).sum()
    if "sampling-grad" in subject.offers:
        losses["the sample"] = _rollout(policy, subject.prompts, range(len(cond)), 1).samples.data.square().sum()
    for what, loss in losses.items():
        _require(loss.requires_grad, f"{what} carries no gradient; likely cause: no_grad or detach in the policy")
        found = [g for g in torch.autograd.grad(loss, parameters, allow_unused=True) if g is not None]
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in found))
        _require(math.isfinite(norm) and norm > 0, f"the gradient of {what} has norm {norm}")


def steps_are_sound(subject: PolicySubject) -> None:
    """Times fall, random steps have a finite log-probability, deterministic ones take their mode."""
    policy, cond, schedule, done = _made(subject)
    times = schedule.times
    _require(times.shape == (len(schedule) + 1,), f"times has shape {tuple(times.shape)} for {len(schedule)} steps")
    _require(times.dtype == torch.float64, "times must be float64: near the clean end float32 has no digits left")
    _require(bool((times.diff() < 0).all()), "times must fall from noise to clean")
    _require(bool(schedule.stochastic.any()), "no step is random: there is nothing that a policy gradient could train")
    noise = torch.ones_like(done.states[0])
    for k in range(len(schedule)):
        with torch.no_grad():
            step = _step(policy, done, cond, schedule, k)
        if schedule.stochastic[k]:
            finite = bool(torch.isfinite(step.log_prob(done.states[k + 1])).all())
            _require(finite, f"step {k} has no finite log-probability; a step without noise must not be stochastic")
        else:
            _require(torch.equal(step.rsample(noise), step.mode), f"step {k} is deterministic and has noise")


def log_prob_is_the_samplers(subject: PolicySubject) -> None:
    """`log_prob` is the normal density of what `rsample` draws."""
    policy, cond, schedule, done = _made(subject)
    mask = policy.mask(cond)
    for k in (_random_steps(schedule)[0], _random_steps(schedule)[-1]):
        with torch.no_grad():
            step = _step(policy, done, cond, schedule, k)
        std = (step.rsample(torch.ones_like(step.mode)) - step.mode).double().abs()
        std = std if mask is None else torch.where(mask, std, torch.ones_like(std))
        density = torch.distributions.Normal(step.mode.double(), std).log_prob(done.states[k + 1].double())
        gap = _gap(step.log_prob(done.states[k + 1]).double(), masked_reduce(density, mask, "mean"))
        # std is read off a float32 difference, which costs digits where the state is large beside it.
        _require(gap < 0.02, f"log_prob of step {k} is {gap:.2g} per element from the density that rsample draws from")


def kl_has_a_gradient(subject: PolicySubject) -> None:
    """KL to itself is zero; to shifted weights it is positive and has a gradient."""
    policy, cond, schedule, done = _made(subject)
    other = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in (p for p in other.parameters() if p.requires_grad):
            parameter.add_(0.01 * parameter.abs().mean() + 1e-3)
    k = _random_steps(schedule)[0]
    ours = _step(policy, done, cond, schedule, k)
    with torch.no_grad():
        theirs, twin = _step(other, done, cond, schedule, k), _step(policy, done, cond, schedule, k)
    _require(float(ours.kl(twin).detach().abs().max()) < 1e-6, "the KL of a step to itself is not zero")
    kl = ours.kl(theirs)
    _require(bool((kl > 0).all()), "the KL to other weights is not positive")
    _require(kl.requires_grad, "the KL carries no gradient; is it inside no_grad?")
    found = torch.autograd.grad(kl.sum(), [p for p in policy.parameters() if p.requires_grad], allow_unused=True)
    _require(any(g is not None and bool(g.any()) for g in found), "the gradient of the KL is zero")


def copies_are_independent(subject: PolicySubject) -> None:
    """A deep copy gives the same numbers and shares no weight; a state dict carries the whole policy over."""
    policy, cond, schedule, done = _made(subject)
    k = _random_steps(schedule)[0]
    with torch.no_grad():
        here = _step(policy, done, cond, schedule, k).mode
        twin = copy.deepcopy(policy)
        _require(torch.equal(_step(twin, done, cond, schedule, k).mode, here), "a deep copy gives other numbers")
        for parameter in twin.parameters():
            parameter.add_(0.01)
        moved = _step(twin, done, cond, schedule, k).mode
        _require(torch.equal(_step(policy, done, cond, schedule, k).mode, here), "a deep copy shares its weights")
        fresh = subject.make().eval()
        fresh.load_state_dict(twin.state_dict())
        _require(_gap(_step(fresh, done, cond, schedule, k).mode, moved) == 0, "the state dict leaves something behind")


def samples_are_valid(subject: PolicySubject) -> None:
    """Samples are finite float32, zero beyond their lengths, the same alone; audio lies in [-1, 1] and has a rate."""
    policy, cond, _, done = _made(subject)
    samples, states, lengths = done.samples, done.states[-1], policy.lengths(cond).tolist()
    width = samples.data.shape[-1]
    _require(samples.data.dtype == torch.float32, f"samples are {samples.data.dtype}, not float32")
    _require(bool(torch.isfinite(samples.data).all()), "a sample is not finite")
    fits = (samples.lengths > 0) & (samples.lengths <= width)
    _require(bool(fits.all()), f"decode gives lengths {samples.lengths.tolist()} to samples padded to {width}")
    # Where decoding changes the shape it changes lengths too, and only a row alone can say what they are.
    same = samples.data.shape != states.shape or samples.lengths.tolist() == lengths
    _require(same, "decode and lengths disagree")
    beyond = torch.arange(width, device=samples.data.device) >= samples.lengths[:, None]
    rest = samples.data.movedim(-1, 1)[beyond]
    _require(not bool(rest.any()), "a sample is not zero beyond its length")
    mask = policy.mask(cond)
    if mask is not None:
        valid = mask.flatten(1, -2).any(1) if mask.dim() > 2 else mask
        # What a prompt gives may be left out, such as the first frames of a recording that is gone on with.
        ends = (torch.arange(1, valid.shape[1] + 1, device=valid.device) * valid).amax(1)
        _require(ends.tolist() == lengths, "mask and lengths disagree")
    if samples.media.kind == "audio":
        _require(bool(samples.media.sample_rate), "audio needs a sample rate")
        _require(float(samples.data.abs().max()) <= 1.0, "audio leaves [-1, 1]")
    for row, prompt in enumerate(subject.prompts):
        with torch.no_grad():
            own = policy.condition([prompt])
            alone = policy.decode(states[row : row + 1, ..., : policy.state_shape(own)[-1]], own)
            piece = policy.decode(states[row : row + 1], cond[row : row + 1])
        size = int(samples.lengths[row])
        _require(int(alone.lengths[0]) == size, "a sample's length depends on its batch mates or on padding")
        gap = _gap(alone.row(0), samples.row(row))
        _require(gap < 10 * TOLERANCE, f"decoded beside others a sample is {gap:.2g} from what it is alone")
        _require(piece.data.shape[-1] == width, "decode cuts to the longest row, not to the states' width")


def target_leads_back(subject: PolicySubject) -> None:
    """`clean` of `noisy` with the right prediction is the clean state: the three agree on one forward process."""
    policy, _, _, done = _made(subject)
    x, noise = done.states[-1], done.states[0]
    t = policy.sample_times(torch.full((len(x),), 0.5, device=x.device))
    gap = _gap(policy.clean(policy.noisy(x, noise, t), policy.target(x, noise, t), t), x)
    _require(gap < 1e-3, f"clean(noisy(x), target) is {gap:.2g} from x")


def windows_are_exact(subject: PolicySubject) -> None:
    """A crop says of its window what the whole row says there: step, log-probability, loss; and windows tile a row."""
    policy, cond, schedule, done = _made(subject)
    if type(policy).crop is Policy.crop:
        _require("window" not in subject.offers, "it offers windows and does not override `crop`")
        raise Skipped("it offers no windows")
    step, frames = _random_steps(schedule)[-1], policy.frames(cond)
    k, before, after = torch.full_like(frames, step), done.states[step], done.states[step + 1]
    t = policy.sample_times(torch.full((len(cond),), 0.5, device=before.device))
    clean, noise, parts = done.states[-1], done.states[0], 3
    with torch.no_grad():
        whole = policy.transition(before, k, cond, schedule)
        losses = torch.stack([policy.denoising_loss(clean, cond, t, noise), whole.log_prob(after)])
        sums = torch.zeros_like(losses)
        for part in range(parts):
            first, stop = frames * part // parts, frames * (part + 1) // parts
            # Rows of fewer frames than parts repeat one of them, and weigh it by nothing.
            inside, place = policy.crop(cond, first, (stop - first).clamp(min=1))
            cropped = policy.transition(place.cut(before), k, inside, schedule)
            mask = policy.mask(inside)
            apart = (cropped.mode - place.cut(whole.mode)).abs()
            gap = float((apart if mask is None else apart[mask]).max())
            _require(gap < TOLERANCE, f"a window is {gap:.2g} from the whole row; does the crop hold enough around it?")
            loss = policy.denoising_loss(place.cut(clean), inside, t, place.cut(noise))
            sums += (stop - first) / frames * torch.stack([loss, cropped.log_prob(place.cut(after))])
    gap = _gap(sums, losses)
    _require(gap < TOLERANCE, f"the windows of a row do not add up to it ({gap:.2g}); is `mask` true on them alone?")


def trim_cuts_padding(subject: PolicySubject) -> None:
    """A row that is taken out of a longer batch and trimmed steps and decodes as before, on its own length."""
    policy, cond, schedule, done = _made(subject)
    step = _random_steps(schedule)[0]
    for row, size in enumerate(policy.lengths(cond).tolist()):
        part, k = cond[row : row + 1], torch.tensor([step], device=done.states.device)
        trimmed = policy.trim(part)
        width = policy.state_shape(trimmed)[-1]
        _require(policy.lengths(trimmed).tolist() == [size], "`trim` changes a row's length")
        _require(width >= size, f"`trim` leaves {width} of a row's {size} elements")
        before, final = (done.states[at, row : row + 1] for at in (step, -1))
        with torch.no_grad():
            whole = policy.transition(before, k, part, schedule).mode[..., :size]
            cut = policy.transition(before[..., :width], k, trimmed, schedule).mode[..., :size]
            heard = policy.decode(final, part).row(0), policy.decode(final[..., :width], trimmed).row(0)
        gap = _gap(cut, whole)
        _require(gap < TOLERANCE, f"trimmed, a row's step is {gap:.2g} from what it was")
        _require(heard[0].shape == heard[1].shape and _gap(*heard) < 10 * TOLERANCE, "trimmed, a row sounds different")


CHECKS: Sequence[Callable[[PolicySubject], None]] = (
    same_seed_same_rollout,
    ratio_starts_at_one,
    ignores_padding,
    rows_are_independent,
    gradient_reaches_parameters,
    steps_are_sound,
    log_prob_is_the_samplers,
    kl_has_a_gradient,
    copies_are_independent,
    samples_are_valid,
    target_leads_back,
    windows_are_exact,
    trim_cuts_padding,
)
