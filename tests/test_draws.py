"""Algorithms that learn finished samples: an update averages over `draws` times and noises of every sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rlzoo_bon import BoNOptions
from rlzoo_bon.algorithm import BoN
from rlzoo_nft import NFTOptions
from rlzoo_nft.algorithm import NFT
from rlzoo_rwr import RWROptions
from rlzoo_rwr.algorithm import RWR
from rlzoo_sft import SFTOptions
from rlzoo_sft.algorithm import SFT
from torch import Tensor
from toy_contexts import local

from rlzoo.engine.processes import make_fabric
from rlzoo.engine.run import build
from rlzoo.testing.toy_runs import start, toy_run
from rlzoo.testing.toys import FlowToy

CASES = [
    (RWR, RWROptions, {}),
    (BoN, BoNOptions, {}),
    (NFT, NFTOptions, {}),
    (SFT, SFTOptions, {}),
    (SFT, SFTOptions, {"source": "recordings"}),
]


def gradients(make: Any, options: Any) -> list[Tensor]:
    """Those of every update of a step, the weights left as they are."""
    ctx, found = local(recordings=True), []
    apply = ctx.apply_gradients

    def heard() -> float:
        norm = apply()
        found.append(torch.cat([ctx.gradients[name].flatten() for name, _ in ctx.policy.named_parameters()]))
        return norm

    ctx.apply_gradients = heard  # type: ignore[method-assign]
    algorithm = make(options)
    algorithm.setup(ctx)
    algorithm.step(ctx)
    return found


@pytest.mark.parametrize(("make", "options", "settings"), CASES)
def test_an_update_of_many_draws_is_the_mean_of_as_many_updates(make: Any, options: Any, settings: Any) -> None:
    apart = gradients(make, options(updates=6, **settings))
    together = gradients(make, options(updates=2, draws=3, **settings))
    assert len(apart) == 6
    assert len(together) == 2
    assert not torch.allclose(apart[0], apart[1])
    for update in range(2):
        torch.testing.assert_close(together[update], torch.stack(apart[3 * update : 3 * update + 3]).mean(0))


def test_the_times_of_a_row_lie_evenly_apart(tmp_path: Path) -> None:
    """In the engine as in tests: (u + part / parts) mod 1, one u for each row."""
    run = toy_run(policy={"name": "toy-flow"})  # training times are the uniform draws themselves
    engine = build(run, start(run, tmp_path / "run"), make_fabric("cpu", "fp32"), lambda event: None).ctx
    for ctx in (engine, local(FlowToy)):
        traj = ctx.rollout(keep="final")
        times = torch.stack([ctx.draw(traj, "x", part, 4)[0] for part in range(4)]).double()
        expected = (times[0] + torch.arange(4)[:, None] / 4).frac()
        torch.testing.assert_close(times, expected, rtol=0, atol=1e-6)
        assert len(times[0].unique()) == len(traj)
        noises = [ctx.draw(traj, "x", part, 4)[1] for part in range(4)]
        assert not torch.equal(noises[0], noises[1])
