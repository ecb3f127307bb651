"""The reward `level`: loudness in dB, easy to move and easy to check. For `follow.py`, as `--plugin level.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.plugin import Options, RewardSpec, hookimpl


class LevelReward(Reward[Options]):
    """Mean power of a sample in dB relative to full scale."""

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """(N, L) audio -> (N,), padding left out, attached to the graph."""
        inside = torch.arange(samples.data.shape[-1], device=samples.data.device) < samples.lengths[:, None]
        power = (samples.data.square() * inside).sum(-1) / samples.lengths
        return Scores(10 * power.clamp(min=1e-9).log10())


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    yield RewardSpec(
        name="level",
        summary="loudness in dB relative to full scale",
        target=f"{__name__}:LevelReward",
        options=Options,
        offers=frozenset({"reward-grad"}),
    )
