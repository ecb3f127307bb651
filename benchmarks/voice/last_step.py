"""Share of the reward's gradient that a policy gradient can see, by where the first of two denoising steps ends.

    python benchmarks/voice/last_step.py --samples 60 --sigma 0.85 0.55 0.25
    python benchmarks/voice/last_step.py --reward level --plugin benchmarks/voice/level.py --sigma 0.55

A rollout's last step has no density, so what it does to the reward is missing from every policy gradient. For the
voice that ships and a reward that has a gradient, both parts are measured by back-propagation: through the state
between the two steps (seen), and through the last step's own use of the parameters (not seen). Norms, and the cosine of
the seen part with the whole, over the denoiser's biases and over all its weights. The figures in decisions 12 and 13
are of earlier voices, which two steps were enough for.

`agreement`: cosine of the seen part of every other sample with that of the rest, each parameter divided by its root
mean square, as Adam does. Near 0 the samples have nothing in common that a step could follow; and this is exact
back-propagation, of which a policy gradient is a noisy estimate.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rlzoo.audio import resample_samples
from rlzoo.config import registry


def build(kind: str, name: str, plugins: registry.Registry | None = None) -> object:
    """A plugin with its default options."""
    spec = getattr(plugins or registry.discover(), kind)(name)
    return registry.import_target(spec.target, name, spec.extra)(spec.options())


def flat(gradients: Sequence[Tensor]) -> Tensor:
    """(W,): one gradient of all weights."""
    return torch.cat([gradient.flatten() for gradient in gradients])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--sigma", type=float, nargs="+", default=[0.85, 0.55, 0.25])
    parser.add_argument("--reward", default="dnsmos")
    parser.add_argument("--plugin", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    policy = build("policy", "wavegrad2").eval()
    reward = build("reward", arguments.reward, registry.discover(files=arguments.plugin))
    prompts = build("prompts", "short").train()
    policy.requires_grad_(False)
    named = {name: p.requires_grad_() for name, p in policy.named_parameters() if "decoder" in name}
    biases = torch.cat([torch.full((p.numel(),), name.endswith("bias")) for name, p in named.items()])
    weights = list(named.values())

    print("| sigma | reward | parameters | seen | not seen | cosine | agreement |\n|---|---|---|---|---|---|---|")
    for sigma in arguments.sigma:
        schedule = policy.schedule(2)
        times = schedule.times.clone()
        times[1] = sigma
        schedule = dataclasses.replace(schedule, times=times)
        generator = torch.Generator().manual_seed(1)
        halves, squares = torch.zeros(2, len(biases)), torch.zeros(len(biases))
        unseen, scores = torch.zeros(len(biases)), []
        for index in range(arguments.samples):
            prompt = prompts[index % len(prompts)]
            with torch.no_grad():
                cond = policy.condition([prompt])
            start, noise = (torch.randn(1, *policy.state_shape(cond), generator=generator) for _ in range(2))
            first = policy.transition(start, torch.tensor([0]), cond, schedule)
            between = first.rsample(noise).detach().requires_grad_()
            final = policy.transition(between, torch.tensor([1]), cond, schedule).mode
            heard = resample_samples(policy.decode(final, cond), reward.sample_rate)
            score = reward.score(heard, [prompt]).values.sum()
            at_state, *direct = torch.autograd.grad(score, [between, *weights], materialize_grads=True)
            unseen += flat(direct)
            gradient = flat(torch.autograd.grad(first.mean, weights, at_state, materialize_grads=True))
            halves[index % 2] += gradient
            squares += gradient**2
            scores.append(score.item())
        for name, part in (("biases", biases), ("all", torch.ones_like(biases))):
            ours, other = halves.sum(0)[part] / len(scores), unseen[part] / len(scores)
            cosine = torch.cosine_similarity(ours, ours + other, 0)
            one, rest = halves[:, part] / squares[part].sqrt().clamp(min=1e-12)
            mean, agreement = sum(scores) / len(scores), torch.cosine_similarity(one, rest, 0)
            norms = f"{ours.norm():.2f} | {other.norm():.2f}"
            print(f"| {sigma} | {mean:.3f} | {name} | {norms} | {cosine:.3f} | {agreement:.3f} |", flush=True)


if __name__ == "__main__":
    main()
