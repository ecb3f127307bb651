"""The tree is what the architecture says: folders, entry points, light imports, who may import whom."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from rlzoo.config.registry import Registry
from rlzoo.plugin import KINDS

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = sorted(path.parent for path in (ROOT / "plugins").glob("*/*/__init__.py"))
FOLDER = {
    "algorithm": "algorithms",
    "policy": "policies",
    "reward": "rewards",
    "prompts": "prompts",
    "observer": "observers",
}


def generator():
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FLOORS = [
    *(set(floor.split(" | ")) for floor in reversed(PROJECT["tool"]["importlinter"]["contracts"][0]["layers"])),
    {"rlzoo"},
    {"__main__"},
]
"""The rooms of `rlzoo`, lowest floor first. A room imports rooms of lower floors only, and none of its own floor."""
PROMISED = {f"rlzoo.{name}" for name in generator().PUBLIC} - {"rlzoo.runs"}
"""Modules of `rlzoo` that a plugin may import, whoever wrote it."""

packages = pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)


def imports(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_folders_and_entry_points_agree():
    announced = PROJECT["project"]["entry-points"]["rlzoo"]
    assert sorted(announced.values()) == sorted(path.name for path in PACKAGES)
    for name, module in announced.items():
        assert module == f"rlzoo_{name.replace('-', '_')}"


def test_every_folder_of_plugins_is_shipped():
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    folders = {str(path.parent.relative_to(ROOT)) for path in PACKAGES}
    assert folders <= set(wheel["only-include"])
    assert folders == set(wheel["sources"])
    assert folders <= set(PROJECT["tool"]["hatch"]["build"]["dev-mode-dirs"])


@packages
def test_a_package_is_typed_and_has_a_readme(package):
    assert (package / "py.typed").is_file()
    assert (package / "README.md").read_text().startswith("# ")


@packages
def test_a_package_provides_the_kind_of_its_folder(package, registry: Registry):
    provider = next(p for p in registry.providers if p.module == package.name)
    assert {FOLDER[kind] for kind, _ in provider.provides} == {package.parent.name}


@packages
def test_a_package_has_tests_of_its_own(package):
    tests = [path.read_text(encoding="utf-8") for path in (ROOT / "tests/plugins").glob("test_*.py")]
    assert any(re.search(rf"\b{package.name}\b", text) for text in tests)


def own_names(trees: Iterable[ast.AST]) -> set[str]:
    """Names that a package defines itself: functions, classes, arguments, attributes that it sets."""
    found: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.id if isinstance(node, ast.Name) else node.attr)
    return found


def trespasses(sources: Mapping[str, str]) -> list[str]:
    """What a package uses that is not promised to a package of somebody else: `file: what`.

    Modules of rlzoo that are not public, names that a public module does not export, also where a string names them
    for a later import; other first-party plugins; private attributes of rlzoo's objects.
    """
    trees = {name: ast.parse(source) for name, source in sources.items()}
    own, first = own_names(trees.values()), next(iter(sources)).split("/")[0]
    plugins = {path.name for path in PACKAGES} - {first}
    found = []
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found += [f"{name}: {alias.name}" for alias in node.names if not allowed(alias.name, "", plugins)]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [alias.name for alias in node.names]
                found += [f"{name}: {node.module}.{one}" for one in names if not allowed(node.module, one, plugins)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                if re.fullmatch(r"rlzoo(_\w+)?(\.\w+)+(:\w+)?", node.value):
                    module, _, one = node.value.partition(":")
                    found += [] if allowed(module, one, plugins) else [f"{name}: '{node.value}'"]
            elif isinstance(node, ast.Attribute) and node.attr in private() - own:
                found.append(f"{name}: .{node.attr}")
    return found


@lru_cache
def private() -> frozenset[str]:
    """Private attributes of rlzoo's classes; those of other libraries are anybody's own risk."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "rlzoo").rglob("*.py"))
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return frozenset(name for name in own_names(classes) if re.fullmatch(r"_[a-z]\w*", name))


@lru_cache
def exports(module: str) -> frozenset[str]:
    return frozenset(generator().exported(importlib.import_module(module)))


def allowed(module: str, name: str, plugins: set[str]) -> bool:
    """Whether a package that is not `plugins` may import this name, or the module as a whole."""
    top = module.split(".")[0]
    if top != "rlzoo":
        return top not in plugins
    if f"{module}.{name}" in PROMISED:  # a module of a public package, by `from rlzoo.x import module`
        return True
    return module in PROMISED and (not name or name in exports(module))


@packages
def test_a_package_uses_nothing_that_a_package_of_somebody_else_could_not(package):
    sources = {
        str(path.relative_to(package.parent)): path.read_text(encoding="utf-8") for path in package.rglob("*.py")
    }
    assert trespasses(sources) == []


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("from rlzoo.engine.context import Context", "rlzoo.engine.context.Context"),
        ("from rlzoo.core.types import Prompt", "rlzoo.core.types.Prompt"),
        ("import rlzoo.files.rundir", "rlzoo.files.rundir"),
        ("from rlzoo import runs", "rlzoo.runs"),
        ("from rlzoo.audio import _mono", "rlzoo.audio._mono"),
        ("from rlzoo.pretraining.loop import Path", "rlzoo.pretraining.loop.Path"),
        ("from rlzoo_guard.reward import GuardReward", "rlzoo_guard.reward.GuardReward"),
        ("m = importlib.import_module('rlzoo.engine.loop')", "'rlzoo.engine.loop'"),
        ("target = 'rlzoo_guard.reward:GuardReward'", "'rlzoo_guard.reward:GuardReward'"),
        ("def step(self, ctx): ctx._reference = None; return ctx._cursor", "._cursor"),
    ],
)
def test_a_trespass_would_show(line, what):
    assert trespasses({"rlzoo_mine/a.py": "from rlzoo.api import Reward\n", "rlzoo_mine/b.py": line}) == [
        f"rlzoo_mine/b.py: {what}"
    ]


def test_core_imports_no_plugin():
    plugins = {path.name for path in PACKAGES}
    for path in (ROOT / "rlzoo").rglob("*.py"):
        if "templates" not in path.parts:
            assert not {name.split(".")[0] for name in imports(path)} & plugins, path


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph() -> dict[str, set[str]]:
    """Every module of `rlzoo`, with the modules of `rlzoo` that it imports anywhere in it."""
    files = [path for path in (ROOT / "rlzoo").rglob("*.py") if "templates" not in path.parts]
    modules = {module_name(path): imports(path) for path in files}
    # `from rlzoo.a import b` is an import of the module rlzoo.a.b if there is one, and of rlzoo.a otherwise.
    deeper = {
        name: {other.rpartition(".")[0] for other in found if other in modules} for name, found in modules.items()
    }
    return {
        name: {other for other in found if other in modules and other not in deeper[name]} - {name}
        for name, found in modules.items()
    }


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def upward(graph: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Imports that lead to a room of the same or of a higher floor."""
    floor = {name: level for level, names in enumerate(FLOORS) for name in names}
    return {
        (name, other)
        for name, found in graph.items()
        for other in found
        if room(name) != room(other) and floor[room(other)] >= floor[room(name)]
    }


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import one another in a circle, none if there is no circle."""
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return error.args[1]
    return []


def test_every_room_has_a_floor():
    rooms = [name for names in FLOORS for name in names]
    assert len(rooms) == len(set(rooms))
    assert {room(name) for name in import_graph()} == set(rooms)


def test_imports_point_downward():
    assert upward(import_graph()) == set()


def test_no_module_imports_itself_in_a_circle():
    assert circle(import_graph()) == []


def test_an_arrow_upward_and_a_circle_would_show():
    graph = import_graph()
    assert "rlzoo.core.types" in graph["rlzoo.core.policy"]
    graph = {name: graph[name] for name in ("rlzoo.core.policy", "rlzoo.core.types", "rlzoo.engine.run")}
    graph["rlzoo.core.types"].add("rlzoo.core.policy")
    assert set(circle(graph)) >= {"rlzoo.core.types", "rlzoo.core.policy"}
    graph["rlzoo.core.types"].add("rlzoo.engine.run")
    assert ("rlzoo.core.types", "rlzoo.engine.run") in upward(graph)


@packages
def test_announcing_imports_nothing_heavy(package):
    heavy = "{'torch', 'numpy', 'soundfile', 'onnxruntime'}"
    code = f"import sys, {package.name}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_no_algorithm_inherits_from_a_sibling(registry: Registry):
    from rlzoo.config.registry import import_target

    ours = {path.name for path in PACKAGES}
    for spec in registry.specs["algorithm"].values():
        mine = [c for c in import_target(spec.target, spec.name).__mro__ if c.__module__.split(".")[0] in ours]
        assert len(mine) == 1, mine


def test_the_table_names_every_plugin(registry: Registry):
    table = (ROOT / "plugins/README.md").read_text()
    for kind in KINDS:
        for name in registry.names(kind):
            if registry.provider(kind, name).distribution == "rlzoo-speech":
                assert f"[`{name}`]" in table


def test_version_is_the_same_everywhere():
    import rlzoo

    assert PROJECT["project"]["version"] == rlzoo.__version__
    changelog = ROOT / "CHANGELOG.md"
    assert re.search(rf"^## (\[?{re.escape(rlzoo.__version__)}|\[?Unreleased)", changelog.read_text(), re.MULTILINE)
