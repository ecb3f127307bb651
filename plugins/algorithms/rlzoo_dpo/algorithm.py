"""Diffusion-DPO (arXiv:2311.12908): prefer the better of two samples, by their denoising losses at one time and noise.

Suffixes: N rows, P pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from rlzoo.api import Algorithm, Batch, Media, Policy, Prompt, Samples, TrainContext, Trajectory
from rlzoo.audio import read_audio
from rlzoo.errors import ConfigError, DataError
from rlzoo.functional import MeanMeter, masked_mean, row_noise, row_uniform
from rlzoo.preferences import Preference, read_preferences
from rlzoo_dpo import DPOOptions


class DPO(Algorithm[DPOOptions]):
    """One step: pairs from own samples or from the file, then a few updates on them."""

    pairs: list[Preference]

    def __init__(self, options: DPOOptions) -> None:
        super().__init__(options)
        self.uses_reward = options.preferences is None

    def setup(self, ctx: TrainContext) -> None:
        """Read and check the file of preferences, recordings included: a bad one must not end a run half way."""
        self.pairs = [] if self.options.preferences is None else decided_pairs(self.options.preferences)
        for side in {side for pair in self.pairs for side in (pair.preferred, pair.rejected)}:
            if isinstance(side, Path):
                load(side, ctx.policy.media)

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; see `Algorithm.step`."""
        return self.offline(ctx) if self.pairs else self.online(ctx)

    def online(self, ctx: TrainContext) -> Mapping[str, float]:
        """Best and worst of each prompt's samples."""
        traj = ctx.rollout(keep="final")
        winner_P, loser_P = self.choose(ctx.score(traj).values, traj)
        count = int(ctx.gather(winner_P).numel())
        margins = MeanMeter()
        for update in range(self.options.updates if count else 0):
            t_N, noise = ctx.draw(traj, "dpo", update, self.options.updates)
            for piece in ctx.micro_batches(len(winner_P), traj):
                w, l = winner_P[piece], loser_P[piece]
                # The winner's draw for both: samples of one prompt have one shape.
                seeds = f"dpo {update}", traj.seeds_of(w)
                cond, (better, worse, drawn) = ctx.crop(*seeds, traj.cond[w], traj.final[w], traj.final[l], noise[w])
                gain_w, gain_l = (self.gain(ctx, x, cond, t_N[w], drawn) for x in (better, worse))
                margin_P = self.options.beta / 2 * (gain_w - gain_l)
                (-nn.functional.logsigmoid(margin_P).sum() / count).backward()
                margins.add(margin_P)
            ctx.apply_gradients()
        return {"policy/margin": margins.mean, "train/pairs": float(count)}

    def offline(self, ctx: TrainContext) -> Mapping[str, float]:
        """The next random pairs of the file. Pairs come one by one: their two sides may differ in length."""
        o = self.options
        chosen = torch.randint(len(self.pairs), (o.pairs_per_step,), generator=ctx.generator).tolist()
        seed = int(torch.randint(2**62, (1,), generator=ctx.generator))
        names = [Prompt(str(index)) for index in range(o.pairs_per_step)]
        margins = MeanMeter()
        for update in range(o.updates):
            for place in (int(name.id) for name in ctx.share(names)):
                margin = self.margin(ctx, self.pairs[chosen[place]], f"{seed}/{update}/{place}")
                (-nn.functional.logsigmoid(margin).sum() / o.pairs_per_step).backward()
                margins.add(margin)
            ctx.apply_gradients()
        return {"policy/margin": margins.mean, "train/pairs": float(o.pairs_per_step)}

    def margin(self, ctx: TrainContext, pair: Preference, seed: str) -> Tensor:
        """(1,) how much more the policy has gained on the preferred side than on the rejected one, README Eq. 1."""
        weight = next(ctx.policy.parameters())
        t = ctx.times(row_uniform([seed], "time").to(weight))
        gains = []
        for side in (pair.preferred, pair.rejected):
            with torch.no_grad():
                x, cond = ctx.policy.supervise([spoken(pair.prompt, side)], load(side, ctx.policy.media))
            x = x.to(weight)
            noise = row_noise([seed], "noise", x.shape[1:]).to(x)
            part, (clean, drawn) = ctx.crop("dpo", [seed], cond, x, noise)
            gains.append(self.gain(ctx, clean, part, t, drawn))
        return self.options.beta / 2 * (gains[0] - gains[1])

    def gain(self, ctx: TrainContext, x: Tensor, cond: Batch, t: Tensor, noise: Tensor) -> Tensor:
        """(n,) by how much the policy's squared denoising loss lies below that of the starting weights."""
        with torch.no_grad():
            before = self.loss(ctx.reference, x, cond, t, noise)
        return before - self.loss(ctx.policy, x, cond, t, noise)

    def loss(self, policy: Policy, x: Tensor, cond: Batch, t: Tensor, noise: Tensor) -> Tensor:
        """(n,) squared denoising loss per element, whatever norm the policy was pretrained with: DPO's bound is l2."""
        difference = policy.predict(policy.noisy(x, noise, t), t, cond) - policy.target(x, noise, t)
        return masked_mean(difference**2, policy.mask(cond))

    def choose(self, values_N: Tensor, traj: Trajectory) -> tuple[Tensor, Tensor]:
        """(N,) scores -> rows of the best and of the worst sample of each prompt, (P,) both; ties are left out."""
        winners, losers = [], []
        for group in traj.group.unique():
            rows = (traj.group == group).nonzero().flatten()
            if len(rows) < 2:
                raise ConfigError("one sample per prompt makes no pair", "set rollout.samples_per_prompt to 2 or more")
            best, worst = rows[values_N[rows].argmax()], rows[values_N[rows].argmin()]
            if values_N[best] > values_N[worst]:
                winners.append(best)
                losers.append(worst)
        empty = torch.zeros(0, dtype=torch.int64, device=values_N.device)
        return (torch.stack(winners), torch.stack(losers)) if winners else (empty, empty)


def decided_pairs(path: Path) -> list[Preference]:
    """The file's pairs without its ties. DataError if none is left, or where a prompt has nothing to say."""
    pairs = [pair for pair in read_preferences(path) if not pair.tie]
    if not pairs:
        raise DataError(f"'{path}' holds ties only", "let more people listen: dpo learns from decided pairs")
    for pair in pairs:
        if not pair.prompt.text:
            raise DataError(
                f"'{path}': prompt '{pair.prompt.id}' has no text, which dpo needs",
                "write it into its lines; rlzoo listen takes it from a metadata.csv (name|text) beside the recordings",
            )
    return pairs


def spoken(prompt: Prompt, side: Path | tuple[float, ...]) -> Prompt:
    """The prompt with this side as its recording, so that a policy looks for the phone times of this one."""
    return replace(prompt, attributes={**prompt.attributes, "audio": str(side)}) if isinstance(side, Path) else prompt


def load(side: Path | tuple[float, ...], media: Media) -> Samples:
    """One side of a pair as a batch of one row. DataError for audio at another rate than the policy's."""
    wave = read_audio(side, media.sample_rate)[0] if isinstance(side, Path) else torch.tensor(side)
    return Samples(wave[None], torch.tensor([wave.shape[-1]]), media)
