"""Direction in which methods that train on own samples move loudness, by noise level.

    python benchmarks/voice/noise_levels.py --prompts 3 --samples 6 --sigma 0.9967 0.9 0.55 0.2 0.05

For the voice that ships and the reward `level`: the change of the expected loudness, in dB per unit of step, along
minus the gradient of a denoising loss on the policy's own samples. `A`: each sample weighted by its advantage in its
group, as `awm`, `nft` and (on top of `all`) `rwr` do, with the standard error over samples; `all`: every sample alike.
"l2" is the loss of `awm`, "nft" that of `nft` at its old policy, "l1" the voice's own, which `rwr` and `bon` take. The
change is that of both denoising steps, and of the first and the second one's use of the weights apart. The figures in
the README of `nft` are of an earlier voice, which two steps were enough for.
"""

from __future__ import annotations

import argparse

import torch
from last_step import build, flat
from level import LevelReward
from torch import Tensor

from rlzoo.api import Batch
from rlzoo.functional import group_advantages
from rlzoo.plugin import Options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=3)
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--sigma", type=float, nargs="+", default=[0.9967, 0.9, 0.55, 0.2, 0.05])
    arguments = parser.parse_args()
    policy, reward = build("policy", "wavegrad2").eval(), LevelReward(Options())
    prompts = build("prompts", "short").train()[: arguments.prompts]
    weights, schedule = [p for p in policy.parameters() if p.requires_grad], policy.schedule(2)
    generator = torch.Generator().manual_seed(3)

    rise = torch.zeros(2, sum(w.numel() for w in weights))  # of the expected reward: by the first step, by the second
    own: list[tuple[Batch, Tensor]] = []
    scores, group = [], []
    for number, prompt in enumerate(prompts):
        with torch.no_grad():
            cond = policy.condition([prompt])
        for _ in range(arguments.samples):
            start, noise = (torch.randn(1, *policy.state_shape(cond), generator=generator) for _ in range(2))
            first = policy.transition(start, torch.tensor([0]), cond, schedule)
            between = first.rsample(noise).detach().requires_grad_()
            final = policy.transition(between, torch.tensor([1]), cond, schedule).mode
            score = reward.score(policy.decode(final, cond), [prompt]).values.sum()
            at_state, *direct = torch.autograd.grad(score, [between, *weights], materialize_grads=True)
            through = torch.autograd.grad(first.mean, weights, at_state, materialize_grads=True)
            rise += torch.stack([flat(through), flat(direct)])
            own.append((cond, final.detach()))
            scores.append(score.item())
            group.append(number)
    rise /= len(own)
    advantage = group_advantages(torch.tensor(scores), torch.tensor(group))

    print("| sigma | loss | A, both steps | A, first | A, second | all, both steps | spread over samples |")
    print("|---|---|---|---|---|---|---|")
    for sigma in arguments.sigma:
        t, changes = torch.tensor([sigma]), {"l1": [], "l2": [], "nft": []}
        for cond, x in own:
            noise = torch.randn(x.shape, generator=generator)
            x_t = policy.noisy(x, noise, t)
            prediction = policy.predict(x_t, t, cond)
            off = prediction - noise
            clean = policy.clean(x_t, prediction, t) - x
            losses = {
                "l1": off.abs().mean(),
                "l2": off.square().mean(),
                "nft": (clean.square() / clean.detach().abs().mean()).mean(),
            }
            for name, loss in losses.items():
                gradient = torch.autograd.grad(loss, weights, retain_graph=name != "nft", materialize_grads=True)
                changes[name].append(-rise @ flat(gradient))
        for name, rows in changes.items():
            change = torch.stack(rows)  # (N, 2)
            centred = change.view(len(prompts), -1, 2)
            centred = (centred - centred.mean(1, keepdim=True)).flatten(0, 1) * advantage[:, None]
            both, plain = centred.sum(1), change.sum(1)
            one, two = centred.mean(0).tolist()
            error = both.std() / len(own) ** 0.5
            print(
                f"| {sigma} | {name} | {both.mean():+.4f} ± {error:.4f} | {one:+.4f} | {two:+.4f} "
                f"| {plain.mean():+.4f} | {plain.std():.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
