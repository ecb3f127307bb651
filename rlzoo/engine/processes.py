"""Devices and processes, all through Lightning Fabric. One process unless torchrun or SLURM started more."""

from __future__ import annotations

import atexit
import os
from typing import cast

import torch
import torch.distributed
from lightning_fabric import Fabric
from lightning_fabric.accelerators.cuda import CUDAAccelerator
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from torch import Tensor

from rlzoo.core.precision import use_real_float32
from rlzoo.engine.allocator import keep_freed_memory
from rlzoo.errors import ConfigError


class CUDA(CUDAAccelerator):
    """Fabric's, without its hint to turn TF32 on: `use_real_float32` has decided that."""

    def setup_device(self, device: torch.device) -> None:
        """Choose the device for this process."""
        torch.cuda.set_device(device)


def make_fabric(device: str, precision: str) -> Fabric:
    """Join the processes of this launch. ConfigError for a device that is not here."""
    keep_freed_memory()
    use_real_float32()
    world, nodes = _launched_processes()
    kind, _, index = device.partition(":")
    if kind not in {"auto", "cpu", "cuda"} or (index and not (kind == "cuda" and index.isdigit())):
        raise ConfigError(f"train.device = '{device}' is not a device", "use auto, cpu, cuda or cuda:1")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"train.device = '{device}', but torch sees no CUDA device here", "use --device cpu")
    if index and int(index) >= torch.cuda.device_count():
        raise ConfigError(f"train.device = '{device}', but there are {torch.cuda.device_count()} CUDA devices")
    fabric = Fabric(
        accelerator=CUDA() if kind != "cpu" and torch.cuda.is_available() else "cpu",
        devices=[int(index)] if index and world == 1 else world // nodes,
        num_nodes=nodes,
        strategy="ddp" if world > 1 else "auto",
        precision="32-true" if precision == "fp32" else "bf16-mixed",
    )
    fabric.launch()
    if world > 1:
        atexit.register(_leave)
    return fabric


def _leave() -> None:
    """Close all connections. Lightning does so for nccl only; gloo left open may abort a process as it ends."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _launched_processes() -> tuple[int, int]:
    """Processes and nodes of this launch."""
    if "WORLD_SIZE" in os.environ:
        world = int(os.environ["WORLD_SIZE"])
        return world, world // int(os.environ.get("LOCAL_WORLD_SIZE", world))
    if SLURMEnvironment.detect():
        return int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NNODES", "1"))
    return 1, 1


def gather(fabric: Fabric, values: Tensor) -> Tensor:
    """(N, ...) of each process -> (N over all processes, ...), in rank order; N may differ. Collective."""
    if fabric.world_size == 1:
        return values
    sizes = _stacked(fabric, torch.tensor(len(values), device=fabric.device)).tolist()
    padded = values.new_zeros(max(sizes), *values.shape[1:])
    padded[: len(values)] = values
    gathered = _stacked(fabric, padded.to(fabric.device))
    return torch.cat([gathered[rank, :size] for rank, size in enumerate(sizes)]).to(values.device)


def any_process(fabric: Fabric, flag: bool) -> bool:
    """True if `flag` is true in at least one process. Collective."""
    return bool(sum_over(fabric, torch.tensor(float(flag), device=fabric.device)) > 0)


def sum_over(fabric: Fabric, values: Tensor) -> Tensor:
    """The sum over processes. Collective."""
    return cast(Tensor, fabric.all_reduce(values, reduce_op="sum"))


def _stacked(fabric: Fabric, values: Tensor) -> Tensor:
    return cast(Tensor, fabric.all_gather(values))
