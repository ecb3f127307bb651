"""The plot of a run: reward of the training samples, held-out reward, divergence from the reference."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

TRAIN, HELDOUT, KL = "#4c72b0", "#c44e52", "#55a868"


def render(metrics: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]], title: str) -> bytes:
    """Lines of metrics.jsonl and the eval/*.json documents -> a PNG. The same input gives the same bytes."""
    figure = Figure(figsize=(8.0, 5.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    reward, divergence = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    figure.suptitle(title, fontsize=11)
    _reward(reward, metrics, evaluations)
    _kl(divergence, metrics)
    buffer = io.BytesIO()
    # No software or date in the file: the plot of the same run is the same file.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _reward(axes: Axes, metrics: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]]) -> None:
    rows = [row for row in metrics if "reward/total" in row and "reward/total_std" in row]
    if rows:
        # A step's samples come from the policy before its update, hence step - 1 on this axis.
        steps = [row["step"] - 1 for row in rows]
        mean = [row["reward/total"] for row in rows]
        spread = [row["reward/total_std"] for row in rows]
        axes.fill_between(
            steps,
            [m - s for m, s in zip(mean, spread, strict=True)],
            [m + s for m, s in zip(mean, spread, strict=True)],
            color=TRAIN,
            alpha=0.15,
            linewidth=0,
            label="± 1 std between samples",
        )
        axes.plot(steps, mean, color=TRAIN, linewidth=1.2, label="training samples")
    if evaluations:
        steps = [document["step"] for document in evaluations]
        total = [document["scores"]["total"]["mean"] for document in evaluations]
        error = [document["scores"]["total"].get("gain_error", 0.0) for document in evaluations]
        label = "held-out prompts ± s.e. of the change"
        axes.errorbar(
            steps, total, yerr=error, color=HELDOUT, marker="o", markersize=5, linewidth=1.8, capsize=3, label=label
        )
    axes.set_ylabel("reward")
    axes.grid(alpha=0.25)
    axes.legend(loc="best", fontsize=8, frameon=False)


def _kl(axes: Axes, metrics: Sequence[dict[str, Any]]) -> None:
    rows = [row for row in metrics if "policy/kl" in row]
    axes.plot([row["step"] - 1 for row in rows], [row["policy/kl"] for row in rows], color=KL, linewidth=1.2)
    if not rows:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", fontsize=8)
    axes.set_ylabel("KL per element\n(nats)", fontsize=8)
    axes.set_xlabel("optimisation steps")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.grid(alpha=0.25)
