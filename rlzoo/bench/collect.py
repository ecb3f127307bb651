"""From run directories to one JSON document that holds everything a report needs. Light.

Only complete runs of this suite and this version count. Whatever else lies in the suite's folder is named with the
reason and left out; a figure is never averaged with one that does not belong to it.
"""

from __future__ import annotations

import base64
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlzoo.bench.cell import Document, Unfit, read_cell
from rlzoo.bench.document import Results
from rlzoo.bench.jobs import Job, differences, strays
from rlzoo.bench.suite import Cell, Suite
from rlzoo.errors import DataError
from rlzoo.files.evaluations import own_file
from rlzoo.files.reading import check, read_bytes, read_json
from rlzoo.version import __version__

FORMAT = "rlzoo-bench/1"
_AGAIN = "make it again with bench report"
_SAME = "only runs of one suite with the same values are comparable"
_BASE_TOLERANCE = 0.02
"""Tolerance between bases of one seed on different machines, in standard deviations between samples."""


def collect(suite: Suite, folder: Path) -> Document:
    """The document of a suite's folder. DataError if no run counts."""
    cells: list[Document] = []
    left_out: list[dict[str, str]] = []
    missing: list[str] = []
    expected = {cell.key: cell for cell in suite.cells()}
    for key, cell in expected.items():
        path = folder / "runs" / key
        if not path.is_dir():
            missing.append(key)
            continue
        try:
            cells.append(read_cell(suite, cell, Job(key, folder.absolute(), (), 1)))
        except Unfit as reason:
            left_out.append({"run": key, "reason": str(reason)})
    runs = folder / "runs"
    strangers = sorted(path.name for path in runs.iterdir() if path.name not in expected) if runs.is_dir() else []
    left_out += [{"run": name, "reason": f"not a run of suite '{suite.name}'"} for name in strangers]
    cells, others = _same_base(cells)
    left_out += others
    if not cells:
        detail = f"; first: {left_out[0]['run']}: {left_out[0]['reason']}" if left_out else ""
        raise DataError(f"'{folder}' holds no finished run of suite '{suite.name}'{detail}", "rlzoo bench run first")
    audio = _audio(suite, cells, folder)
    origins = [entry.pop("origin") for entry in cells]
    for entry in cells:
        del entry["files"]
    return {
        "format": FORMAT,
        "rlzoo": __version__,
        "suite": _suite(suite),
        "origin": _origin(origins),
        "configs": _configs(suite, cells),
        "cells": cells,
        "missing": missing,
        "left_out": left_out,
        "audio": audio,
    }


def read(path: Path) -> Document:
    """A document that was written before. DataError if it is none, or of another version."""
    document = read_json(path, "give a results file of `rlzoo bench report`")
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise DataError(f"'{path}' has the format {found!r}, expected '{FORMAT}'", _AGAIN)
    check(Results, document, f"'{path}' holds no results", _AGAIN)
    assert isinstance(document, dict)
    return document


def joined(document: Document, other: Document) -> Document:
    """The runs of two documents of one suite as one; a run that both have is `document`'s.

    DataError if `other` is of another suite, or its systems ran with other values.
    """
    name = document["suite"]["name"]
    if other["suite"] != document["suite"]:
        raise DataError(f"the results are of suite '{other['suite']['name']}', not of this '{name}'", _SAME)
    for system in sorted(other["configs"].keys() & document["configs"].keys()):
        different = differences(document["configs"][system], other["configs"][system])
        if different:
            raise DataError(f"{system} ran with other values in the results: {different[0]}", _SAME)
    found = {_key(cell): cell for part in (other, document) for cell in part["cells"]}
    suite = document["suite"]
    order = [
        Cell(algorithm["label"], reward["label"], seed).key
        for seed in suite["seeds"]
        for reward in suite["rewards"]
        for algorithm in suite["algorithms"]
    ]
    cells, left_out = _same_base([found[key] for key in order if key in found])
    return {
        **document,
        "origin": _together([document["origin"], other["origin"]]),
        "configs": {**other["configs"], **document["configs"]},
        "cells": cells,
        "missing": [key for key in document["missing"] if key not in found],
        "left_out": [*document["left_out"], *other["left_out"], *left_out],
    }


def _key(cell: Mapping[str, Any]) -> str:
    return Cell(cell["algorithm"], cell["reward"], cell["seed"]).key


def published(folder: Path) -> dict[str, Document]:
    """Every document in a folder of published results, by file name; results of another kind are passed over."""
    found: dict[str, Document] = {}
    for path in sorted(folder.glob("*.json")):
        content = read_json(path, "move it out of this folder")
        if isinstance(content, dict) and str(content.get("format", "")).startswith(FORMAT.partition("/")[0] + "/"):
            found[path.name] = read(path)
    return found


def stale(document: Document, suite: Suite) -> list[str]:
    """Differences of published systems from today's suite: values of their runs, and systems without one.

    ConfigError or PluginError if the values in the document are not those of a run.
    """
    found = []
    for cell in suite.cells():
        config = document["configs"].get(f"{cell.algorithm}--{cell.reward}")
        if config is None:
            found.append(f"{cell.algorithm} on {cell.reward} is missing")
        elif cell.seed == suite.table.seeds[0]:
            different = strays(suite, cell, {**config, "seed": cell.seed, "plugin_files": []})
            found += [f"{cell.algorithm} on {cell.reward}: {text}" for text in different]
    return list(dict.fromkeys(found))


def dumps(document: Mapping[str, Any]) -> str:
    """As text; the same document gives the same bytes."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _suite(suite: Suite) -> Document:
    table = suite.table
    return {
        "name": suite.name,
        "summary": table.summary,
        "seeds": list(table.seeds),
        "headline": table.headline,
        "budget": {name: limit for name, limit in suite.budget if limit is not None},
        "threads": table.threads,
        "algorithms": [{"label": a.title, "name": a.name, "search_trials": a.search_trials} for a in table.algorithms],
        "rewards": [
            {"label": r.label, "terms": [_term(term) for term in r.terms], "optimum": r.optimum} for r in table.rewards
        ],
    }


def _term(term: str | dict[str, Any]) -> dict[str, Any]:
    return {"name": term, "weight": 1.0} if isinstance(term, str) else {"weight": 1.0, **term}


def _configs(suite: Suite, cells: Iterable[Document]) -> Document:
    """Every value of every system's run, the seed and places of files apart, as far as it differs from the first's."""
    configs: Document = {}
    for cell in cells:
        name = f"{cell['algorithm']}--{cell['reward']}"
        if name not in configs:
            run = suite.resolved(Cell(cell["algorithm"], cell["reward"], cell["seed"])).to_dict()
            configs[name] = {key: value for key, value in run.items() if key not in ("seed", "plugin_files")}
    return configs


def _origin(runs: Sequence[Document]) -> Document:
    """Origin of the runs: every commit, machine and version, once."""
    names = {name for run in runs for name in run["packages"]}
    return _together(
        [
            {
                "commits": [run["commit"]],
                "machines": [run["machine"]],
                "python": [run["python"]],
                "packages": {name: [str(run["packages"].get(name))] for name in names},
            }
            for run in runs
        ]
    )


def _together(origins: Sequence[Document]) -> Document:
    """The values of several origins, each once and in order."""

    def once(parts: Iterable[Document], name: str) -> list[str]:
        return sorted({value for part in parts for value in part.get(name, ())})

    packages = [origin["packages"] for origin in origins]
    return {
        **{part: once(origins, part) for part in ("commits", "machines", "python")},
        "packages": {name: once(packages, name) for name in sorted({name for part in packages for name in part})},
    }


# --- between runs ----------------------------------------------------------------------------------------------------


def _same_base(cells: list[Document]) -> tuple[list[Document], list[dict[str, str]]]:
    """All runs of one seed and reward start from the same policy and the same noise; a run that did not is left out."""
    kept, left_out = [], []
    for cell in cells:
        mates = [c for c in cells if (c["seed"], c["reward"]) == (cell["seed"], cell["reward"])]
        middle = statistics.median(c["curve"][0]["scores"]["total"] for c in mates)
        own = cell["curve"][0]["scores"]["total"]
        if abs(own - middle) <= _BASE_TOLERANCE * cell["spread"]["total"] + 1e-6:
            kept.append(cell)
        else:
            reason = f"its base scores {own:.4g}, that of the same seed elsewhere {middle:.4g}: another policy"
            left_out.append({"run": _key(cell), "reason": reason})
    return kept, left_out


def _audio(suite: Suite, cells: Sequence[Document], folder: Path) -> Document:
    """{reward: [{prompt, text, clips: [{system, data}]}]} of the first seed that every system of the reward has."""
    found: Document = {}
    for reward in suite.table.rewards:
        mine = [cell for cell in cells if cell["reward"] == reward.label]
        all_systems = {cell["algorithm"] for cell in mine}
        whole = [s for s in suite.table.seeds if {c["algorithm"] for c in mine if c["seed"] == s} == all_systems]
        chosen = [cell for cell in mine if whole and cell["seed"] == whole[0]]
        spoken = list(chosen[0]["files"]["base"]) if chosen else []
        prompts = [p for p in spoken if all(p in cell["files"]["tuned"] for cell in chosen)][: suite.table.listen]
        entries = [_clips(prompt, chosen, folder) for prompt in prompts]
        if entries:
            found[reward.label] = {"seed": whole[0], "prompts": entries}
    return found


def _clips(prompt: str, cells: Sequence[Document], folder: Path) -> Document:
    first = cells[0]["files"]["base"][prompt]
    clips = [{"system": "base", "data": _wav(folder, cells[0], first["file"])}]
    clips += [
        {"system": cell["algorithm"], "data": _wav(folder, cell, cell["files"]["tuned"][prompt]["file"])}
        for cell in cells
    ]
    return {"prompt": prompt, "text": first["text"], "clips": clips}


def _wav(folder: Path, cell: Mapping[str, Any], file: str) -> str:
    path = own_file(folder, f"runs/{_key(cell)}/{file}")
    return base64.b64encode(read_bytes(path, "the run lost its audio; remove it and run it again")).decode()


__all__ = ["FORMAT", "Document", "collect", "dumps", "joined", "published", "read"]
