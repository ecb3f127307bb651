"""One gradient update: summed over processes, clipped, applied, averaged.

Gradients are summed in float64, over the pieces of a minibatch as over processes. A sum of float32 numbers depends on
their order in its last digit, which is enough for one process and two to have heard different waveforms a step later;
in float64 that digit is far below what float32 keeps of the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from rlzoo.config.schema import TrainTable
from rlzoo.core.policy import Policy
from rlzoo.engine.processes import sum_over
from rlzoo.errors import ConfigError, Diverged


class Optimisation:
    """AdamW over the policy's trainable parameters, and the moving average of its weights."""

    def __init__(self, policy: Policy, table: TrainTable) -> None:
        parameters = [p for p in policy.parameters() if p.requires_grad]
        if not parameters:
            raise ConfigError("the policy has no trainable parameter", "its options freeze everything")
        self._policy = policy
        self._table = table
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            parameters,
            lr=table.learning_rate,
            betas=table.adam_betas,
            eps=table.adam_eps,
            weight_decay=table.weight_decay,
        )
        self._accumulate(parameters)
        self._updates = 0
        self._average: dict[str, Tensor] = {}
        if table.ema_decay:
            self._average = {name: p.detach().clone() for name, p in self._trainable()}

    def apply(self, fabric: Fabric, step: int) -> float:
        """Sum, clip, step, zero, average; returns the norm before clipping. Diverged if it is not finite."""
        parameters = self._parameters()
        sum_gradients(fabric, parameters)
        norm = float(nn.utils.clip_grad_norm_(parameters, self._table.grad_clip))
        if not math.isfinite(norm):
            self.discard()
            raise Diverged(
                f"the gradient of step {step + 1} is not finite",
                "nothing was updated; lower train.learning_rate or train.advantage_clip and resume the last checkpoint",
            )
        for parameter in parameters:
            # An optimiser wants gradients of the weights' own kind.
            gradient, parameter.grad = parameter.grad, None
            parameter.grad_dtype = None
            parameter.grad = None if gradient is None else gradient.to(parameter.dtype)
        for group in self.optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * rate_factor(self._table, step)
        self.optimizer.step()
        self.discard()
        self._updates += 1
        decay = ema_decay(self._table, self._updates)
        with torch.no_grad():
            for name, parameter in self._trainable() if self._average else ():
                self._average[name].lerp_(parameter, 1.0 - decay)
        return norm

    def discard(self) -> None:
        """Forget what backward passes have left since the last update."""
        self.optimizer.zero_grad(set_to_none=True)
        self._accumulate(self._parameters())

    @staticmethod
    def _accumulate(parameters: list[nn.Parameter]) -> None:
        for parameter in parameters:
            parameter.grad_dtype = torch.float64

    def gradient(self, fabric: Fabric) -> Tensor:
        """The policy's gradient summed over processes, flat on the CPU; nothing is applied. Collective."""
        sum_gradients(fabric, self._parameters())
        policy = [p for _, p in self._trainable()]
        flat = [(torch.zeros_like(p) if p.grad is None else p.grad).float().flatten().cpu() for p in policy]
        return torch.cat(flat)

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the policy has its averaged weights, if it has any."""
        if not self._average:
            yield
            return
        trained = {name: p.detach().clone() for name, p in self._trainable()}
        self._write(self._average)
        try:
            yield
        finally:
            self._write(trained)

    def _trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self._policy.named_parameters() if p.requires_grad)

    @torch.no_grad()
    def _write(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._trainable():
            parameter.copy_(values[name])

    def state_dict(self) -> dict[str, Any]:
        """Optimiser and average; then also the weights in training, because the checkpoint's own are averaged."""
        trained = {name: p.detach().clone() for name, p in self._trainable()} if self._average else {}
        averages = {"average": self._average, "trained": trained, "updates": self._updates}
        return {"optimizer": self.optimizer.state_dict(), **averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self._updates = state["updates"]
        with torch.no_grad():
            for name, value in self._average.items():
                value.copy_(state["average"][name])
        if self._average:
            self._write(state["trained"])


def rate_factor(table: TrainTable, step: int) -> float:
    """Factor of the learning rate in optimisation step `step` = 0, 1 ...

    It rises linearly over the first `warmup_steps`, then stays, or falls linearly or along a cosine, to reach 0 after
    the last of `steps`.
    """
    if step < table.warmup_steps:
        return (step + 1) / table.warmup_steps
    done = (step - table.warmup_steps) / max(1, table.steps - table.warmup_steps)
    falls = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
    return max(0.0, falls[table.learning_rate_schedule])


def ema_decay(table: TrainTable, update: int) -> float:
    """Decay of the weights' average at gradient update `update` = 1, 2 ..."""
    return min(table.ema_decay, (1 + update) / (10 + update)) if table.ema_warmup else table.ema_decay


def sum_gradients(fabric: Fabric, parameters: list[nn.Parameter]) -> None:
    """Gradients become their sum over processes. A parameter without a gradient on any process keeps none.

    A sum and no mean: `Minibatch.mean` has divided by the size over all processes already. One message for everything:
    hundreds of small ones would cost more than the arithmetic.
    """
    if fabric.world_size == 1:
        return
    present = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float64, device=fabric.device)
    flat = torch.cat([present, *((torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters)])
    flat = sum_over(fabric, flat)
    values = flat[len(parameters) :].split([p.numel() for p in parameters])
    for parameter, value, count in zip(parameters, values, flat[: len(parameters)].tolist(), strict=True):
        parameter.grad = value.view_as(parameter).to(parameter.grad_dtype) if count else None
