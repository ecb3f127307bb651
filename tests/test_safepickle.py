"""Somebody else's checkpoints: everything is read, nothing is run."""

from __future__ import annotations

import builtins
import collections
import enum
import functools
import os
import pathlib
import pickle
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rlzoo.errors import DataError
from rlzoo.safepickle import Record, load_untrusted


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A package that exists while a checkpoint is written; reading it must do without."""
    module = types.ModuleType("omegaconf")
    for name in ("DictConfig", "ListConfig", "AnyNode", "ContainerMetadata", "Colour"):
        bases: dict[str, Any] = {"__module__": "omegaconf"}
        setattr(module, name, type(name, (), bases))
    monkeypatch.setitem(sys.modules, "omegaconf", module)
    return module


def saved(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def make(kind: type, **attributes: Any) -> Any:
    instance = kind()
    instance.__dict__.update(attributes)
    return instance


def test_tensors_come_back_exactly_and_share_storage(tmp_path: Path) -> None:
    base = torch.randn(4, 6)
    state = collections.OrderedDict(
        whole=base,
        transposed=base.T,
        part=base[1:3, ::2],
        half=base.half(),
        brain=base.bfloat16(),
        counts=torch.arange(5),
        flags=torch.tensor([True, False]),
        scalar=torch.tensor(2.5, dtype=torch.float64),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(torch.ones(2)),
    )
    read = load_untrusted(saved(tmp_path / "a.pt", state))
    assert list(read) == list(state)
    for name, tensor in state.items():
        assert read[name].dtype == tensor.dtype, name
        assert torch.equal(read[name], tensor), name
    assert read["whole"].data_ptr() == read["transposed"].data_ptr()


def test_plain_values_and_containers(tmp_path: Path) -> None:
    value = {
        "epoch": 3,
        "names": ["a", ("b", None)],
        "set": {1, 2},
        "size": torch.Size([2, 3]),
        "dtype": torch.float16,
        "device": torch.device("cuda:1"),
        "default": collections.defaultdict(list, {"x": [1]}),
        "bytes": b"\x00\xff",
    }
    read = load_untrusted(saved(tmp_path / "a.pt", value))
    assert read == {**value, "size": (2, 3), "device": "cuda:1", "default": {"x": [1]}}


def test_types_under_the_names_they_have_in_protocol_2(tmp_path: Path) -> None:
    # OmegaConf keeps the types of its values; pickle writes int as __builtin__.long and str as __builtin__.unicode.
    program = pickle.dumps({"a": int, "b": str, "c": dict, "d": 3}, protocol=2)
    assert b"long" in program
    assert b"unicode" in program
    assert load_untrusted(saved(tmp_path / "a.pt", {"a": int, "b": str, "c": dict, "d": 3}))["d"] == 3


def test_omegaconf_becomes_plain(tmp_path: Path, foreign: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(foreign.DictConfig, _metadata=make(foreign.ContainerMetadata, ref_type=Any), _parent=None)
    rates = make(
        foreign.ListConfig, _parent=root, _content=[make(foreign.AnyNode, _val=v, _parent=root) for v in (1, 2)]
    )
    root._content = {"rate": make(foreign.AnyNode, _val=22_050, _parent=root), "dilations": rates}
    path = saved(tmp_path / "a.ckpt", {"hyper_parameters": root, "root": pathlib.PurePosixPath("/data/speech")})
    monkeypatch.delitem(sys.modules, "omegaconf")
    read = load_untrusted(path)
    assert read == {"hyper_parameters": {"rate": 22_050, "dilations": [1, 2]}, "root": "/data/speech"}
    assert "omegaconf" not in sys.modules


def test_the_older_object_protocol(tmp_path: Path) -> None:
    program = b"ccopy_reg\n_reconstructor\n(comegaconf.nodes\nIntegerNode\nc__builtin__\nobject\nNtR}S'_val'\nI7\nsb."
    assert load_untrusted(write_program(tmp_path / "a.pt", program)) == 7


def test_unknown_classes_become_records(
    tmp_path: Path, foreign: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    colour = enum.Enum("Colour", "RED", module="omegaconf")
    foreign.Colour = colour
    path = saved(tmp_path / "a.pt", {"node": make(foreign.ContainerMetadata, key="k", flags={"a": 1}), "c": colour.RED})
    monkeypatch.delitem(sys.modules, "omegaconf")
    read = load_untrusted(path)
    assert isinstance(read["node"], Record)
    assert read["node"].type_name == "omegaconf.ContainerMetadata"
    assert read["node"] == {"key": "k", "flags": {"a": 1}}
    assert read["c"].args in [(1,), ("RED",)]  # by value or by name, as the version of Python likes


def test_a_member_by_name_is_a_record_and_no_attribute(tmp_path: Path) -> None:
    program = b"c__builtin__\ngetattr\n(comegaconf.base\nColour\nS'__subclasses__'\ntR."
    read = load_untrusted(write_program(tmp_path / "a.pt", program))
    assert isinstance(read, Record)
    assert read.args == ("__subclasses__",)
    refused = (
        b"c__builtin__\ngetattr\n(c__builtin__\ndict\nS'clear'\ntR.",
        b"c__builtin__\ngetattr\n(S'a'\nS'join'\ntR.",
        b"c__builtin__\ngetattr\n(cpathlib\nPath\nS'touch'\ntR(S'/tmp/never'\ntR.",  # found and then called
    )
    for program in refused:
        with pytest.raises(DataError, match="which is code and not weights"):
            load_untrusted(write_program(tmp_path / "b.pt", program))


@pytest.mark.parametrize(
    ("function", "args", "named"),
    [
        (os.system, ("touch {0}",), "system"),
        (builtins.eval, ("open('{0}', 'w')",), "builtins.eval"),
        (builtins.exec, ("open('{0}', 'w')",), "builtins.exec"),
        (builtins.getattr, (os, "system"), "builtins.getattr"),
        (subprocess.Popen, (["touch", "{0}"],), "subprocess.Popen"),
        (functools.partial, (print, "x"), "functools.partial"),
        (torch.hub.load, ("a/b", "c"), "torch.hub.load"),
        (torch.load, ("{0}",), "torch.serialization.load"),
    ],
)
def test_calls_are_refused_by_name_and_not_run(
    tmp_path: Path, function: Callable[..., Any], args: tuple[Any, ...], named: str
) -> None:
    trace = tmp_path / "trace"
    filled = tuple(arg.format(trace) if isinstance(arg, str) else arg for arg in args)
    if function is builtins.getattr:  # a module cannot be pickled, its name can
        filled = ("os", "system")
    path = saved(tmp_path / "evil.pt", {"weights": torch.ones(2), "payload": Call(function, *filled)})
    with pytest.raises(DataError, match=named) as error:
        load_untrusted(path)
    assert error.value.exit_code == 4
    assert str(path) in error.value.message
    assert not trace.exists()


def write_program(path: Path, program: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
    return path


@pytest.mark.parametrize(
    "program",
    [
        b"cposix\nsystem\n(S'touch /tmp/never'\ntR.",  # the classic
        b"(S'touch /tmp/never'\nios\nsystem\n.",  # INST
        b"cposix\nsystem\n}b.",  # BUILD on a function
        b"ctorch._utils\n_rebuild_tensor_v2\n}S'x'\nI1\nsb.",  # BUILD on one of ours
        b"cbuiltins\ndict\n)\x81.",  # NEWOBJ on a stand-in
        b"crlzoo.safepickle\nload_untrusted\n(S'/etc/passwd'\ntR.",  # our own functions are no exception
        b"\x80\x04\x8c\x08builtins\x8c\x0fdict.__class__\x93.",  # dotted names must not walk attributes
        b"S'storage'\nQ.",  # an external reference that is no storage
        b"(lp0\n",  # cut off
        b"",
    ],
)
def test_hand_written_programs_are_refused(tmp_path: Path, program: bytes) -> None:
    with pytest.raises(DataError):
        load_untrusted(write_program(tmp_path / "evil.pt", program))
    assert not Path("/tmp/never").exists()


def test_truncated_at_any_length(tmp_path: Path) -> None:
    whole = saved(tmp_path / "a.pt", {"w": torch.randn(64)}).read_bytes()
    for size in range(0, len(whole) - 1, max(1, len(whole) // 23)):
        (tmp_path / "cut.pt").write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"cut\.pt"):
            load_untrusted(tmp_path / "cut.pt")


def test_flipped_bytes_in_a_tensor_are_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"w": torch.full((256,), 3.0)})
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((256,), 3.0).numpy().tobytes()) + 17] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="CRC"):
        load_untrusted(path)


def test_a_storage_smaller_than_its_tensor_is_noticed(tmp_path: Path) -> None:
    program = pickle.dumps({"x": 1}, protocol=2)
    path = write_program(tmp_path / "a.pt", program)
    assert load_untrusted(path) == {"x": 1}
    saved(tmp_path / "b.pt", {"w": torch.ones(8)})
    with zipfile.ZipFile(tmp_path / "b.pt") as source, zipfile.ZipFile(tmp_path / "c.pt", "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name)[:4] if name.endswith("data/0") else source.read(name))
    with pytest.raises(DataError, match="4 bytes, expected 32"):
        load_untrusted(tmp_path / "c.pt")


def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_text("hello")
    with pytest.raises(DataError, match="not a complete PyTorch checkpoint"):
        load_untrusted(tmp_path / "a.pt")
    with pytest.raises(DataError, match="does not exist"):
        load_untrusted(tmp_path / "b.pt")


def test_a_torchscript_archive_gives_its_tensors_and_runs_nothing(tmp_path: Path) -> None:
    program = (
        b"\x80\x02c__torch__.model\nScaler\n)\x81}(X\x05\x00\x00\x00shapectorch.jit._pickle\nbuild_intlist\n](K\x02K\x03e"
        b"\x85RX\x06\x00\x00\x00weightctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQK\x00(K\x02t(K\x01t\x89ccollections\nOrderedDict\n)RtRub."
    )
    path = tmp_path / "scripted.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("scripted/data.pkl", program)
        archive.writestr("scripted/data/0", torch.tensor([1.5, -2.0]).numpy().tobytes())
        archive.writestr("scripted/code/__torch__/model.py", "class Scaler(Module): raise SystemExit")
    read = load_untrusted(path)
    assert read.type_name == "__torch__.model.Scaler"
    assert read["weight"].tolist() == [1.5, -2.0]
    assert read["shape"] == [2, 3]


DOUBLED = b"K\x01" + b"2\x86" * 60  # 60 times (x, x)


@pytest.mark.parametrize(
    "program",
    [
        DOUBLED,
        b"}" + DOUBLED + b"K\x02s",  # as a key, which would be hashed
        b"(" + DOUBLED + b"K\x02d",
        b"\x8f(" + DOUBLED + b"\x90",
        b"cbuiltins\nfrozenset\n((" + DOUBLED + b"ltR",
        b"cbuiltins\nstr\n(" + DOUBLED + b"tR",
        b"}K\x01" + b"\x85" * 200_000 + b"K\x02s",  # one deep key: hashing it would use up the machine's stack
        b"]" * 100_000 + b"a" * 99_999,
        b"](" + b"K\x01" * 20_000 + b"eq\x000" + b"cbuiltins\nlist\n(h\x00tR0" * 2_000 + b"N",  # copies of a long list
    ],
)
def test_what_a_few_bytes_unfold_to_is_refused_before_it_is_unfolded(tmp_path: Path, program: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "l.ckpt", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x04" + program + b".")
    with pytest.raises(DataError, match="is damaged"):
        load_untrusted(tmp_path / "l.ckpt")


def test_nested_tuples_that_a_checkpoint_may_hold_are_read(tmp_path: Path) -> None:
    value: Any = 1
    for _ in range(12):
        value = (value, value)
    assert load_untrusted(saved(tmp_path / "a.pt", {"x": value, ("a", (1, 2)): 3})) == {"x": value, ("a", (1, 2)): 3}


@pytest.mark.parametrize("name", ["data.pkl", "data/0"])
def test_a_packed_archive_does_not_fill_the_memory(tmp_path: Path, name: str) -> None:
    saved(tmp_path / "a.pt", torch.zeros(25_000_000))
    with zipfile.ZipFile(tmp_path / "a.pt") as source, zipfile.ZipFile(tmp_path / "b.pt", "w") as target:
        for info in source.infolist():
            kept = info.filename.split("/", 1)[1]
            content = b"N" * (1 << 27) + b"." if kept == name == "data.pkl" else source.read(info)
            target.writestr(info.filename, content, zipfile.ZIP_DEFLATED)
    assert (tmp_path / "b.pt").stat().st_size < 1_000_000
    with pytest.raises(DataError, match="which no checkpoint of this size holds"):
        load_untrusted(tmp_path / "b.pt")


def test_one_number_is_no_large_tensor(tmp_path: Path) -> None:
    saved(tmp_path / "a.pt", torch.zeros(1).expand(1 << 40))
    with pytest.raises(DataError, match="a tensor of size"):
        load_untrusted(tmp_path / "a.pt")
    small = torch.arange(3.0)[:, None].expand(3, 4)
    assert torch.equal(load_untrusted(saved(tmp_path / "b.pt", small)), small)
