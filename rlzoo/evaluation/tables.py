"""The result of an evaluation as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table

from rlzoo.engine.console import out


def show(found: dict[str, Any], out: Console = out) -> None:
    """Print a table and a few lines."""
    from rlzoo.stats.comparison import p_value

    prompts = len({row["prompt"] for row in found["rows"]})
    title = f"{found['target']}: {found['samples']} samples of {prompts} prompts"
    title += f", against {found['base']}" if found["base"] else ""
    out.print(f"\n{title}")
    # Components of a reward (`nisqa/noisiness`) are in the JSON; not of all of them is more better.
    names = [name for name in [*found["trained_on"], *found["judges"]] if name in found["scores"]]
    if len(found["trained_on"]) > 1:
        names = ["total", *names]
    out.print(_compared(found, names) if found["paired"] else _alone(found, names))
    spread, kl, verdict = found["diversity"], found["kl"], found["hacking"]
    if spread:
        change = spread.get("paired")
        line = f"diversity between samples of a prompt: {spread['tuned']['mean']:.3g}"
        line += f" (base {change['base']:.3g}, p {p_value(change['p'])})" if change else ""
        out.print(line + (" dB" if found["sample_rate"] and not change else ""))
    if kl:
        one = kl["per_element"]
        out.print(f"KL to the base, one denoising step: {one['mean']:.3g} nats per element{_range(one, '.3g')}")
    if verdict:
        out.print(("WARNING, " if verdict["hacked"] else "") + verdict["says"])
    elif found["trained_on"]:
        out.print("no judge besides the reward, so reward hacking would not show: add --judges")
    if found["cache"]["hits"]:
        out.print(f"{found['cache']['hits']} of {found['cache']['rows']} scores were known")


def as_text(found: dict[str, Any]) -> str:
    """Return the text of `show`."""
    written = StringIO()
    show(found, Console(file=written, width=120, highlight=False, markup=False))
    return written.getvalue().strip("\n")


def _compared(found: dict[str, Any], names: Sequence[str]) -> Table:
    from rlzoo.stats.comparison import p_value

    table = Table(box=None, pad_edge=False)
    for head in ("score", "base", "tuned", "change", "95 % interval", "p", "win rate"):
        table.add_column(head, justify="left" if head == "score" else "right", no_wrap=True)
    for name in names:
        one = found["paired"][name]
        table.add_row(
            f"{name} (reward)" if name in found["trained_on"] else name,
            f"{one['base']:.3f}",
            f"{one['tuned']:.3f}",
            f"{one['gain']:+.3f}",
            _range(one, "+.3f").strip(" ()") or "–",
            p_value(one["p"]),
            f"{100 * one['win_rate']:.0f} %",
        )
    return table


def _alone(found: dict[str, Any], names: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in ("score", "mean", "95 % interval"):
        table.add_column(head, justify="left" if head == "score" else "right", no_wrap=True)
    for name in names:
        one = found["scores"][name]
        table.add_row(name, f"{one['mean']:.3f}", _range(one, ".3f").strip(" ()") or "–")
    return table


def _range(found: dict[str, Any], form: str) -> str:
    return "" if found["low"] is None else f" ({found['low']:{form}} … {found['high']:{form}})"
