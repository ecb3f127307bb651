"""The public interface changes only on purpose: `tests/api.txt` is its dump."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _generator():
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = _generator()


def test_the_interface_is_the_committed_one():
    before = (ROOT / "tests/api.txt").read_text().splitlines()
    after = generate.api_dump().splitlines()
    changes = list(difflib.unified_diff(before, after, "tests/api.txt", "the code", lineterm="", n=0))
    assert changes == [], "a public change: run `make docs`, and write it into CHANGELOG.md"


@pytest.mark.parametrize("name", generate.PUBLIC)
def test_what_a_public_module_exports_exists(name):
    module = importlib.import_module(f"rlzoo.{name}")
    assert [item for item in generate.exported(module) if not hasattr(module, item)] == []
    assert generate.exported(module)


def test_a_changed_signature_would_show():
    def before(x: int) -> int:
        return x

    def after(x: int, y: int = 0) -> int:
        return x + y

    assert list(generate.dump("f", before)) == ["f(x: int) -> int"]
    assert list(generate.dump("f", before)) != list(generate.dump("f", after))
