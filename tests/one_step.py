"""What one step of any algorithm has to leave behind, for the speech policies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlzoo.config.resolve import ResolvedRun
from rlzoo.engine.checkpoint import load_policy
from rlzoo.engine.loop import train
from rlzoo.files.rundir import RunDirectory


def check_one_step(run: ResolvedRun, path: Path) -> None:
    """With the self-checks on: the ratio is 1 before the first update, and the weights are others afterwards."""
    directory = RunDirectory.create(path, toml="", config=run.to_dict(), env={})
    train(run, directory, resume=False)
    before, after = load_policy(directory.path, start=True), load_policy(directory.path)
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    rows = list(directory.metrics())
    assert rows
    if "policy/ratio_max" in rows[0]:
        assert rows[0]["policy/ratio_max"] == pytest.approx(1, abs=1e-4)
