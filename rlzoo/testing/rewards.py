"""Contract of every reward. Each check takes a `RewardSubject` and raises `Broken` with the likely cause."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlzoo.core.reward import Reward, unsound
from rlzoo.core.specs import Capability
from rlzoo.core.types import Media, Prompt, Samples
from rlzoo.errors import RlzooError
from rlzoo.testing.results import Broken

TOLERANCE = 2e-3  # relative: sums over padded and unpadded batches round differently
TEXTS = ("The birch canoe slid on the smooth planks.", "No.", "Four hours of steady work faced us.")
SECONDS = (1.6, 0.8, 1.1)


@dataclass(frozen=True)
class RewardSubject:
    """A reward to check: how to make it, what it says it offers and accepts."""

    make: Callable[[], Reward[Any]]
    offers: frozenset[Capability] = frozenset()
    accepts: frozenset[str] = frozenset({"audio"})


def voice_like(seconds: float, rate: int, seed: int) -> Tensor:
    """(L,): a gliding buzz under a syllable-like envelope with some breath: speech models then see something alike."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(int(seconds * rate)) / rate
    pitch = 110 + 20 * seed + 15 * torch.sin(2 * math.pi * 0.7 * t)
    phase = 2 * math.pi * torch.cumsum(pitch, 0) / rate
    buzz = sum((torch.sin(h * phase) / h for h in range(1, 20)), torch.zeros(len(t)))
    envelope = 0.15 + 0.85 * torch.sin(math.pi * 3.1 * t) ** 2
    wave = envelope * buzz + 0.02 * torch.randn(len(t), generator=generator)
    return 0.3 * wave / wave.abs().max()


def _batch(waves: Sequence[Tensor], media: Media) -> Samples:
    lengths = torch.tensor([len(wave) for wave in waves])
    return Samples(nn.utils.rnn.pad_sequence(list(waves), batch_first=True), lengths, media)


def _inputs(subject: RewardSubject, reward: Reward[Any]) -> tuple[list[Tensor], list[Prompt], Media]:
    prompts = [Prompt(f"check-{i}", text) for i, text in enumerate(TEXTS)]
    if "audio" in subject.accepts:
        rate = reward.sample_rate or 16_000
        return [voice_like(s, rate, i) for i, s in enumerate(SECONDS)], prompts, Media("audio", rate)
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, generator=generator) for n in (4, 2, 3)], prompts, Media(min(subject.accepts))


def _score(reward: Reward[Any], samples: Samples, prompts: Sequence[Prompt]) -> Tensor:
    scores = reward.score(samples, prompts)
    problem = unsound(scores, samples)
    if problem:
        raise Broken(f"`score` {problem}")
    values = scores.values
    if not bool(torch.isfinite(values).all()):
        raise Broken("a score is not finite")
    return values


def _close(a: Tensor, b: Tensor) -> bool:
    return bool(((a - b).abs() <= TOLERANCE * (1 + b.abs())).all())


@torch.no_grad()
def scores_are_sound(subject: RewardSubject) -> None:
    """One finite float32 number per sample, parts of the same shape, and different numbers for different samples."""
    reward = subject.make()
    waves, prompts, media = _inputs(subject, reward)
    values = _score(reward, _batch(waves, media), prompts)
    if len(values.unique()) == 1:
        raise Broken("three different samples have the same score")


@torch.no_grad()
def scores_are_deterministic(subject: RewardSubject) -> None:
    """The same samples have the same scores, to the last bit, and no global generator moves."""
    reward = subject.make()
    waves, prompts, media = _inputs(subject, reward)
    before = torch.get_rng_state()
    first, second = (_score(reward, _batch(waves, media), prompts) for _ in range(2))
    if not torch.equal(first, second):
        raise Broken("scoring twice gives two results; likely cause: dropout, or a random crop")
    if not torch.equal(before, torch.get_rng_state()):
        raise Broken("scoring draws from torch's global generator")


@torch.no_grad()
def rows_are_independent(subject: RewardSubject) -> None:
    """A score is the same alone, in a padded batch, at another place of it, and with rubbish in the padding."""
    reward = subject.make()
    waves, prompts, media = _inputs(subject, reward)
    together = _score(reward, _batch(waves, media), prompts)
    alone = torch.cat([_score(reward, _batch([w], media), [p]) for w, p in zip(waves, prompts, strict=True)])
    if not _close(together, alone):
        raise Broken(
            f"a score depends on batch mates or padding: {together.tolist()} together, {alone.tolist()} alone; likely "
            "cause: normalisation over the batch, or a mean over padded frames"
        )
    turned = _score(reward, _batch(waves[::-1], media), prompts[::-1]).flip(0)
    if not _close(turned, together):
        raise Broken("a score depends on its place in the batch")
    dirty = _batch(waves, media)
    for row, wave in enumerate(waves):
        dirty.data[row, len(wave) :] = 0.9
    if not _close(_score(reward, dirty, prompts), together):
        raise Broken("a score depends on what lies beyond `lengths`")


def gradient_is_as_announced(subject: RewardSubject) -> None:
    """With `reward-grad` the score has a finite, non-zero gradient; without, it has none."""
    reward = subject.make()
    waves, prompts, media = _inputs(subject, reward)
    samples = _batch(waves, media)
    samples.data.requires_grad_(True)
    values = _score(reward, samples, prompts)
    offered = "reward-grad" in subject.offers
    if values.requires_grad != offered:
        raise Broken(
            "the score carries no gradient, although the record offers reward-grad"
            if offered
            else "the score carries a gradient that the record does not offer: add reward-grad to its `offers`, or "
            "compute under torch.no_grad()"
        )
    if not offered:
        return
    (gradient,) = torch.autograd.grad(values.sum(), samples.data)
    for row, wave in enumerate(waves):
        own = gradient[row, : len(wave)]
        if not bool(torch.isfinite(own).all()) or not bool(own.any()):
            raise Broken(
                f"the gradient of sample {row} is zero or not finite; likely cause: a quantised or clamped input"
            )
        if bool(gradient[row, len(wave) :].any()):
            raise Broken("the gradient reaches into padding")


@torch.no_grad()
def extreme_clips_do_not_raise(subject: RewardSubject) -> None:
    """Silence, 10 ms, 30 s and full scale give finite scores."""
    reward = subject.make()
    _, prompts, media = _inputs(subject, reward)
    if "audio" not in subject.accepts:
        clips = {"zeros": torch.zeros(3), "one element": torch.ones(1), "large": torch.full((4,), 100.0)}
    else:
        rate = media.sample_rate or 0
        clips = {
            "silence": torch.zeros(rate),
            "10 ms": voice_like(0.01, rate, 0),
            "30 s": voice_like(30.0, rate, 1),
            "full scale": torch.sign(voice_like(0.5, rate, 2)),
        }
    for name, clip in clips.items():
        try:
            _score(reward, _batch([clip], media), prompts[:1])
        except (RlzooError, RuntimeError, ValueError, IndexError) as error:
            raise Broken(f"{name}: {type(error).__name__}: {error}") from error


def parameters_are_frozen(subject: RewardSubject) -> None:
    """No network of the reward is trainable or in training mode."""
    reward = subject.make()
    for name, value in vars(reward).items():
        if isinstance(value, nn.Module):
            if value.training:
                raise Broken(f"'{name}' is in training mode")
            if any(p.requires_grad for p in value.parameters()):
                raise Broken(f"'{name}' has trainable parameters; call requires_grad_(False)")


CHECKS: Sequence[Callable[[RewardSubject], None]] = (
    scores_are_sound,
    scores_are_deterministic,
    rows_are_independent,
    gradient_is_as_announced,
    extreme_clips_do_not_raise,
    parameters_are_frozen,
)
