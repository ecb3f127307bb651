"""A reward of your own in one file: speech that is loud enough, but not too loud.

    python examples/own_reward.py [--steps 6] [--out runs/loudness]

A reward gets waveforms and returns one number per row; higher is better. This file is the whole plugin:
`plugins=[FILE]` announces it (`--plugin FILE` on the command line). `rlzoo plugins new reward my-reward` makes an
installable package.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

import rlzoo
from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.audio import valid_mask
from rlzoo.plugin import Options, RewardSpec, hookimpl


class LoudnessOptions(Options):
    """Options of `loudness`; a run file's `[[rewards]]` table may set them."""

    target_dbfs: float = -20.0
    """Level to aim at, in dB relative to full scale."""


class Loudness(Reward[LoudnessOptions]):
    """Minus the distance to the target level, in dB."""

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """Samples (N, L) -> scores (N,). Padding is masked, so a row's score does not depend on its batch mates."""
        mask = valid_mask(samples.lengths, samples.data.shape[-1])
        power = (samples.data**2 * mask).sum(-1) / samples.lengths
        level = 10 * torch.log10(power + 1e-9)
        return Scores(-(level - self.options.target_dbfs).abs())


@hookimpl
def rlzoo_rewards() -> Iterable[RewardSpec]:
    """Announce the reward."""
    yield RewardSpec(
        name="loudness",
        summary="minus the distance to a level in dB",
        target=f"{__name__}:Loudness",
        options=LoudnessOptions,
    )


def main() -> None:
    """Train on the reward for a few steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--out", type=Path, help="run directory; default: a new one under runs/")
    options = parser.parse_args()

    run = rlzoo.run(algo="ddpo", reward="loudness", steps=options.steps, out=options.out, plugins=[__file__])
    print(f"held-out loudness rose by {run.gain:+.2f} dB; report: {run.report}")


if __name__ == "__main__":
    main()
