"""What every test stands on: one thread, fixed seeds, no network, no cache of this machine, strict plugins."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before anything imports torch: a second thread only slows these tensors down and fights with parallel test runs.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

# The key that signs runs: not the user's, and one for all tests, whose fixtures make runs before a test begins.
STATE = tempfile.TemporaryDirectory(prefix="rlzoo-tests-")
os.environ["XDG_STATE_HOME"] = STATE.name

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`: a process keeps the tests of a file, whose fixtures are made once, until it has none left."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(autouse=True)
def isolated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory):
    """Seeds; and, unless the test is about published weights, an empty cache and no downloads."""
    random.seed(0)
    for name in ("numpy", "torch"):
        module = sys.modules.get(name)
        if module is not None:
            (module.manual_seed if name == "torch" else module.random.seed)(0)
    if request.node.get_closest_marker("weights") is None:
        monkeypatch.setenv("RLZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        monkeypatch.setenv("RLZOO_OFFLINE", "1")
    monkeypatch.delenv("RLZOO_DISABLE_PLUGINS", raising=False)
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def registry():
    """Every installed plugin; a broken one is an error here."""
    from rlzoo.config.registry import discover

    return discover({"RLZOO_STRICT_PLUGINS": "1"})


@pytest.fixture
def shared() -> Path:
    """Real data beside the repository; the test is skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data at {SHARED}")
    return SHARED


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """`install("rlzoo_x", code, entry="x")`: a distribution on the path, announced as pip would have done it."""
    before = set(sys.modules)
    site = tmp_path / "site"

    def make(package: str, code: str, entry: str = "", version: str = "1.0") -> Path:
        folder = site / package
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(textwrap.dedent(code))
        name = package.replace("_", "-")
        info = site / f"{package}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[rlzoo]\n{entry or name} = {package}\n")
        return folder

    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))  # for subprocesses
    yield make
    for name in set(sys.modules) - before:
        if str(site) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
