"""Distill-MOS: predicted quality of speech, distilled from the large model XLS-R. The weights come with pip."""

from __future__ import annotations

from collections.abc import Iterator

from rlzoo.plugin import Options, RewardSpec, hookimpl


class DistillMOSOptions(Options):
    """No options: there is one published model, and it does not hear the level of a clip."""


def available(options: DistillMOSOptions) -> bool:
    """True if the package that holds the weights is installed. Does not import torch."""
    from importlib.util import find_spec

    return find_spec("distillmos") is not None


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    yield RewardSpec(
        name="distillmos",
        summary="predicted quality of speech (Distill-MOS, distilled from XLS-R), 1 to 5",
        target="rlzoo_distillmos.reward:DistillMOSReward",
        options=DistillMOSOptions,
        offers=frozenset({"reward-grad"}),
        reference="arXiv:2502.05356",
        tier="stable",
        available="rlzoo_distillmos:available",
    )
