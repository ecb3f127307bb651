"""DDPO and DLPO as people copy them: a loop over a padded batch that keeps everything and uses nothing twice.

The batch is padded to its longest row and goes through the network as a whole, in sampling and in training, and every
row's padding is computed with it. All states are kept, whole utterances and every step are trained, and for DLPO the
reference is evaluated beside every training step. The network is WaveGrad 2's, restated literally, with the text
encoded anew for every evaluation, or Grad-TTS' own as it runs on a GPU: all rows at once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, Literal, TypeVar

import torch
from engine_runs import Level
from plain.wavegrad2 import denoise
from rlzoo_gradtts.policy import GradTTSPolicy
from rlzoo_wavegrad2.policy import WaveGrad2Policy
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rlzoo.api import Batch, GaussianDiffusionPolicy, Prompt, Samples, StepDistribution
from rlzoo.core.noise import draw_noise, generator_of
from rlzoo.functional import batch_advantages, masked_mean
from rlzoo.plugin import Options

P = TypeVar("P", bound=GaussianDiffusionPolicy)

BETA = 1e-4
"""Weight of DLPO's diffusion loss beside log-probabilities that are means."""


class PlainLoop(ABC, Generic[P]):
    """The gradient of one iteration. `batch` rows go through the network together."""

    def __init__(
        self,
        policy: P,
        prompts: Sequence[Prompt],
        algorithm: Literal["ddpo", "dlpo"],
        steps: int,
        batch: int,
        autocast: bool = False,
    ) -> None:
        self.policy, self.prompts, self.algorithm, self.batch = policy, list(prompts), algorithm, batch
        self.schedule = policy.schedule(steps)
        self.weights = dict(policy.named_parameters())
        self.frozen = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.reward, self.autocast = Level(Options()), autocast
        self.device = next(policy.parameters()).device

    @abstractmethod
    def condition(self, rows: Sequence[Prompt]) -> Batch:
        """Text to conditioning, as one padded batch."""

    @abstractmethod
    def network(self, weights: Mapping[str, Tensor], x: Tensor, sigma: Tensor, cond: Batch) -> Tensor:
        """The network's prediction for the padded batch (n, *S) at the noise level `sigma`, a scalar."""

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
        draws = (draw_noise(generators, shape, lengths).to(self.device) for _ in range(1 + len(self.schedule)))
        states, log_probs = [next(draws)], []
        for k, noise in enumerate(draws):
            eps, cond = self.predict(self.weights, states[k], k, rows)
            step = self.step(states[k], k, cond, eps)
            drawn = bool(self.schedule.stochastic[k])
            states.append(step.rsample(noise) if drawn else step.mode)
            log_probs.append(step.log_prob(states[-1]) if drawn else noise.new_zeros(len(rows)))
        return states, log_probs, self.policy.decode(states[-1], cond)

    def predict(self, weights: Mapping[str, Tensor], x: Tensor, k: int, rows: Sequence[Prompt]) -> tuple[Tensor, Batch]:
        """The prediction before step k for the padded batch (n, *S), and the conditioning that was made for it."""
        with torch.no_grad():
            cond = self.condition(rows)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast):
            prediction = self.network(weights, x, self.schedule.times[k], cond)
        return prediction.float(), cond

    def step(self, x: Tensor, k: int, cond: Batch, prediction: Tensor) -> StepDistribution:
        """p(x[k+1] | x[k]); padding counts nowhere."""
        return self.policy.transition(x, torch.full((len(x),), k, device=x.device), cond, self.schedule, prediction)


class PlainWaveGrad2(PlainLoop[WaveGrad2Policy]):
    """With the literal network."""

    def condition(self, rows: Sequence[Prompt]) -> Batch:
        network, ids = self.policy.network, [self.policy.ids(prompt) for prompt in rows]
        phones = torch.tensor([len(row) for row in ids], device=self.device)
        encoded = network.encode(pad_sequence(ids, batch_first=True).to(phones.device), phones)
        durations = network.frames(network.resampling.seconds(encoded, phones), phones)
        hidden = network.resampling(encoded, durations, phones)
        return Batch({"frames": durations.sum(1).long(), "hidden": hidden})

    def network(self, weights: Mapping[str, Tensor], x: Tensor, sigma: Tensor, cond: Batch) -> Tensor:
        # From sigma in float32, as the policy has it: its rounding would be the largest difference between the loops.
        level = (1 - sigma.float().double() ** 2).sqrt().float().to(x.device).expand(len(x))
        prefix = "network.decoder."
        decoder = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
        return denoise(decoder, self.policy.config, x, cond.get("hidden"), level)


class PlainGradTTS(PlainLoop[GradTTSPolicy]):
    """With the policy's own network, a batch at once. Only `ddpo`: the loss of DLPO's loop is in the noise.

    A batch's text is encoded once in an iteration, as ddpo-pytorch does.
    """

    def gradient(self, seeds: Sequence[int]) -> Tensor:
        self.encoded: dict[tuple[str, ...], Batch] = {}
        return super().gradient(seeds)

    def condition(self, rows: Sequence[Prompt]) -> Batch:
        key = tuple(prompt.id for prompt in rows)
        if key not in self.encoded:
            self.encoded[key] = self.policy.batch([self.policy.encode(self.policy.ids(prompt)) for prompt in rows])
        return self.encoded[key]

    def network(self, weights: Mapping[str, Tensor], x: Tensor, sigma: Tensor, cond: Batch) -> Tensor:
        level = sigma.float().to(x.device).expand(len(x))
        return self.policy.denoise(x, level, cond.get("frames"), cond.get("features"))
