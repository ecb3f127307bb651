"""How much of the reward's gradient a policy gradient can see, by where the first of two denoising steps ends.

    python benchmarks/voice/last_step.py --samples 60 --sigma 0.85 0.55 0.25

A rollout's last step has no density, so what it does to the reward is missing from every policy gradient. For the
shipped voice and DNSMOS, which has a gradient, both parts are measured by back-propagation: through the state between
the two steps (seen), and through the last step's own use of the parameters (not seen). Norms, and the cosine of the
seen part with the whole, over the denoiser's biases and over all its weights.
"""

from __future__ import annotations

import argparse
import dataclasses

import torch
from torch import Tensor

from rlzoo import registry
from rlzoo.audio import resample_samples


def build(kind: str, name: str) -> object:
    """A plugin with its default options."""
    spec = getattr(registry.discover(), kind)(name)
    return registry.import_target(spec.target, name, spec.extra)(spec.options())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--sigma", type=float, nargs="+", default=[0.85, 0.55, 0.25])
    arguments = parser.parse_args()
    policy, reward = build("policy", "wavegrad2").eval(), build("reward", "dnsmos")
    prompts = build("prompts", "short").train()
    policy.requires_grad_(False)
    weights = {name: p.requires_grad_() for name, p in policy.named_parameters() if "decoder" in name}
    biases = torch.cat([torch.full((p.numel(),), name.endswith("bias")) for name, p in weights.items()])

    def flat(gradients: tuple[Tensor | None, ...]) -> Tensor:
        pairs = zip(gradients, weights.values(), strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])

    print("| sigma | dnsmos | parameters | seen | not seen | cosine |\n|---|---|---|---|---|---|")
    for sigma in arguments.sigma:
        schedule = policy.schedule(2)
        times = schedule.times.clone()
        times[1] = sigma
        schedule = dataclasses.replace(schedule, times=times)
        generator = torch.Generator().manual_seed(1)
        seen, unseen, scores = torch.zeros(len(biases)), torch.zeros(len(biases)), []
        for index in range(arguments.samples):
            prompt = prompts[index % len(prompts)]
            with torch.no_grad():
                cond = policy.condition([prompt])
            start, noise = (torch.randn(1, *policy.state_shape(cond), generator=generator) for _ in range(2))
            first = policy.transition(start, torch.tensor([0]), cond, schedule)
            between = first.rsample(noise).detach().requires_grad_()
            final = policy.transition(between, torch.tensor([1]), cond, schedule).mode
            score = reward.score(resample_samples(policy.decode(final, cond), 16000), [prompt]).values.sum()
            at_state, *direct = torch.autograd.grad(score, [between, *weights.values()], allow_unused=True)
            unseen += flat(tuple(direct))
            through = torch.autograd.grad(first.mean, list(weights.values()), at_state, allow_unused=True)
            seen += flat(through)
            scores.append(score.item())
        for name, part in (("biases", biases), ("all", torch.ones_like(biases))):
            ours, other = seen[part] / len(scores), unseen[part] / len(scores)
            cosine = torch.cosine_similarity(ours, ours + other, 0)
            mean = sum(scores) / len(scores)
            print(
                f"| {sigma} | {mean:.3f} | {name} | {ours.norm():.2f} | {other.norm():.2f} | {cosine:.3f} |", flush=True
            )


if __name__ == "__main__":
    main()
