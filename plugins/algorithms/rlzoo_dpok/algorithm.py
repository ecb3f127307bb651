"""DPOK (arXiv:2305.16381): E[ -alpha (r - V) sum_k grad log p_k ] + beta sum_k grad KL( p_theta || p_pre ).

Suffixes: N rows, M transitions of a minibatch, K denoising steps, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rlzoo.api import Algorithm, TrainContext, Trajectory, Transitions
from rlzoo.functional import MeanMeter, RatioMeter, clip_elements, masked_mean, ratio_bounds
from rlzoo_dpok import DPOKOptions
from rlzoo_dpok.value import Value, features


class DPOK(Algorithm[DPOKOptions]):
    """One step: sample, score, subtract the value, follow the clamped gradient, refit the value."""

    value: Value | None = None
    _state: Mapping[str, Any] | None = None

    def setup(self, ctx: TrainContext) -> None:
        """Fix the value network's seed, alike on every rank; its size is known with the first rollout."""
        self._seed = int(torch.randint(2**31, (1,), generator=ctx.generator))

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; see `Algorithm.step`."""
        o = self.options
        traj = ctx.rollout()
        scores = ctx.score(traj)
        metrics: dict[str, float] = {}
        if o.baseline == "value":
            adv_KN, metrics["train/value_error"] = self.value_advantages(ctx, traj, scores.values)
        else:
            adv_KN = ctx.advantages(scores, traj).expand_as(traj.log_probs)

        ratios, kls = RatioMeter(o.clip), MeanMeter()
        for batch in ctx.minibatches(traj):
            for m in batch:
                time_M = traj.schedule.to(m.before.device).times[m.k].to(m.before.dtype)
                prediction_MS = ctx.policy.predict(m.before, time_M, m.cond)
                dist = ctx.policy.transition(m.before, m.k, m.cond, traj.schedule, prediction_MS)
                logp_M = dist.log_prob(m.after, ctx.logprob_reduction)
                elements_M = clip_elements(ctx.logprob_reduction, m.before, ctx.policy.mask(m.cond))
                low, high = (bound.to(logp_M) for bound in ratio_bounds(o.clip, elements_M))
                # A plain clamp, as the authors': outside its band the gradient is zero on both sides.
                ratio_M = (logp_M - m.log_prob).exp().minimum(high).maximum(low)
                loss_M = -o.alpha * adv_KN[m.k, m.row] * ratio_M
                if o.beta:
                    kl_M = self.kl(ctx, traj, m, dist, prediction_MS, time_M)
                    loss_M = loss_M + o.beta * kl_M
                    kls.add(kl_M)
                batch.mean(loss_M).backward()
                ratios.add(logp_M, m.log_prob, elements_M)
            ctx.apply_gradients()
        return metrics | ratios.metrics() | ({"policy/kl_loss": kls.mean} if o.beta else {})

    def kl(
        self, ctx: TrainContext, traj: Trajectory, m: Transitions, dist: Any, prediction_MS: Tensor, time_M: Tensor
    ) -> Tensor:
        """(M,) KL of the transition to the starting weights, or its stand-in in the space of network outputs."""
        with torch.no_grad():
            frozen_MS = ctx.reference.predict(m.before, time_M, m.cond)
            reference = ctx.reference.transition(m.before, m.k, m.cond, traj.schedule, frozen_MS)
        if self.options.kl_space == "eps":
            return masked_mean((prediction_MS - frozen_MS) ** 2, ctx.policy.mask(m.cond))
        kl_M: Tensor = dist.kl(reference, ctx.logprob_reduction)
        return kl_M

    def value_advantages(self, ctx: TrainContext, traj: Trajectory, values_N: Tensor) -> tuple[Tensor, float]:
        """(K, N) score minus its expectation at each visited state, and the value network's error; then refit it."""
        steps = traj.schedule.stochastic.nonzero().flatten().tolist()
        mask, times = ctx.policy.mask(traj.cond), traj.schedule.to(traj.states.device).times
        features_KNF = torch.stack(
            [features(traj.state(k), mask, times[k].expand(len(traj)), traj.cond) for k in steps]
        )
        wide = torch.cat([features_KNF.transpose(0, 1).flatten(1), values_N[:, None].to(features_KNF)], 1)
        gathered = ctx.gather(wide)  # (N of all ranks, K F + 1)
        targets_N = gathered[:, -1]
        all_KNF = gathered[:, :-1].unflatten(1, features_KNF.shape[::2]).transpose(0, 1)
        value = self.built(all_KNF.shape[-1], all_KNF.device)
        value.calibrate(all_KNF.flatten(0, 1), targets_N)
        adv_KN = torch.zeros_like(traj.log_probs)
        with torch.no_grad():
            adv_KN[steps] = (values_N - torch.stack([value(f_NF) for f_NF in features_KNF])).to(adv_KN)
        if self.options.scale:
            adv_KN = adv_KN / (targets_N.std(correction=0) + 1e-4).to(adv_KN)
        targets_KN = targets_N.expand(len(steps), -1)
        return adv_KN, value.fit(all_KNF.flatten(0, 1), targets_KN.flatten(), self.options.value_updates)

    def built(self, num_features: int, device: torch.device) -> Value:
        """The value network, made or restored when it is first used."""
        if self.value is None:
            o = self.options
            self.value = Value(num_features, o.value_width, o.value_learning_rate, self._seed, device)
            if self._state is not None:
                self.value.load_state_dict(self._state)
                self._state = None
        return self.value

    def state_dict(self) -> dict[str, Any]:
        """The value network; nothing before the first step."""
        return dict(self._state or {}) if self.value is None else self.value.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.value, self._state = None, dict(state) or None
