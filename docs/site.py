"""The documentation site: a mirror of the repository's Markdown, its navigation, and the API pages.

`python docs/site.py` writes the mirror; mkdocs then calls `on_config` (mkdocs.yml, `hooks`) for the navigation.
Links to Markdown, images and audio stay as they are, because the mirror has the repository's layout. A link to a folder
becomes one to its README. A link to a source file becomes plain text: the site has no such page. LaTeX becomes MathML:
browsers show it without a script.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "build" / "site-source"
SHOWN = {".md", ".png", ".jpg", ".svg", ".wav", ".ogg", ".mp3"}
SKIPPED = ("rlzoo/", "tests/", ".github/")
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])+)\]\(([^)\s]+)\)")

GUIDES = {
    "Algorithms": "docs/algorithms.md",
    "Rewards": "docs/rewards.md",
    "Evaluation": "docs/evaluation.md",
    "Benchmark": "docs/benchmark.md",
    "Listening tests": "docs/listening.md",
    "Corpora": "docs/corpora.md",
    "Results": "docs/results.md",
    "Gallery": "docs/gallery.md",
    "Policies": "docs/policies.md",
    "Your own voice": "docs/your-own-voice.md",
}
EXTENDING = {
    "Architecture": "docs/architecture.md",
    "Write a plugin": "docs/write-a-plugin.md",
    "Write an algorithm": "docs/write-an-algorithm.md",
    "Contributing": "CONTRIBUTING.md",
}
REFERENCE = {
    "Command line": "docs/reference/cli.md",
    "Run file": "docs/reference/config.md",
    "Run directory": "docs/reference/run-directory.md",
    "Errors": "docs/reference/errors.md",
    "Hooks": "docs/reference/hooks.md",
    "Public names": "docs/reference/api.md",
}


def mirror() -> None:
    """Write build/site-source anew."""
    if SOURCE.exists():
        shutil.rmtree(SOURCE)
    for name in tracked():
        if Path(name).suffix in SHOWN and not name.startswith(SKIPPED):
            target = SOURCE / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".md"):
                target.write_text(without_source_links(name), encoding="utf-8")
            else:
                shutil.copyfile(ROOT / name, target)
    (SOURCE / "api").mkdir()
    for name in public_modules():
        (SOURCE / f"api/{name}.md").write_text(f"# rlzoo.{name}\n\n::: rlzoo.{name}\n", encoding="utf-8")


def on_config(config: Any) -> Any:
    """Set the navigation."""
    config["nav"] = [
        {"Home": "README.md"},
        {"Guides": entries(GUIDES)},
        {"Plugins": ["plugins/README.md", *plugin_pages()]},
        {"Extending": entries(EXTENDING)},
        {"Reference": [*entries(REFERENCE), {"Python": [f"api/{name}.md" for name in public_modules()]}]},
        {"Decisions": sorted(str(path.relative_to(SOURCE)) for path in (SOURCE / "docs/decisions").glob("*.md"))},
        {"Changes": "CHANGELOG.md"},
    ]
    return config


def tracked() -> list[str]:
    """Files of the repository, ignored ones left out."""
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def entries(pages: dict[str, str]) -> list[dict[str, str]]:
    """Navigation of these pages."""
    return [{title: path} for title, path in pages.items()]


def plugin_pages() -> list[dict[str, list[str]]]:
    """Pages of all plugins by kind."""
    kinds = ("algorithms", "policies", "rewards", "prompts", "observers")
    pages = {kind: sorted((SOURCE / "plugins" / kind).glob("*/README.md")) for kind in kinds}
    return [{kind.capitalize(): [str(path.relative_to(SOURCE)) for path in found]} for kind, found in pages.items()]


def public_modules() -> list[str]:
    """Public modules of rlzoo; each has a page that mkdocstrings fills."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    return list(generate.PUBLIC)


def without_source_links(name: str) -> str:
    """The page's text with links that the site can follow."""
    page = ROOT / name

    def rewritten(match: re.Match[str]) -> str:
        text, link = match[1], match[2]
        path, hash_, anchor = link.partition("#")
        if not re.search("[./]", path) or "://" in path or path.startswith("mailto:"):
            return match[0]  # an anchor, a page elsewhere, or a formula
        target = (page.parent / path).resolve()
        if target.is_dir() and (target / "README.md").is_file():
            return f"[{text}]({path.rstrip('/')}/README.md{hash_}{anchor})"
        if target.suffix in SHOWN and target.is_file():
            return match[0]
        if target.exists():
            return text
        raise SystemExit(f"{name}: dead link to '{link}'")

    return LINK.sub(rewritten, with_formulas(page.read_text(encoding="utf-8")))


def with_formulas(text: str) -> str:
    """The text with MathML in the place of LaTeX; code stays as it is."""

    def converted(match: re.Match[str]) -> str:
        if match[1]:
            return str(convert(re.sub(r"\\tag\{(.+?)\}", r"\\qquad (\1)", match[1]), display="block"))
        return f"<span>{convert(match[2])}</span>"  # without the span, one at the start of a line becomes a paragraph

    parts = CODE.split(text)
    return "".join(part if part.startswith("`") else FORMULA.sub(converted, part) for part in parts)


if __name__ == "__main__":
    mirror()
