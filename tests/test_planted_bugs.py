"""The list of planted bugs fits the code: each can be planted, and names tests that exist. `make mutate` runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted.run import ROOT, Bug, bugs, noticed


@pytest.mark.parametrize("bug", bugs(), ids=lambda bug: bug.name)
def test_a_bug_can_be_planted_where_the_list_says(bug: Bug) -> None:
    assert bug.planted(ROOT) != (ROOT / bug.file).read_text(encoding="utf-8")
    assert bug.tests
    for test in bug.tests:
        path, _, name = test.partition("::")
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not name or f"def {name.split('[')[0]}(" in text, test


def test_the_runner_tells_noticed_from_missed(tmp_path: Path) -> None:
    """On a project of two lines, with a test that sees one of its two bugs."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "sums.py").write_text("def add(a, b):\n    return a + b  # the sum\n")
    (tmp_path / "test_sums.py").write_text("from sums import add\n\n\ndef test_add():\n    assert add(2, 3) == 5\n")
    seen = Bug("seen", "sums.py", "a + b", "a - b", ["test_sums.py"])
    unseen = Bug("unseen", "sums.py", "# the sum", "# no sum", ["test_sums.py"])
    assert noticed(seen, tmp_path)
    assert not noticed(unseen, tmp_path)
    assert "a + b" in (tmp_path / "sums.py").read_text()
    with pytest.raises(ValueError, match="occurs 0 times"):
        Bug("gone", "sums.py", "a * b", "a / b", ["test_sums.py"]).planted(tmp_path)
