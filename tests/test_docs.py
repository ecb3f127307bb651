"""Documentation is code: its blocks run, its generated pages are fresh, and nothing public is left out."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from rlzoo import errors
from rlzoo.config.resolve import TOP_KEYS, resolve
from rlzoo.plugin import Hooks

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def _generator():
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = _generator()


def markdown() -> list[Path]:
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "*.md"],
        capture_output=True,
        text=True,
        check=False,
    )
    names = listed.stdout.split() if listed.returncode == 0 else [p.relative_to(ROOT) for p in ROOT.rglob("*.md")]
    skipped = ("rlzoo/templates", ".venv", "runs")
    return [ROOT / name for name in names if not str(name).startswith(skipped)]


def blocks(*languages: str) -> list[tuple[str, str, str]]:
    """(where, language, code) of every fenced block in one of these languages, unless marked `no-run`."""
    found = []
    for path in markdown():
        text = path.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            if match[1] in languages and "no-run" not in match[2]:
                line = text.count("\n", 0, match.start()) + 1
                found.append((f"{path.relative_to(ROOT)}:{line}", match[1], match[3]))
    return found


@pytest.mark.parametrize("path", generate.pages(), ids=lambda path: path.name)
def test_generated_pages_are_fresh(path):
    assert path.read_text(encoding="utf-8") == generate.pages()[path](), "run `make docs`"


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block[0])
def test_python_blocks_run(block, tmp_path, monkeypatch):
    where, _, code = block
    monkeypatch.chdir(tmp_path)
    exec(compile(code, where, "exec", dont_inherit=True), {"__name__": "documentation"})


@pytest.mark.parametrize("block", blocks("toml"), ids=lambda block: block[0])
def test_toml_blocks_are_valid_and_run_files_resolve(block, registry):
    data = tomllib.loads(block[2])
    if "algorithm" in data and data.keys() <= set(TOP_KEYS):
        algorithm = {"name": "ddpo", **data["algorithm"]}  # a preset leaves out whose it is
        resolve({"rewards": [{"name": "dnsmos"}], **data, "algorithm": algorithm}, registry)


def test_there_are_blocks_to_run():
    """Guards the two tests above: a pattern that finds nothing would pass."""
    assert blocks("toml")


def test_every_hook_error_command_and_core_option_is_documented():
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/reference").glob("*.md"))
    wanted = [name for name, _ in inspect.getmembers(Hooks, inspect.isfunction) if name.startswith("rlzoo_")]
    wanted += [n for n, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.RlzooError)]
    wanted += ["rlzoo run", "rlzoo synth", "rlzoo eval", "rlzoo plugins check", "rlzoo config new", "rlzoo doctor"]
    wanted += ["RLZOO_CACHE", "RLZOO_OFFLINE", "RLZOO_DISABLE_PLUGINS", "RLZOO_STRICT_PLUGINS"]
    assert [name for name in wanted if f"`{name}`" not in text] == []


def test_every_flag_has_a_help_text():
    import typer.main

    from rlzoo.cli import app

    silent = [
        f"{' '.join(path)} {parameter.opts}"
        for path, command in generate.commands(typer.main.get_command(app), ("rlzoo",))
        for parameter in command.params
        if not parameter.help
    ]
    assert silent == []


def test_every_option_of_every_plugin_is_documented(registry):
    silent = [
        f"{name}.{option}"
        for found in registry.specs.values()
        for name, spec in found.items()
        for option, field in spec.options.model_fields.items()
        if not field.description
    ]
    assert silent == []


def test_the_voices_page_is_what_its_script_writes(monkeypatch):
    """Whatever stood there besides would be lost with the next evaluation."""
    folder = ROOT / "benchmarks/voice"
    monkeypatch.syspath_prepend(folder)
    content = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    written = importlib.import_module("evaluate").page(content["rows"], content["about"])
    assert (folder / "evaluation.md").read_text(encoding="utf-8") == written


def test_the_gallery_holds_its_clips_and_nothing_else():
    folder = ROOT / "docs/gallery"
    clips = tomllib.loads((folder / "clips.toml").read_text(encoding="utf-8")).get("clips", [])
    named = {clip[side] for clip in clips for side in ("base", "tuned")}
    found = [path for path in folder.iterdir() if path.suffix != ".toml"]
    assert {path.name for path in found} == named
    assert sum(path.stat().st_size for path in found) < 1_000_000


def test_links_between_pages_lead_somewhere():
    broken = []
    for path in markdown():
        text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", path.read_text(encoding="utf-8")))
        # Brackets before parentheses occur in formulas too; a path has a dot or a slash.
        for link in re.findall(r"\]\(([^)#:\s]*[./][^)#:\s]*)(?:#[^)]*)?\)", text):
            if not (path.parent / link).exists():
                broken.append(f"{path.relative_to(ROOT)}: {link}")
    assert broken == []
