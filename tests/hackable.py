"""A one-file plugin of rewards for the toys: one to be hacked, and two that hear whether a sample is still natural."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rlzoo.plugin import Options, RewardSpec, hookimpl

VECTOR = frozenset({"vector"})


@hookimpl
def rlzoo_rewards() -> Iterable[RewardSpec]:
    """`loud` pays for loudness alone; `natural` and `typical` for being near the recordings."""
    for name in ("loud", "natural", "typical"):
        target = f"{__name__}:make_{name}"
        yield RewardSpec(name=name, summary="for tests", target=target, options=Options, accepts=VECTOR)


def _reward(function):
    from rlzoo.api import Reward, Scores

    class Toy(Reward[Options]):
        def score(self, samples, prompts: Sequence):
            import torch

            return Scores(torch.stack([function(samples.row(i), prompt) for i, prompt in enumerate(prompts)]))

    return Toy(Options())


def _from_mode(wave, prompt):
    from rlzoo.testing.toys import mode_means, mode_of

    return wave - mode_means()[mode_of(prompt)][: len(wave)]


def make_loud(options):
    return _reward(lambda wave, prompt: wave.square().mean())


def make_natural(options):
    return _reward(lambda wave, prompt: -_from_mode(wave, prompt).square().mean())


def make_typical(options):
    return _reward(lambda wave, prompt: -_from_mode(wave, prompt).abs().amax())
