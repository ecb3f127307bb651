"""GRPO-Guard: ratios that are centred and alike at all steps (arXiv:2510.22319). No torch here."""

from __future__ import annotations

from collections.abc import Iterable

from rlzoo.plugin import AlgorithmSpec, Clip, Options, hookimpl


class GRPOGuardOptions(Options):
    """Options of GRPO-Guard; the README of this plugin has the equations."""

    clip: Clip = 2e-6
    """Half-width of the normalised ratio's trust region, alike at all steps; or [below 1, above 1]."""
    reweight: bool = True
    """Divide each step's loss by its length, so that every step has a gradient of the same size."""


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="grpo-guard",
        summary="GRPO-Guard: Flow-GRPO whose ratio is normalised at every step",
        target="rlzoo_grpo_guard.algorithm:GRPOGuard",
        options=GRPOGuardOptions,
        needs=frozenset({"log-prob"}),
        compares="advantages",
        reference="arXiv:2510.22319",
    )
