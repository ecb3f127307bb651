"""Make docs/results.md from benchmarks/results/*.json; with --check, only say whether it is up to date (exit 1)."""

import sys
from pathlib import Path

from rlzoo.bench.collect import published
from rlzoo.bench.report import results_page

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"


def main() -> int:
    """Write or check the page."""
    text = results_page(published(ROOT / "benchmarks" / "results"))
    if "--check" in sys.argv[1:]:
        current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        sys.stdout.write("up to date\n" if current else "docs/results.md is stale: run `python docs/results.py`\n")
        return 0 if current else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
