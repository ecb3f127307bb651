"""The language of the project: patterns that are hard to read may become rarer, and never more frequent.

CONTRIBUTING.md ("Style") says what to write instead. When a count falls, lower its ceiling here.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CEILINGS = {
    r"\b(?:can|cannot|could|could not|not) be had\b": 3,  # is (not) available
    r"(?<!there )\b(?:is|are|was) no (?!longer|more|less|one\b)\w+": 24,  # is not a
    r"\bthere are: ": 2,  # available:
    r"\bwhoever\b": 1,  # name who it is
    r"\banother \w+ than\b": 6,  # different from
    r'"""(?:Of|What|Where|Whether|How|Which) ': 20,  # a noun phrase or a verb
    r"(?:Error|\bempty|\bNone) where\b": 3,  # if
}


def text() -> str:
    """All prose and code of the project, tests and templates aside."""
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "*.md", "*.py", "*.j2", "*.toml"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    names = [name for name in listed if not name.startswith(("tests/", "rlzoo/templates"))]
    return "\n".join((ROOT / name).read_text(encoding="utf-8") for name in names if (ROOT / name).is_file())


@pytest.mark.parametrize("pattern", CEILINGS)
def test_a_pattern_that_is_hard_to_read_does_not_spread(pattern):
    count = len(re.findall(pattern, text(), re.IGNORECASE))
    assert count <= CEILINGS[pattern], f"{count} times {pattern!r}: see Style in CONTRIBUTING.md"


def test_the_patterns_find_what_they_are_for():
    examples = (
        "cannot be had",
        "x is no file",
        "there are: a, b",
        "whoever calls",
        "another name than",
        '"""What it does.',
        "DataError where it fails",
    )
    assert all(re.search(pattern, example) for pattern, example in zip(CEILINGS, examples, strict=True))
