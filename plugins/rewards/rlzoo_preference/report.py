"""Quality of a preference model on held-out answers: accuracy, likelihood, calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

Floats = NDArray[np.float64]


def judged(margin: Floats, tie: NDArray[np.bool_], bins: int) -> dict[str, Any]:
    """(P,) score of the preferred minus score of the rejected, (P,) ties -> figures, of decided answers only.

    `accuracy` with Wilson's 95 % interval; an even margin is half right. `log_loss` in nats (0.693 is a coin),
    `brier`. `ece`: confidence is the probability of the clip that the model prefers, from 1/2 to 1; in each of `bins`
    classes of equal width it is compared with how often raters agreed, weighted by the answers in the class
    (Naeini et al., 2015). `tie_margin`: mean absolute margin of ties, beside that of decided answers.
    """
    decided = margin[~tie]
    count = len(decided)
    if not count:
        return {"answers": 0, "ties": int(tie.sum())}
    probability = 1 / (1 + np.exp(-decided))
    right = np.where(decided == 0, 0.5, decided > 0)
    interval = binomtest(round(float(right.sum())), count).proportion_ci(0.95, method="wilson")
    confidence = np.maximum(probability, 1 - probability)
    reliability = table(confidence, right, bins)
    return {
        "answers": count,
        "ties": int(tie.sum()),
        "accuracy": float(right.mean()),
        "low": float(interval.low),
        "high": float(interval.high),
        "log_loss": float(np.logaddexp(0, -decided).mean()),
        "brier": float(((1 - probability) ** 2).mean()),
        "ece": sum(row["answers"] * abs(row["confidence"] - row["agreed"]) for row in reliability) / count,
        "reliability": reliability,
        "margin": float(np.abs(decided).mean()),
        "tie_margin": float(np.abs(margin[tie]).mean()) if tie.any() else None,
    }


def table(confidence: Floats, right: Floats, bins: int) -> list[dict[str, Any]]:
    """Classes of confidence with mean confidence and share of agreement; empty ones are left out."""
    edges = np.linspace(0.5, 1, bins + 1)
    place = np.clip(np.digitize(confidence, edges[1:-1]), 0, bins - 1)
    rows = []
    for index in range(bins):
        inside = place == index
        if inside.any():
            means = {"confidence": float(confidence[inside].mean()), "agreed": float(right[inside].mean())}
            rows.append({"from": edges[index], "to": edges[index + 1], "answers": int(inside.sum()), **means})
    return rows


def text(report: dict[str, Any]) -> str:
    """Return the report as text."""
    lines = [
        f"{report['answers']} answers ({report['ties']} ties), {report['raters']} raters, {report['prompts']} prompts",
        f"encoder {report['encoder']}, weight decay {report['weight_decay']:g}",
        "",
        "               answers  ties  accuracy   95 %            log loss  Brier   ECE",
    ]
    for name in ("training", "held_out"):
        row = report[name]
        if not row["answers"]:
            lines.append(f"{name.replace('_', ' '):14} {0:7} {row['ties']:5}  no decided answers")
            continue
        lines.append(
            f"{name.replace('_', ' '):14} {row['answers']:7} {row['ties']:5} {row['accuracy']:9.3f}   "
            f"{row['low']:.3f} - {row['high']:.3f} {row['log_loss']:9.3f} {row['brier']:7.3f} {row['ece']:6.3f}"
        )
    if report["held_out"]["answers"]:
        lines += ["", "held out, by confidence   answers  model  raters agreed"]
        for row in report["held_out"]["reliability"]:
            span = f"{row['from']:.2f} - {row['to']:.2f}"
            lines.append(f"{span:24} {row['answers']:8} {row['confidence']:6.3f} {row['agreed']:14.3f}")
        if report["held_out"]["low"] <= 0.5:
            lines += ["", "NOT BETTER THAN A COIN on held-out answers: do not train on this reward."]
    return "\n".join(lines)
