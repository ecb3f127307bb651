"""DDPO and DLPO as people copy them: a loop over a padded batch that keeps everything and uses nothing twice.

The batch is padded to its longest row and goes through the literal network as a whole, in sampling and in training, and
every row's padding is computed with it. All states are kept, whole utterances and every step are trained, the text is
encoded anew for every network evaluation, and for DLPO the reference is evaluated beside every training step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from engine_runs import Level
from plain.wavegrad2 import denoise
from rlzoo_wavegrad2.policy import WaveGrad2Policy
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rlzoo.api import Batch, Prompt, Samples, StepDistribution
from rlzoo.core.noise import draw_noise, generator_of
from rlzoo.functional import batch_advantages, masked_mean
from rlzoo.plugin import Options

BETA = 1e-4
"""Weight of DLPO's diffusion loss beside log-probabilities that are means."""


class PlainLoop:
    """The gradient of one iteration. `batch` rows go through the network together."""

    def __init__(
        self,
        policy: WaveGrad2Policy,
        prompts: Sequence[Prompt],
        algorithm: Literal["ddpo", "dlpo"],
        steps: int,
        batch: int,
        autocast: bool = False,
    ) -> None:
        self.policy, self.prompts, self.algorithm, self.batch = policy, list(prompts), algorithm, batch
        self.schedule = policy.schedule(steps)
        self.weights = dict(policy.network.decoder.named_parameters())
        self.frozen = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.reward, self.autocast = Level(Options()), autocast

    def gradient(self, seeds: Sequence[int]) -> Tensor:
        """Seeds of the rows, so that others can draw the same noise -> the gradient of all that is trained, flat."""
        count, steps = len(self.prompts), self.schedule.stochastic.nonzero().flatten().tolist()
        stored, values = [], []
        with torch.no_grad():
            for first in range(0, count, self.batch):
                rows = slice(first, first + self.batch)
                states, log_probs, samples = self.sample(self.prompts[rows], seeds[rows])
                stored.append((self.prompts[rows], states, log_probs))
                values.append(self.reward.score(samples, self.prompts[rows]).values)
        advantages = batch_advantages(torch.cat(values)).clamp(-5, 5).split([len(rows) for rows, _, _ in stored])
        for (rows, states, log_probs), advantage in zip(stored, advantages, strict=True):
            for k in steps:
                eps, cond = self.predict(self.weights, states[k], k, rows)
                loss = -advantage * (self.step(states[k], k, cond, eps).log_prob(states[k + 1]) - log_probs[k]).exp()
                if self.algorithm == "dlpo":
                    with torch.no_grad():
                        reference, _ = self.predict(self.frozen, states[k], k, rows)
                        self.step(states[k], k, cond, reference).log_prob(states[k + 1])
                    sigma = float(self.schedule.times[k])
                    implied = (states[k] - math.sqrt(1 - sigma**2) * states[-1]) / sigma
                    loss = loss + BETA * masked_mean((eps - implied).abs(), self.policy.mask(cond))
                (loss.sum() / (count * len(steps))).backward()
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        found = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten().cpu() for p in trained])
        self.policy.zero_grad(set_to_none=True)
        return found

    def sample(self, rows: Sequence[Prompt], seeds: Sequence[int]) -> tuple[list[Tensor], list[Tensor], Samples]:
        """All K+1 states (n, L), K log-probabilities (n,), and what is heard."""
        cond = self.condition(rows)
        shape, lengths = self.policy.state_shape(cond), self.policy.lengths(cond).tolist()
        generators = [generator_of(seed) for seed in seeds]
        draws = (draw_noise(generators, shape, lengths).to(self.policy.device) for _ in range(1 + len(self.schedule)))
        states, log_probs = [next(draws)], []
        for k, noise in enumerate(draws):
            eps, cond = self.predict(self.weights, states[k], k, rows)
            step = self.step(states[k], k, cond, eps)
            drawn = bool(self.schedule.stochastic[k])
            states.append(step.rsample(noise) if drawn else step.mode)
            log_probs.append(step.log_prob(states[-1]) if drawn else noise.new_zeros(len(rows)))
        return states, log_probs, self.policy.decode(states[-1], cond)

    def predict(self, weights: dict[str, Tensor], x: Tensor, k: int, rows: Sequence[Prompt]) -> tuple[Tensor, Batch]:
        """The literal network on the padded batch (n, L), and the conditioning that was made for it."""
        with torch.no_grad():
            cond = self.condition(rows)
        # From sigma in float32, as the policy has it: its rounding would be the largest difference between the loops.
        level = (1 - self.schedule.times[k].float().double() ** 2).sqrt().float().to(x.device).expand(len(x))
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast):
            eps = denoise(weights, self.policy.config, x, cond.get("hidden"), level)
        return eps.float(), cond

    def step(self, x: Tensor, k: int, cond: Batch, eps: Tensor) -> StepDistribution:
        """p(x[k+1] | x[k]); padding counts nowhere."""
        return self.policy.transition(x, torch.full((len(x),), k, device=x.device), cond, self.schedule, eps)

    def condition(self, rows: Sequence[Prompt]) -> Batch:
        """Text to hidden frames, as one padded batch."""
        network, ids = self.policy.network, [self.policy.ids(prompt) for prompt in rows]
        phones = torch.tensor([len(row) for row in ids], device=self.policy.device)
        encoded = network.encode(pad_sequence(ids, batch_first=True).to(phones.device), phones)
        durations = network.frames(network.resampling.seconds(encoded, phones), phones)
        hidden = network.resampling(encoded, durations, phones)
        return Batch({"frames": durations.sum(1).long(), "hidden": hidden})
