"""Budget of a run, counted by the engine, so that algorithms are compared at equal budgets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from rlzoo.config.schema import BudgetTable
from rlzoo.core.policy import Policy
from rlzoo.engine.processes import sum_over


@dataclass
class Counters:
    """Totals over all processes since the start of the run, resumed parts included."""

    samples: int = 0
    network_evaluations: int = 0
    reward_calls: int = 0
    updates: int = 0
    seconds: float = 0.0
    local_evaluations: int = 0
    """Rows through the network of this process that `collect` has not yet added to the total."""
    counting: bool = True

    def collect(self, fabric: Fabric) -> None:
        """Add every process's network evaluations to the total. Collective."""
        local = torch.tensor(float(self.local_evaluations), dtype=torch.float64, device=fabric.device)
        self.network_evaluations += int(sum_over(fabric, local))
        self.local_evaluations = 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing inside counts: evaluation is not training."""
        self.counting = False
        try:
            yield
        finally:
            self.counting = True

    def metrics(self) -> dict[str, float]:
        """`budget/...`, one per limit of `[train.budget]`."""
        return {f"budget/{limit.name}": getattr(self, limit.name) for limit in fields(self)[:5]}

    def exhausted(self, budget: BudgetTable) -> str:
        """Name of the first limit that is reached, or nothing."""
        for name in BudgetTable.model_fields:
            limit = getattr(budget, name)
            if limit is not None and getattr(self, name) >= limit:
                return name
        return ""

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints; taken at a step boundary, after `collect`."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        for name, value in state.items():
            setattr(self, name, value)


def instrument(policy: Policy, counters: Counters, fabric: Fabric) -> None:
    """Count every row through `policy.forward`, and run it in the precision of `fabric`.

    Hooks and not a wrapper: algorithms call `policy.transition` and copy the policy, and a copy takes its hooks along.
    """
    entered: list[AbstractContextManager[Any]] = []

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        if counters.counting:
            counters.local_evaluations += int(args[0].shape[0])
        context = fabric.autocast()
        context.__enter__()
        entered.append(context)

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        entered.pop().__exit__(None, None, None)

    policy.register_forward_pre_hook(before)
    policy.register_forward_hook(after, always_call=True)
