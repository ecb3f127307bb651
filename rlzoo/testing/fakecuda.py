"""A CUDA device that is none: tensors compute on the CPU, and each knows which device it would be on.

`with FakeCuda() as gpu:` inside, `cuda` is there for torch and for Fabric. `tensor.device`, `.to`, factories, streams
and files speak of it, and every branch for a GPU runs with real numbers. What a GPU refuses is refused: operations on
tensors of two devices, `.numpy()`, generators and packed lengths of the wrong device, cuDNN's backward pass of an LSTM
in eval mode. `gpu.kernels` counts what would be launched, `gpu.waits` where the host would wait for the device.

It knows nothing of precision, of cuDNN's choices, of streams that race, or of compilers: what is compiled runs eagerly.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, Self
from unittest import mock

import torch
import torch.autograd.graph
from torch import Tensor
from torch.nn.utils import clip_grad
from torch.optim import optimizer
from torch.overrides import TorchFunctionMode
from torch.utils import _foreach_utils, checkpoint
from torch.utils._python_dispatch import TorchDispatchMode

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
PINNED = "pinned"
"""On the CPU, in memory that the device copies from by itself."""
INSIDE = "inside"
"""Made inside of PyTorch, for whatever it is used with."""

aten = torch.ops.aten
_WAITS = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.unique_consecutive, aten.unique_dim,
    aten.equal, aten.is_nonzero, aten.bincount, aten._linalg_svd, aten._linalg_eigh,
}  # fmt: skip
_FREE = {
    aten.empty, aten.empty_like, aten.new_empty, aten.empty_strided, aten.new_empty_strided, aten.resize_, aten.set_,
    aten.lift_fresh, aten._unsafe_view, aten._reshape_alias, aten.is_same_size, aten._local_scalar_dense,
}  # fmt: skip
_INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
_FILLS = {aten.fill, aten.fill_, aten.masked_fill, aten.masked_fill_}
_COPIES = {aten.copy_, aten.copy}
_PACKING = {aten._pack_padded_sequence, aten._pack_padded_sequence_backward}
_MOVES = {Tensor.to, Tensor.cuda, Tensor.cpu}
_READS = {"tolist", "__repr__", "__format__"}
_ARRAYS = {"numpy", "__array__", "__dlpack__"}
_FROM_LISTS = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}


class WrongDevice(RuntimeError):
    """CUDA would have refused this."""


@dataclass
class Count:
    """Counts of some work: launched kernels, waits for the device, and each place (file, line, what)."""

    kernels: int = 0
    waits: int = 0
    where: Counter[str] = field(default_factory=Counter)


class FakeCuda:
    """The device while it is entered, in every thread that is started meanwhile. Not to be nested."""

    def __init__(self) -> None:
        self.kernels: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        # First, because it imports what reads the names that are patched.
        self._stack.enter_context(torch.compiler.set_stance("force_eager"))
        for patch in _patches(self):
            self._stack.enter_context(patch)
        self._stack.enter_context(self.modes())
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @contextmanager
    def modes(self) -> Iterator[None]:
        """The device for the calling thread."""
        with _Operations(self), _Names(self):
            yield

    @contextmanager
    def counted(self) -> Iterator[Count]:
        """Count launches and waits of the work inside; the result is filled in at its end."""
        kernels, waits, found = self.kernels.total(), self.waits.copy(), Count()
        yield found
        found.where = self.waits - waits
        found.kernels, found.waits = self.kernels.total() - kernels, found.where.total()

    def wait(self, what: str) -> None:
        """The host waits here."""
        self.waits[f"{_place(sys._getframe(1))}: {what}"] += 1

    def launch(self, what: str) -> None:
        """A kernel is launched."""
        self.kernels[what] += 1


def _place(frame: FrameType | None) -> str:
    """The innermost line that is neither PyTorch's nor this file's."""
    torch_folder = str(Path(torch.__file__).parent)
    while frame is not None and frame.f_code.co_filename.startswith((torch_folder, __file__, "<")):
        frame = frame.f_back
    return "?" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def _tensors(found: Any) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, (list, tuple)):
        for one in found:
            yield from _tensors(one)
    elif isinstance(found, dict):
        yield from _tensors(tuple(found.values()))


def tag_of(x: Tensor) -> Any:
    """CUDA, CPU, PINNED or INSIDE. What was made before the device came is on the CPU."""
    with suppress(RuntimeError, NotImplementedError):
        return getattr(x.untyped_storage(), "fake_device", CPU)
    return INSIDE


def _tag(x: Tensor, device: Any) -> Tensor:
    with suppress(RuntimeError, NotImplementedError):
        x.untyped_storage().fake_device = device  # type: ignore[attr-defined]
    return x


def _home(tag: Any) -> torch.device:
    return CUDA if tag is CUDA else CPU


def _named(device: Any) -> torch.device:
    if isinstance(device, int):
        return CUDA
    return CUDA if torch.device(device).type == "cuda" else CPU


class _Names(TorchFunctionMode):
    """Python's side: devices by name, and what gives tensors away to it."""

    def __init__(self, gpu: FakeCuda) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, torch._ops.OpOverload):  # another mode, at work in a backward pass
            return func(*args, **(kwargs or {}))
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        first = args[0] if args and isinstance(args[0], Tensor) else None
        own = None if first is None else tag_of(first)
        if name in ("__get__", "__set__") and first is not None:
            return self._attribute(func, name, first, args)
        if func in _MOVES and first is not None:
            return self._moved(name, first, args[1:], kwargs)
        if name == "is_pinned":
            return own is PINNED
        if name == "pin_memory" and first is not None:
            if own is CUDA:
                raise WrongDevice("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
            return _tag(first.clone(), PINNED)
        if own is CUDA:
            if name == "record_stream":
                return None
            if name in _ARRAYS:
                raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it first")
            if name in _READS:
                self.gpu.wait(name)
        device = kwargs.pop("device", None)
        device = None if device is None else _named(device)
        if func is Tensor.new_tensor and device is None:
            device = _home(own)
        if device is CUDA and kwargs.get("pin_memory"):
            raise WrongDevice("Only dense CPU tensors can be pinned")
        pinned = kwargs.pop("pin_memory", False)
        self._check_generator(kwargs.get("generator"), device or (None if first is None else _home(own)) or CPU)
        out = func(*args, **kwargs)
        if name in ("lstm", "gru") and own is CUDA and torch.is_grad_enabled():
            _refuse_without_training(args, out)
        if out is None or isinstance(out, (bool, int, float, str)):
            return out
        given = {id(x.untyped_storage()): x for x in _tensors(args)}
        there = {tag_of(x) for x in given.values()} | {tag_of(x) for x in _tensors(kwargs)}
        mine = PINNED if pinned else device or (CUDA if CUDA in there else CPU)
        if func in _FROM_LISTS and mine is CUDA:
            self.gpu.wait(f"{name}(..., device=cuda)")
        for x in _tensors(out):
            with suppress(RuntimeError, NotImplementedError):
                known = getattr(x.untyped_storage(), "fake_device", INSIDE)
                if known is INSIDE or (device is not None and id(x.untyped_storage()) not in given):
                    _tag(x, mine)
        return out

    def _attribute(self, func: Any, name: str, x: Tensor, args: Any) -> Any:
        owner, own = getattr(func, "__self__", None), tag_of(x)
        if name == "__get__" and owner is Tensor.device:
            return _home(own)
        if name == "__get__" and owner in (Tensor.is_cuda, Tensor.is_cpu):
            return (own is CUDA) == (owner is Tensor.is_cuda)
        sets_gradient = name == "__set__" and owner is Tensor.grad and isinstance(args[1], Tensor)
        if sets_gradient and _home(tag_of(args[1])) != _home(own):
            raise WrongDevice("attempting to assign a gradient of one device to a tensor of another")
        return func(*args)

    def _moved(self, name: str, x: Tensor, args: Any, kwargs: Any) -> Any:
        own = tag_of(x)
        target = {"cpu": CPU, "cuda": CUDA}.get(name, _home(own))
        dtype, flags = None, []
        for arg in (*args, *(kwargs[key] for key in ("device", "dtype", "other") if key in kwargs)):
            if isinstance(arg, Tensor):
                target, dtype = _home(tag_of(arg)), arg.dtype
            elif isinstance(arg, torch.dtype):
                dtype = arg
            elif isinstance(arg, bool):
                flags.append(arg)
            elif arg is not None:
                target = _named(arg)
        free, wanted = [*flags, False, False][:2]
        free, wanted = kwargs.get("non_blocking", free), kwargs.get("copy", wanted)
        layout = {"memory_format": kwargs["memory_format"]} if "memory_format" in kwargs else {}
        there = target != _home(own)
        with torch._C.DisableTorchFunction(), _silent():
            # A copy wherever the device changes: as there, what is written to one is not seen in the other.
            out = x.to(dtype=dtype or x.dtype, copy=wanted or there, **layout)
        if out is not x:
            _tag(out, target)
        if there and not (free and own is PINNED):
            self.gpu.wait(f"copied {'to' if target is CUDA else 'from'} the device")
        elif out is not x and target is CUDA:
            self.gpu.launch("_to_copy")
        return out

    @staticmethod
    def _check_generator(generator: Any, device: torch.device) -> None:
        if isinstance(generator, torch.Generator) and generator.device.type != device.type:
            raise WrongDevice(
                f"Expected a '{device.type}' device type for generator but found '{generator.device.type}'"
            )


def _refuse_without_training(args: Any, out: Any) -> None:
    """cuDNN's rule; the switch comes after the dropout, one place later in a packed call."""
    packed = isinstance(args[1], Tensor)

    def refuse(gradient: Tensor) -> None:
        raise RuntimeError("cudnn RNN backward can only be called in training mode")

    for x in _tensors(out) if not args[7 if packed else 6] else ():
        if x.requires_grad:
            x.register_hook(refuse)


_LOCAL = threading.local()


@contextmanager
def _silent() -> Iterator[None]:
    before, _LOCAL.silent = getattr(_LOCAL, "silent", False), True
    try:
        yield
    finally:
        _LOCAL.silent = before


class _Operations(TorchDispatchMode):
    """PyTorch's side: every operation, those of backward passes too."""

    def __init__(self, gpu: FakeCuda) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():  # a backward pass leaves it on
            return self._run(func, args, kwargs or {})

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        if getattr(_LOCAL, "silent", False):
            return func(*args, **kwargs)
        given = [*_tensors(args), *_tensors(kwargs)]
        tags = [tag_of(x) for x in given]
        known = {_home(tag) for tag in tags if tag is not INSIDE}
        packet = func.overloadpacket
        if len(known) > 1:
            self._mixed(func, packet, args, given, tags)
        if CUDA in known:
            self._count(func, packet, args, kwargs)
        out = func(*args, **kwargs)
        mine = (CUDA if CUDA in known else CPU) if known else INSIDE
        for x in _tensors(out):
            with suppress(RuntimeError, NotImplementedError):
                if not hasattr(x.untyped_storage(), "fake_device"):
                    _tag(x, mine)
        if packet is aten._pack_padded_sequence:
            _tag(out[1], CPU)
        return out

    def _count(self, func: Any, packet: Any, args: Any, kwargs: Any) -> None:
        name = str(packet).removeprefix("aten.")
        counts = packet is aten.repeat_interleave and kwargs.get("output_size") is None
        if packet in _WAITS or counts:
            self.gpu.wait(name)
        if packet is aten._pack_padded_sequence and tag_of(args[1]) is CUDA:
            raise WrongDevice("'lengths' argument should be a 1D CPU int64 tensor, but got 1D cuda:0 Long tensor")
        masked = packet in _INDEXING and any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])
        if masked and (packet is aten.index or args[2].numel() != 1):  # one value fills a mask without its places
            self.gpu.wait(f"{name} by a mask")
        if packet not in _FREE and not func.is_view:
            self.gpu.launch(name)

    def _mixed(self, func: Any, packet: Any, args: Any, given: list[Tensor], tags: list[Any]) -> None:
        """Allow the operations that CUDA allows on two devices; a copy is a wait unless it is pinned."""
        if packet in _PACKING:
            return
        if packet in _COPIES:
            if not (PINNED in tags and len(args) > 2 and args[2]):
                self.gpu.wait("copied between devices")
            return
        if packet in _INDEXING and tags[0] is CUDA:
            values = args[2:3] if packet is not aten.index else ()
            if all(tag_of(value) is not CPU or value.dim() == 0 for value in values):
                self.gpu.wait("index of the CPU")
                return
        here = [x for x, tag in zip(given, tags, strict=True) if _home(tag) is CPU and tag is not INSIDE]
        writes = func._schema.name.endswith("_") or "out" in func._overloadname
        scalars = torch.Tag.pointwise in func.tags or packet in _FILLS
        if scalars and all(x.dim() == 0 for x in here) and (tags[0] is CUDA or not writes):
            return
        shapes = ", ".join(f"{tag}{tuple(x.shape)}" for x, tag in zip(given, tags, strict=True))
        raise WrongDevice(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"({func}: {shapes})"
        )


class _Generator(torch.Generator):
    """Random generator of either device."""

    def __new__(cls, device: Any = "cpu") -> Self:
        made = super().__new__(cls)
        made.there = _named(device)  # type: ignore[attr-defined]
        return made

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return getattr(self, "there", CPU)


class _Stream:
    """Stream of commands, or an event in one: there is nothing to wait for."""

    device = CUDA

    def __init__(self, *args: Any, **options: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **options: None


def _patches(gpu: FakeCuda) -> Iterator[Any]:
    memory = torch.zeros(16, dtype=torch.uint8)
    facts: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda *a, **k: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "mem_get_info": lambda device=None: (70 << 30, 80 << 30),
        "memory_allocated": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 0,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: "fake",
        "get_device_properties": lambda device=None: SimpleNamespace(
            name="fake", total_memory=80 << 30, major=9, minor=0, multi_processor_count=132
        ),
        "get_rng_state": lambda device=0: memory.clone(),
        "get_rng_state_all": lambda: [memory.clone()],
        "synchronize": lambda device=None: gpu.wait("synchronize"),
        "stream": lambda stream: nullcontext(),
        "current_stream": lambda device=None: _Stream(),
        "Stream": _Stream,
        "Event": _Stream,
    }
    nothing = ("_lazy_init", "init", "set_device", "empty_cache", "reset_peak_memory_stats", "set_rng_state")
    facts |= dict.fromkeys((*nothing, "set_rng_state_all", "manual_seed", "manual_seed_all"), lambda *a, **k: None)
    for name, value in facts.items():
        yield mock.patch.object(torch.cuda, name, value)
    yield mock.patch.object(torch.accelerator, "is_available", return_value=True)
    yield mock.patch.object(torch.accelerator, "current_stream", return_value=_Stream())
    yield mock.patch.object(torch, "Generator", _Generator)
    yield mock.patch.object(torch.nn.RNNBase, "flatten_parameters")
    yield from _files()
    make, enabled, kind = torch.autocast.__init__, torch.is_autocast_enabled, torch.get_autocast_dtype
    run = threading.Thread.run
    backward, group = torch.autograd.graph._engine_run_backward, _foreach_utils._group_tensors_by_device_and_dtype

    def autocast(self: Any, device_type: str, *args: Any, **options: Any) -> None:
        make(self, "cpu", *args, **options)

    def running(self: threading.Thread) -> None:
        with gpu.modes():
            run(self)

    def backwards(*args: Any, **options: Any) -> Any:
        with _Names(gpu):  # `Tensor.backward` took it off
            return backward(*args, **options)

    def grouped(lists: Any, *args: Any) -> Any:
        first = next((x for x in lists[0] if x is not None), None)
        device = CPU if first is None else _home(tag_of(first))
        return {(device, kind): found for (_, kind), found in group(lists, *args).items()}

    yield mock.patch.object(torch.autocast, "__init__", autocast)
    for name, ask in (("is_autocast_enabled", enabled), ("get_autocast_dtype", kind)):
        yield mock.patch.object(torch, name, side_effect=lambda device=None, ask=ask: ask("cpu"))
    # Compares what a hook sees, where names are off, to what a backward pass makes again.
    known = checkpoint._allowed_determinism_checks_to_fns
    yield mock.patch.dict(known, default=lambda x: {"shape": x.shape, "dtype": x.dtype})
    yield mock.patch.object(threading.Thread, "run", running)
    for module in (torch.autograd, torch.autograd.graph):
        yield mock.patch.object(module, "_engine_run_backward", backwards)
    for module in (clip_grad, optimizer, _foreach_utils):
        yield mock.patch.object(module, "_group_tensors_by_device_and_dtype", grouped)


def _files() -> Iterator[Any]:
    """Files remember the device of what they hold, and need `map_location` where it is missing."""
    load, location = torch.load, torch.serialization.location_tag

    def written(storage: Any) -> Any:
        return "cuda:0" if getattr(storage, "fake_device", CPU) is CUDA else location(storage)

    def loaded(file: Any, map_location: Any = None, **options: Any) -> Any:
        def placed(storage: Any, saved: str) -> Any:
            storage.fake_device = _named(saved if map_location is None else map_location)
            return storage

        return load(file, map_location=placed, **options)

    yield mock.patch.object(torch.serialization, "location_tag", written)
    yield mock.patch.object(torch, "load", loaded)


__all__ = ["Count", "FakeCuda", "WrongDevice"]
