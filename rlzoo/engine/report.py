"""What a run leaves for people: a plot and one self-contained HTML page. Made again, they are the same."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from rlzoo.engine import plot
from rlzoo.errors import DataError
from rlzoo.rundir import RunDirectory

PLOT, REPORT = "reward.png", "report.html"
LISTENED = 12
"""Pairs of recordings in the report; all of them lie in `samples/`."""


def write_plot(rundir: RunDirectory) -> Path:
    """Write `reward.png` from what the run has measured so far."""
    config = rundir.config()
    rewards = " + ".join(reward_label(reward) for reward in config["rewards"])
    title = f"{config['algorithm']['name']} on {config['policy']['name']}: {rewards}"
    rundir.write_bytes(PLOT, plot.render(rundir.metrics(), evaluations(rundir), title))
    return rundir / PLOT


def write_report(rundir: RunDirectory) -> Path:
    """Write `report.html`; call after `write_plot`. DataError where the run has not been evaluated yet."""
    found = evaluations(rundir)
    if not found:
        raise DataError(f"'{rundir.path}' has no evaluation yet", "let the run reach its first evaluation")
    config, base, last = rundir.config(), found[0], found[-1]
    environment = Environment(loader=PackageLoader("rlzoo.engine"), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("report.html.j2").render(
        name=rundir.path.name,
        directory=str(rundir.path),
        config=config,
        config_text=json.dumps(config, indent=2, ensure_ascii=False),
        stand_ins=[r for r in config["rewards"] if r["requested"] != r["name"]],
        rewards=[reward_label(reward) for reward in config["rewards"]],
        base=base,
        last=last,
        columns=list(last["scores"]),
        metrics=rundir.metrics()[-1:],
        steps=last["step"],
        pairs=_pairs(rundir, base, last),
        total_pairs=len(last["rows"]),
        plot=_data_url(rundir / PLOT, "image/png"),
    )
    rundir.write_text(REPORT, page)
    return rundir / REPORT


def evaluations(rundir: RunDirectory) -> list[dict[str, Any]]:
    """Every eval/*.json, by step."""
    documents: list[dict[str, Any]] = []
    for path in sorted((rundir / "eval").glob("[0-9]*.json")):
        try:
            documents.append(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise DataError(f"'{path}' is no JSON: {error}", "delete it and resume the run") from error
    return documents


def reward_label(reward: dict[str, Any]) -> str:
    """`dnsmos`, or `dnsmos (for utmos)` where a stand-in is used; with its weight where that is not 1."""
    name = reward["name"] if reward["name"] == reward["requested"] else f"{reward['name']} (for {reward['requested']})"
    return name if reward["weight"] == 1.0 else f"{reward['weight']:g} × {name}"


def _pairs(rundir: RunDirectory, base: dict[str, Any], last: dict[str, Any]) -> list[dict[str, Any]]:
    """The first held-out samples, base and tuned, each with its audio where there is some."""
    pairs = []
    for before, after in zip(_some(base["rows"]), _some(last["rows"]), strict=True):
        pairs.append(
            {
                "text": after["text"] or after["prompt"],
                "base": before["scores"]["total"],
                "tuned": after["scores"]["total"],
                "base_audio": _data_url(rundir / before["file"], "audio/wav") if before["file"] else "",
                "tuned_audio": _data_url(rundir / after["file"], "audio/wav") if after["file"] else "",
            }
        )
    return pairs


def _some(rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    return rows[:LISTENED]


def _data_url(path: Path, kind: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read '{path}' for the report: {error.strerror}", "resume the run to make it again"
        ) from error
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
