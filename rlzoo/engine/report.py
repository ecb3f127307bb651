"""The report of a run: a plot and one self-contained HTML page. The same run gives the same bytes."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from rlzoo.engine import plot, spectrogram
from rlzoo.engine.results import PLOT, REPORT, evaluations
from rlzoo.errors import DataError
from rlzoo.files.evaluations import own_file
from rlzoo.files.reading import read_bytes
from rlzoo.files.rundir import RunDirectory
from rlzoo.speech.audio import read_audio
from rlzoo.stats.comparison import Comparison, compare, interval, p_value

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
    """Write `report.html`; call after `write_plot`. DataError if the run has not been evaluated yet."""
    every = evaluations(rundir)
    if not every:
        raise DataError(f"'{rundir.path}' has no evaluation yet", "let the run reach its first evaluation")
    config, base, last = rundir.config(), every[0], every[-1]
    found = _compared(config, base, last) if last["step"] else None
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
        columns=_columns(config, base, last, found),
        verdict=None if found is None else found.verdict,
        metrics=rundir.metrics()[-1:],
        steps=last["step"],
        pairs=_pairs(rundir, base, last),
        total_pairs=len(last["rows"]),
        plot=_data_url(rundir, PLOT, "image/png"),
    )
    rundir.write_text(REPORT, page)
    return rundir / REPORT


def reward_label(reward: dict[str, Any]) -> str:
    """`dnsmos`, or `dnsmos (for utmos)` where a stand-in is used; with its weight where that is not 1."""
    name = reward["name"] if reward["name"] == reward["requested"] else f"{reward['name']} (for {reward['requested']})"
    return name if reward["weight"] == 1.0 else f"{reward['weight']:g} × {name}"


def _columns(
    config: dict[str, Any], base: dict[str, Any], last: dict[str, Any], found: Comparison | None
) -> list[dict[str, Any]]:
    """A row of the table per score; the total only where it is not the one reward itself."""
    names = [name for name in last["scores"] if name in base["scores"]]
    if len(config["rewards"]) == 1 and _plain(config):
        names.remove("total")
    columns = []
    for name in names:
        column: dict[str, Any] = {"name": name, "role": "" if name == "total" else "judge"}
        if name in _trained(config):
            column["role"] = "reward"
        for when, document in (("base", base), ("tuned", last)):
            figures = document["scores"][name]
            column[when] = [f"{figures['mean']:.3f}", f" ± {figures['std']:.3f}"]
        if found is not None:
            one = found.scores[name]
            column |= {
                "gain": f"{one.gain.value:+.3f}",
                "rose": one.gain.value > 0,
                "interval": interval(one.gain),
                "p": p_value(one.p),
                "wins": f"{100 * one.win_rate.value:.0f} %",
            }
        columns.append(column)
    return columns


def _compared(config: dict[str, Any], base: dict[str, Any], last: dict[str, Any]) -> Comparison:
    judges = [name for name in last["scores"] if name != "total" and name not in _trained(config)]
    return compare(last["rows"], base["rows"], trained="total", judges=judges)


def _trained(config: dict[str, Any]) -> set[str]:
    return {reward["name"] for reward in config["rewards"]}


def _plain(config: dict[str, Any]) -> bool:
    return all(reward["weight"] == 1.0 for reward in config["rewards"])


def _pairs(rundir: RunDirectory, base: dict[str, Any], last: dict[str, Any]) -> list[dict[str, Any]]:
    """The first held-out samples, base and tuned, each with audio and spectrogram where there is some."""
    pairs = []
    of_base = {(row["prompt"], row["index"]): row for row in base["rows"]}
    for after in [row for row in last["rows"] if (row["prompt"], row["index"]) in of_base][:LISTENED]:
        before = of_base[after["prompt"], after["index"]]
        files = [row["file"] for row in (before, after)]
        pictures = [b"", b""]
        if all(files):
            heard = [read_audio(own_file(rundir.path, file)) for file in files]
            pictures = spectrogram.pictures([wave for wave, _ in heard], heard[0][1])
        sides = [
            {
                "who": who,
                "score": row["scores"]["total"],
                "audio": _data_url(rundir, row["file"], "audio/wav") if row["file"] else "",
                "picture": _encoded(picture, "image/png") if picture else "",
            }
            for who, row, picture in zip(("base", "tuned"), (before, after), pictures, strict=True)
        ]
        pairs.append({"text": after["text"] or after["prompt"], "sides": sides})
    return pairs


def _data_url(rundir: RunDirectory, name: str, kind: str) -> str:
    return _encoded(read_bytes(own_file(rundir.path, name), "resume the run to make it again"), kind)


def _encoded(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
