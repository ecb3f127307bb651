"""Plots of a benchmark as inline SVG: scalable, with selectable text, and the same bytes for the same figures."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from rlzoo.bench.summary import Section, Summary
from rlzoo.stats.statistics import Estimate

INK, MUTED, LINE, BASE_COLOUR, OPTIMUM = "#1f2933", "#7b8794", "#d9dee4", "#9aa5b1", "#2f7d5b"
# Distinct in hue and lightness (after Paul Tol's muted scheme), one per system in the suite's order.
COLOURS = (
    "#332288", "#cc6677", "#117733", "#ddaa33", "#88ccee", "#aa4499", "#44aa99",
    "#882255", "#999933", "#4477aa", "#ee7733", "#661100", "#66a61e", "#555555",
    "#e7298a", "#b15928", "#111111", "#9e9ac8", "#00a5d8", "#c7b42c",
)  # fmt: skip
UNITS = {
    "samples": "samples",
    "network_evaluations": "network evaluations",
    "reward_calls": "scored samples",
    "updates": "updates",
    "seconds": "seconds of training",
}


def colour(summary: Summary, system: str) -> str:
    """Colour of a system, the same in every plot."""
    order = [entry["label"] for entry in summary.document["suite"]["algorithms"]]
    return COLOURS[order.index(system) % len(COLOURS)]


def gains(summary: Summary, section: Section) -> str:
    """Gain over the base: a dot per run, the interquartile mean and its interval."""
    rows = [row for row in section.rows if row.gains][::-1]
    with _figure(f"gains-{section.label}", 5.2, 0.7 + 0.27 * len(rows)) as (figure, drawn):
        axes = figure.subplots()
        for y, row in enumerate(rows):
            tint = colour(summary, row.system)
            _interval(axes, row.gain, y, tint)
            axes.plot(row.gains, [y] * len(row.gains), "o", color=tint, markersize=3, alpha=0.45, markeredgewidth=0)
        axes.axvline(0, color=BASE_COLOUR, linewidth=1)
        left, right = _limits([gain for row in rows for gain in row.gains], 0.0)
        axes.set_xlim(left, right)
        for y, row in enumerate(rows):
            beyond = [v for v in (*row.gains, row.gain.low, row.gain.value) if v is not None and v < left]
            if beyond:
                said = f"◂ to {min(beyond):.3g}".replace("-", "−")
                axes.annotate(said, (left, y + 0.36), fontsize=7, va="center", color=INK)
        optimum = section.reward["optimum"] if section.headline == "total" else None
        if optimum is not None:
            best = optimum - float(np.mean(section.base_scores("total")))
            axes.axvline(best, color=OPTIMUM, linewidth=1, linestyle=":")
            axes.set_xlim(left, max(right, best + 0.06 * (best - left)))
        axes.set_yticks(range(len(rows)), [row.system for row in rows])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_xlabel(
            f"gain in {_headline(section)} over the base" + (" (dotted: optimum)" if optimum is not None else "")
        )
        axes.grid(axis="x", color=LINE, linewidth=0.6)
    return drawn.svg


def curves(summary: Summary, section: Section) -> list[tuple[str, str]]:
    """(system, plot) for each: headline score against the budget, with its band; all on the same axes."""
    found = {row.system: section.curve(row.system) for row in section.rows if row.gains}
    points = [p for curve in found.values() for p in curve]
    optimum = section.reward["optimum"] if section.headline == "total" else None
    values = [v for p in points for v in (p["score"].value, p["score"].low, p["score"].high) if v is not None]
    base = float(np.mean(section.base_scores(section.headline)))
    bottom, top = _limits([*values, *([] if optimum is None else [optimum])], base)
    limit = summary.limit
    right = max(p["used"][limit] for p in points)
    drawings = []
    for system, curve in found.items():
        with _figure(f"curve-{section.label}-{system}", 2.5, 1.75) as (figure, drawn):
            axes = figure.subplots()
            for other in found.values():
                axes.plot([p["used"][limit] for p in other], [p["score"].value for p in other], color=LINE, linewidth=1)
            axes.axhline(base, color=BASE_COLOUR, linewidth=0.9, linestyle="--")
            if optimum is not None:
                axes.axhline(optimum, color=OPTIMUM, linewidth=0.9, linestyle=":")
            x = [p["used"][limit] for p in curve]
            _band(axes, x, [p["score"] for p in curve], colour(summary, system))
            axes.set_xlim(0, right)
            axes.set_ylim(bottom, top)
            axes.ticklabel_format(axis="x", style="sci", scilimits=(-2, 5))
            axes.locator_params(nbins=4)
            axes.grid(color=LINE, linewidth=0.5)
        drawings.append((system, drawn.svg))
    return drawings


def frontier(summary: Summary, section: Section) -> str:
    """Headline score against KL to the base, from the base outwards; empty if no KL was measured."""
    shown = [row.system for row in section.rows if row.gains and row.kl is not None]
    if not shown:
        return ""
    with _figure(f"frontier-{section.label}", 5.6, 3.9 + _legend_height(shown)) as (figure, drawn):
        axes = figure.subplots()
        for system in shown:
            curve = [p for p in section.curve(system) if p["kl"] is not None]
            tint = colour(summary, system)
            x, y = [p["kl"] for p in curve], [p["score"].value for p in curve]
            axes.plot(x, y, color=tint, linewidth=1.3, alpha=0.85)
            axes.plot(x[-1:], y[-1:], "o", color=tint, markersize=5, label=system)
            low, high = curve[-1]["score"].low, curve[-1]["score"].high
            if low is not None and high is not None:
                axes.plot([x[-1], x[-1]], [low, high], color=tint, linewidth=3.5, alpha=0.3, solid_capstyle="butt")
        axes.set_xscale("symlog", linthresh=_small(section))
        axes.set_xlim(left=0)
        values = [p["score"].value for name in section.systems for p in section.curve(name)]
        axes.set_ylim(*_limits(values, float(np.mean(section.base_scores(section.headline)))))
        axes.set_xlabel("KL to the base (nats per element of the state, mean over steps)")
        axes.set_ylabel(_headline(section))
        axes.grid(color=LINE, linewidth=0.6)
        _legend(figure)
    return drawn.svg


def profile(summary: Summary) -> str:
    """Share of runs whose normalised gain exceeds a threshold."""
    every = [v for s in summary.sections for name in s.systems for v in s.normalised(name)]
    thresholds = np.linspace(*_limits([0.0, *every], 0.0), 161)
    profiles = summary.profile(list(thresholds))
    shown = list(summary.overall())
    with _figure("profile", 5.6, 3.6 + _legend_height(shown)) as (figure, drawn):
        axes = figure.subplots()
        for system in shown:
            tint, (share, below, above) = colour(summary, system), profiles[system]
            axes.fill_between(thresholds, below, above, step="post", color=tint, alpha=0.07, linewidth=0)
            axes.step(thresholds, share, where="post", color=tint, linewidth=1.4, label=system)
        axes.axvline(0, color=BASE_COLOUR, linewidth=1)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("normalised gain τ")
        axes.set_ylabel("share of runs above τ")
        axes.grid(color=LINE, linewidth=0.6)
        _legend(figure)
    return drawn.svg


def _limits(values: Sequence[float], base: float) -> tuple[float, float]:
    """Ends of an axis that shows all values but those that fall far below both the base and the others: one run that
    collapsed must not squeeze all others into a line. Far: as far below the base as the best rises above it, and three
    times the spread of the middle half below that half."""
    low, high = min(base, *values), max(base, *values)
    first, third = np.quantile(values, (0.25, 0.75))
    low = max(low, min(base - (high - base), float(first - 3 * (third - first))))
    margin = 0.06 * (high - low or 1.0)
    return low - margin, high + margin


def _interval(axes: Axes, estimate: Estimate, y: float, tint: str) -> None:
    if estimate.low is not None and estimate.high is not None:
        axes.plot([estimate.low, estimate.high], [y, y], color=tint, linewidth=4, alpha=0.35, solid_capstyle="butt")
    axes.plot([estimate.value], [y], "|", color=tint, markersize=11, markeredgewidth=2.2)


def _band(axes: Axes, x: Sequence[float], scores: Sequence[Estimate], tint: str) -> None:
    if all(s.low is not None for s in scores):
        low, high = [float(s.low or 0.0) for s in scores], [float(s.high or 0.0) for s in scores]
        axes.fill_between(x, low, high, color=tint, alpha=0.25, linewidth=0)
    axes.plot(x, [s.value for s in scores], color=tint, linewidth=1.6)


def _legend(figure: Figure) -> None:
    """The systems below the plot, where they hide nothing."""
    figure.legend(
        loc="outside lower center", ncols=4, fontsize=7.5, frameon=False, handletextpad=0.2, columnspacing=1.0
    )


def _legend_height(systems: Sequence[str]) -> float:
    """Inches that `_legend` takes of the plot."""
    return 0.17 * -(-len(systems) // 4)


def _small(section: Section) -> float:
    kls = [p["kl"] for name in section.systems for p in section.curve(name) if p["kl"]]
    return float(np.quantile(kls, 0.1)) if kls else 1.0


def _headline(section: Section) -> str:
    return f"reward ({section.label})" if section.headline == "total" else section.headline


class _Drawn:
    svg = ""


@contextmanager
def _figure(name: str, width: float, height: float) -> Iterator[tuple[Any, _Drawn]]:
    """A figure in the page's style; its SVG is there once the block is left."""
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,  # the page holds many; equal ids would mix up their clip paths
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
    }
    drawn = _Drawn()
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, drawn
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn.svg = _inline(buffer.getvalue())


def _inline(text: str) -> str:
    """Without what a page does not want: prologue, metadata, a fixed size."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # every plot has a patch_1; nothing refers to groups
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    # Three decimals are far below a pixel.
    return head + ">" + re.sub(r"(\d+\.\d{3})\d+", r"\1", rest).strip()


__all__ = ["UNITS", "colour", "curves", "frontier", "gains", "profile"]
