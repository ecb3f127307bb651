"""Read a PyTorch checkpoint of somebody else's without running anything that is in it.

A pickle is a program: it names functions and calls them. `load_untrusted` interprets that program with every name
replaced: tensors and plain containers are rebuilt by code of ours, classes become inert `Record`s that only keep what
was said about them, and a name whose call would *do* something (`os.system`, `builtins.eval`, any unknown function) is
refused with its name. Nothing outside this file is ever imported or called on the file's behalf.

OmegaConf containers (Lightning's `hyper_parameters`) come back as plain dictionaries, lists and values.

Work and memory are bounded by the size of the file: what a few bytes would unfold to (tuples that hold one another, a
packed archive, a tensor that repeats one number) is refused before it is unfolded.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rlzoo.errors import DataError

# Modules without a single class that belongs into a checkpoint. Their names are refused even where nothing calls them.
_REFUSED_MODULES = frozenset(
    {"asyncio", "bdb", "code", "codeop", "ctypes", "distutils", "fcntl", "ftplib", "functools", "gc", "http", "imp"}
    | {"importlib", "inspect", "io", "linecache", "marshal", "mmap", "multiprocessing", "nt", "operator", "os", "pdb"}
    | {"pickle", "pip", "pkgutil", "platform", "posix", "posixpath", "profile", "pty", "pydoc", "runpy", "shelve"}
    | {"shutil", "signal", "site", "smtplib", "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading"}
    | {"timeit", "trace", "types", "urllib", "webbrowser", "xmlrpc", "zipimport"}
)

# Pickles of protocol 2 (what torch.save writes) carry the module names of Python 2.
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "commands": "subprocess", "urllib2": "urllib"}
_RENAMED_BUILTINS = {"long": "int", "unicode": "str"}

MAX_PROGRAM_BYTES = 32 << 20
"""Largest size of a pickle without its tensors; those of the largest published models have a few megabytes."""
_UNPACKED = 4
"""Largest ratio of unpacked to packed size: PyTorch does not compress tensors."""
_SLACK = 16 << 20
_MAX_TUPLE_NODES, _MAX_TUPLE_DEPTH = 100_000, 100
_MAX_WORK = 20_000_000
"""Elements that are copied or hashed on the program's behalf, all of them together."""


class Record(dict[Any, Any]):
    """An object of a class that was not imported.

    Its attributes and items are the dictionary's; `args` and `kwargs` are what it was built with, `entries` what was
    appended to it, `type_name` is `module.Class`.
    """

    type_name: str = ""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    entries: list[Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Record:
        """Keep the arguments here: the unpickler may skip `__init__`."""
        self = super().__new__(cls)
        self.args, self.kwargs, self.entries = args, kwargs, []
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.update(part)
            elif part is not None:
                self.entries.append(part)

    def __call__(self, *args: Any) -> Any:
        """Refuse: what `getattr` found would be called."""
        raise _refusal("builtins", "getattr")

    def append(self, item: Any) -> None:
        """Called by the unpickler for a subclass of list."""
        self.entries.append(item)

    def extend(self, items: Any) -> None:
        """Called by the unpickler for a subclass of list."""
        self.entries.extend(items)

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __repr__(self) -> str:
        return f"<{self.type_name} {dict(self)!r}>"


class _Function:
    """A stand-in for a callable: the unpickler can call it and can neither change nor subclass it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise DataError("the checkpoint tries to change a function", "do not use this file")


class _Storage:
    """A named dtype in the place of a storage class, or the flat (numel,) tensor that the file keeps under a key."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        raise DataError("the checkpoint tries to change a storage class", "do not use this file")


_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}


def _rebuild_tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Tensor):
        raise pickle.UnpicklingError("a tensor without a storage")
    # One number may stand for many (`expand`); whoever copies the tensor pays for all of them.
    if len(size) > 64 or math.prod(size) > max(_MAX_WORK, _UNPACKED * storage.numel()):
        raise pickle.UnpicklingError(f"a tensor of size {tuple(size)} in {storage.numel()} numbers")
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)


def _rebuild_typed_tensor(
    storage: Tensor, offset: int, size: Any, stride: Any, grad: Any, hooks: Any, dtype: torch.dtype, *_: Any
) -> Tensor:
    return _rebuild_tensor(storage.view(dtype), offset, size, stride)


def _rebuild_from_type(function: Any, kind: Any, args: Any, state: Any) -> Any:
    if not isinstance(function, _Function):
        raise pickle.UnpicklingError("a tensor subclass with an unknown constructor")
    return function(*args)


def _reconstruct(kind: Any, base: Any = None, state: Any = None) -> Any:
    """Replacement of `copyreg._reconstructor` for records."""
    if not (isinstance(kind, type) and issubclass(kind, Record)):
        raise pickle.UnpicklingError("an object of a type that cannot be rebuilt")
    record = kind()
    if state:
        record.__setstate__(state)
    return record


def _member(kind: Any, name: Any) -> Any:
    """An enumeration's member by its name, as the first versions of Python 3.11 write it: a record, nothing is read."""
    if not (isinstance(kind, type) and issubclass(kind, Record) and isinstance(name, str)):
        raise _refusal("builtins", "getattr")
    return kind(name)


class _NumpyType:
    """A NumPy dtype of plain numbers, by its code: 'f8'."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        if not (isinstance(code, str) and re.fullmatch("[biuf][1248]|c8|c16", code)):
            raise pickle.UnpicklingError(f"a NumPy type that is no plain number: {str(code)[:20]!r}")
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if isinstance(state, tuple) and state[1:2] in ((">",), ("<",)) else "<"

    def read(self, content: Any) -> Any:
        """Bytes -> (n,)"""
        data = content if isinstance(content, bytes) else str(content).encode("latin1")
        return np.frombuffer(data, np.dtype(self.order + self.code)).astype(self.code)


class _NumpyArray:
    """A NumPy array; `tensor` is what it holds once its state has been read."""

    __slots__ = ("tensor",)

    def __init__(self, *_: Any) -> None:
        self.tensor = torch.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        if not isinstance(kind, _NumpyType):
            raise pickle.UnpicklingError("a NumPy array of something else than numbers")
        array = kind.read(content).reshape(tuple(shape), order="F" if fortran else "C")
        self.tensor = torch.from_numpy(np.ascontiguousarray(array))


def _numpy_scalar(kind: Any, content: Any = b"") -> Any:
    if not isinstance(kind, _NumpyType):
        raise pickle.UnpicklingError("a NumPy scalar of something else than a number")
    (value,) = kind.read(content).tolist()
    return value


def _first(value: Any, *_: Any) -> Any:
    return value


def _scalar(kind: Callable[..., Any]) -> Callable[..., Any]:
    """`int`, `str` ... of numbers and short texts only: the text of a container may be far larger than it is."""

    def make(*args: Any) -> Any:
        if not all(isinstance(arg, int | float | str | bytes) and len(str(arg)) <= 1000 for arg in args):
            raise pickle.UnpicklingError(f"{kind.__name__} of something else than a number or a short text")
        return kind(*args)

    return make


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1", "ascii", "utf-8"):
        raise pickle.UnpicklingError(f"unknown encoding {encoding}")
    return text.encode(encoding)


_SAFE: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_typed_tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch", "Size"): tuple,
    ("torch", "device"): _scalar(lambda *args: ":".join(map(str, args))),
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): lambda factory=None, *items: dict(*items),
    ("collections", "deque"): lambda items=(), *_: list(items),
    ("copyreg", "_reconstructor"): _reconstruct,
    ("copyreg", "__newobj__"): lambda kind, *args: _reconstruct(kind),
    ("builtins", "getattr"): _member,
    ("_codecs", "encode"): _encode,
    ("torch.jit._pickle", "build_intlist"): _first,
    ("torch.jit._pickle", "build_doublelist"): _first,
    ("torch.jit._pickle", "build_boollist"): _first,
    ("torch.jit._pickle", "build_tensorlist"): _first,
    ("torch.jit._pickle", "restore_type_tag"): _first,
    ("numpy", "dtype"): _NumpyType,
    **{(f"numpy.{core}.multiarray", "scalar"): _numpy_scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _NumpyArray for core in ("core", "_core")},
    ("datetime", "datetime"): lambda *args: args,
    ("datetime", "timedelta"): lambda *args: args,
}
_SAFE |= {("builtins", kind.__name__): kind for kind in (dict, list, set, frozenset, tuple)}
_SAFE |= {("builtins", kind.__name__): _scalar(kind) for kind in (int, float, bool, complex, str)}


_InPython: Any = pickle._Unpickler


class _Unpickler(_InPython):  # type: ignore[misc]
    """The one of the standard library that is written in Python: every step passes through here and can be weighed."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_InPython.dispatch)

    def __init__(self, file: io.BytesIO, storage: Callable[[str, torch.dtype, int], Tensor]) -> None:
        super().__init__(file, encoding="utf-8")
        self._storage = storage
        self._work = 0
        self._weights: dict[int, tuple[int, int, Any]] = {}
        """For each tuple by id: number of unfolded nodes, depth, and the tuple itself, so that the id stays valid."""

    def spend(self, elements: int) -> None:
        """UnpicklingError once more elements were touched than a checkpoint can be made of."""
        self._work += elements
        if self._work > _MAX_WORK:
            raise pickle.UnpicklingError("it unfolds to far more than it is large")

    def weigh(self, value: Any) -> None:
        """Note the size of a new tuple. Hashing it goes through all of its nodes, as often as they occur."""
        if not isinstance(value, tuple):
            return
        inner = [self._weights.get(id(item), (1, 0, None)) for item in value]
        nodes, depth = 1 + sum(n for n, _, _ in inner), 1 + max((d for _, d, _ in inner), default=0)
        if nodes > _MAX_TUPLE_NODES or depth > _MAX_TUPLE_DEPTH:
            raise pickle.UnpicklingError("its tuples hold one another without end")
        self._weights[id(value)] = nodes, depth, value

    def hash_all(self, keys: Sequence[Any]) -> None:
        """Before these become keys or members of a set."""
        self.spend(sum(self._weights.get(id(key), (1,))[0] for key in keys))

    def call(self, function: Any, args: Any) -> Any:
        """Call a function of ours for the pickle program, and count the elements that it copies."""
        for arg in args if isinstance(args, tuple) else ():
            if isinstance(arg, list | tuple | dict | set | frozenset):
                self.spend(len(arg))
                if isinstance(arg, list | tuple):
                    self.hash_all(arg)
        made = function(*args)
        self.weigh(made)
        return made

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], args)

    def load_build(self) -> None:
        # Attributes of anything else are none of a checkpoint's business.
        if not isinstance(self.stack[-2], Record | OrderedDict | _Function | _Storage):
            raise pickle.UnpicklingError(f"it changes a {type(self.stack[-2]).__name__}")
        super().load_build()

    def find_class(self, module: str, name: str) -> Any:
        module = _RENAMED.get(module, module)
        if module == "builtins":
            name = _RENAMED_BUILTINS.get(name, name)
        if (safe := _SAFE.get((module, name))) is not None:
            return _Function(safe)
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _Storage(_STORAGES[name])
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        if (module, name) == ("builtins", "object"):
            return None  # the base that copyreg's protocol names; it is never called
        if module.split(".")[0] in _REFUSED_MODULES or module == "builtins":
            raise _refusal(module, name)
        return _record_type(module, name)

    def persistent_load(self, pid: Any) -> Tensor:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[1], _Storage)):
            raise pickle.UnpicklingError("an unknown kind of external data")
        return self._storage(str(pid[2]), pid[1].dtype, int(pid[4]))


def _weighed(step: Callable[[Any], None]) -> Callable[[Any], None]:
    def load(self: _Unpickler) -> None:
        step(self)
        self.weigh(self.stack[-1])

    return load


def _hashing(step: Callable[[Any], None], keys: Callable[[list[Any]], list[Any]]) -> Callable[[Any], None]:
    def load(self: _Unpickler) -> None:
        self.hash_all(keys(self.stack))
        step(self)

    return load


def _weigh_all() -> None:
    steps = _Unpickler.dispatch
    steps[pickle.REDUCE[0]], steps[pickle.BUILD[0]] = _Unpickler.load_reduce, _Unpickler.load_build
    for code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
        steps[code[0]] = _weighed(steps[code[0]])
    every_other: Callable[[list[Any]], list[Any]] = lambda stack: stack[::2]  # noqa: E731
    for code in (pickle.DICT, pickle.SETITEMS):
        steps[code[0]] = _hashing(steps[code[0]], every_other)
    for code in (pickle.ADDITEMS, pickle.FROZENSET):
        steps[code[0]] = _hashing(steps[code[0]], lambda stack: stack)
    steps[pickle.SETITEM[0]] = _hashing(steps[pickle.SETITEM[0]], lambda stack: stack[-2:-1])


_weigh_all()


def _refusal(module: str, name: str) -> DataError:
    return DataError(
        f"the checkpoint would call '{module}.{name}', which is code and not weights; nothing was run",
        "do not use this file; get the checkpoint from its publisher again",
    )


def _record_type(module: str, name: str) -> type[Record]:
    # Classes are capitalised and functions are not, all over the ecosystem. A function as a mere value is harmless.
    is_function = name.rsplit(".", 1)[-1].lstrip("_")[:1].islower()

    def refuse(cls: type[Record], *args: Any, **kwargs: Any) -> Record:
        raise _refusal(module, name)

    members: dict[str, Any] = {"type_name": f"{module}.{name}"}
    if is_function:
        members["__new__"] = refuse
    return type("Record", (Record,), members)


_OTHER_FILES = (
    (b"RIFF", "a recording (WAV)"), (b"fLaC", "a recording (FLAC)"), (b"OggS", "a recording (Ogg)"),
    (b"ID3", "a recording (MP3)"), (b"\x89PNG", "a picture"), (b"\xff\xd8\xff", "a picture"), (b"%PDF", "a PDF"),
    (b"\x1f\x8b", "a gzip archive"), (b"7z\xbc\xaf", "a 7z archive"), (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"), (b"Rar!", "a RAR archive"), (b"\x89HDF", "an HDF5 file"), (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a NumPy array"), (b"SQLite format 3", "a database"),
)  # fmt: skip


def refuse_other_files(path: Path) -> None:
    """Raise DataError for what is often found in the place of weights, and says what it is by its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}", "check its permissions") from error
    if not head:
        raise DataError(f"'{path}' is empty", "get it again")
    if head.startswith(b"version https://git-lfs"):
        raise DataError(
            f"'{path}' is a pointer of Git LFS and not the file itself", "fetch it in its repository: git lfs pull"
        )
    if re.match(rb"\s*<(?:!doctype|html|head|\?xml)", head, re.IGNORECASE):
        title = re.search(rb"<html[^>]*>(?:\s*<[^>]*>)*\s*([^<]{1,60})", head, re.IGNORECASE)
        said = f" ('{title[1].decode(errors='replace').strip()}')" if title else ""
        raise DataError(
            f"'{path}' is a web page{said} and not weights", "the download failed: open its address in a browser"
        )
    if re.match(rb"\s*[{\[]", head) and b"\0" not in head:
        raise DataError(f"'{path}' is JSON text and not weights", "name the weight file itself")
    if kind := next((what for start, what in _OTHER_FILES if head.startswith(start)), ""):
        raise DataError(f"'{path}' is {kind} and not weights", "name the weight file itself")


_WRAPPERS = ("module.", "model.", "_orig_mod.", "network.", "generator.", "ema_model.")


def without_wrapper(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict without what DataParallel, Lightning or torch.compile put before every name: 'module.a' -> 'a'."""
    names = list(state)
    while names and (wrapper := next((w for w in _WRAPPERS if all(name.startswith(w) for name in names)), "")):
        names = [name.removeprefix(wrapper) for name in names]
    return dict(zip(names, state.values(), strict=True))


def load_untrusted(path: str | Path) -> Any:
    """A torch zip checkpoint -> tensors (on the CPU), plain containers and `Record`s. Nothing in it is run.

    Also reads the tensors of a TorchScript archive (its code is not looked at). Raises DataError for a file that is
    missing, truncated, damaged, of the old non-zip format, or that would call code, naming the global.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"checkpoint '{path}' does not exist", "check the path")
    refuse_other_files(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _load(archive, _UNPACKED * path.stat().st_size + _SLACK)
    except DataError as error:
        raise DataError(f"'{path}': {error.message}", error.hint) from error
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(
            f"'{path}' is not a complete PyTorch checkpoint: {error}",
            "it may be cut off: compare its size with the published one. Files written by PyTorch before 1.6 must be "
            "saved again with a newer one",
        ) from error
    except _DAMAGE as error:
        raise DataError(f"'{path}' is damaged: {type(error).__name__}: {error}", _FETCH) from error


_FETCH = "get the checkpoint from its publisher again"
_DAMAGE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,  # torch refuses impossible strides with it; RecursionError is one too
    TypeError,
    ValueError,
    struct.error,
)


def _load(archive: zipfile.ZipFile, room: int) -> Any:
    """`room`: bytes that may come out of the archive."""
    programs = [name for name in archive.namelist() if name.rsplit("/", 1)[-1] == "data.pkl"]
    if len(programs) != 1:
        raise DataError("it has no 'data.pkl', so it is not a PyTorch checkpoint", "give a file written by torch.save")
    root = programs[0].removesuffix("data.pkl")
    names = set(archive.namelist())
    storages: dict[str, Tensor] = {}
    left = room

    def read(name: str, most: int) -> bytes:
        nonlocal left
        size = archive.getinfo(name).file_size
        left -= size
        if size > most or left < 0:
            raise DataError(f"'{name}' unpacks to {size:,} bytes, which no checkpoint of this size holds", _FETCH)
        return archive.read(name)  # checks the CRC

    if f"{root}byteorder" in names and read(f"{root}byteorder", 100) != b"little":
        raise DataError("it was written on a big-endian machine", "save it again on a little-endian one")

    def storage(key: str, dtype: torch.dtype, numel: int) -> Tensor:
        if key not in storages:
            content = bytearray(read(f"{root}data/{key}", room))
            if len(content) != numel * dtype.itemsize:
                raise pickle.UnpicklingError(
                    f"storage {key} has {len(content)} bytes, expected {numel * dtype.itemsize}"
                )
            # An empty buffer cannot be viewed.
            storages[key] = torch.frombuffer(content, dtype=dtype) if numel else torch.empty(0, dtype=dtype)
        return storages[key]

    return _plain(_Unpickler(io.BytesIO(read(programs[0], MAX_PROGRAM_BYTES)), storage).load(), {})


def _plain(value: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    """Containers rebuilt with OmegaConf's nodes and paths turned into plain values; cycles are kept as they are.

    `seen`: by id, what became of a value, and the value itself, so that its id stays its own.
    """
    if isinstance(value, _NumpyArray):
        return value.tensor
    if not isinstance(value, dict | list | tuple | Record):
        return value
    if id(value) in seen:
        return seen[id(value)][0]
    if isinstance(value, Record):
        return _plain_record(value, seen)
    if isinstance(value, dict):
        target: dict[Any, Any] = {}
        seen[id(value)] = target, value
        target.update({key: _plain(item, seen) for key, item in value.items()})
        return target
    if isinstance(value, tuple):
        made = tuple(_plain(item, seen) for item in value)
        seen[id(value)] = made, value
        return made
    items: list[Any] = []
    seen[id(value)] = items, value
    items.extend(_plain(item, seen) for item in value)
    return items


def _plain_record(record: Record, seen: dict[int, tuple[Any, Any]]) -> Any:
    root, _, kind = record.type_name.rpartition(".")
    if root.startswith("omegaconf"):
        if "_content" in record:
            return _plain(record["_content"], seen)
        if "_val" in record:
            return _plain(record["_val"], seen)
    if root == "pathlib" and kind.endswith("Path"):
        if not all(isinstance(part, str) for part in record.args):
            raise pickle.UnpicklingError("a path of something else than text")
        return str(Path(*record.args))
    seen[id(record)] = record, record
    for key, item in list(record.items()):
        record[key] = _plain(item, seen)
    record.args = tuple(_plain(item, seen) for item in record.args)
    record.entries = [_plain(item, seen) for item in record.entries]
    return record


__all__ = ["Record", "load_untrusted", "refuse_other_files", "without_wrapper"]
