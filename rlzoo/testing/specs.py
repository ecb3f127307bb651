"""The toys' announcements. Not an entry point: tests, `--plugin rlzoo.testing.specs` and the kit register them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from rlzoo.core.specs import Options, PolicySpec, PromptSpec, RewardSpec, hookimpl


class ToyPolicyOptions(Options):
    """Options of both toys."""

    seed: int = 0
    """Seed of the recordings the toy is trained on when it is built."""
    num_steps: Annotated[int, Field(ge=2, le=100)] = 5
    """Denoising steps K of the default schedule; the network has its own gain and bias at each."""
    pretrain_steps: Annotated[int, Field(ge=0)] = 400
    """Adam steps on the denoising loss; 0 leaves the network at zero."""


class ToyRewardOptions(Options):
    """The reward is the mean over a sample's elements of slope x - curvature (x - target)^2."""

    slope: float = 0.0
    """Factor of the linear term."""
    curvature: Annotated[float, Field(ge=0)] = 1.0
    """Factor of the quadratic term."""
    target: float = 1.0
    """Best value of an element under the quadratic term."""


class ToyPromptOptions(Options):
    """Sizes of the toy prompt set."""

    train: Annotated[int, Field(ge=1)] = 8
    """Training prompts."""
    heldout: Annotated[int, Field(ge=1)] = 4
    """Held-out prompts."""


TOY_GAUSSIAN = PolicySpec(
    name="toy-gaussian",
    summary="Gaussian diffusion over short vectors, for tests",
    target="rlzoo.testing.toys:GaussianToy",
    options=ToyPolicyOptions,
    offers=frozenset({"log-prob", "denoising-loss", "sampling-grad", "window"}),
    emits="vector",
    reference="arXiv:2006.11239",
)
TOY_FLOW = PolicySpec(
    name="toy-flow",
    summary="rectified flow over short vectors, for tests",
    target="rlzoo.testing.toys:FlowToy",
    options=ToyPolicyOptions,
    offers=frozenset({"log-prob", "denoising-loss", "sampling-grad", "window"}),
    emits="vector",
    reference="arXiv:2209.03003",
)
TOY_REWARD = RewardSpec(
    name="toy",
    summary="closeness to a target, or a slope, for tests",
    target="rlzoo.testing.toys:ToyReward",
    options=ToyRewardOptions,
    offers=frozenset({"reward-grad"}),
    accepts=frozenset({"vector"}),
)
TOY_PROMPTS = PromptSpec(
    name="toy",
    summary="prompts of every mode and length, with recordings, for tests",
    target="rlzoo.testing.toys:ToyPrompts",
    options=ToyPromptOptions,
)


@hookimpl
def rlzoo_policies() -> Iterable[PolicySpec]:
    """The two toy policies."""
    return (TOY_GAUSSIAN, TOY_FLOW)


@hookimpl
def rlzoo_rewards() -> Iterable[RewardSpec]:
    """The toy reward."""
    return (TOY_REWARD,)


@hookimpl
def rlzoo_prompts() -> Iterable[PromptSpec]:
    """The toy prompt set."""
    return (TOY_PROMPTS,)
