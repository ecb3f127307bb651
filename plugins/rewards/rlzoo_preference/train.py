"""`rlzoo reward train-preference`: maximum likelihood of the raters' choices under Bradley and Terry's model.

P(a preferred to b) = 1 / (1 + exp(r(b) - r(a))), r the score of a clip alone. The encoder is frozen, so each recording
is described once; what is left is a small, regularised logistic regression on differences of features.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rlzoo.audio import read_audio, to_samples
from rlzoo.errors import DataError
from rlzoo.preferences import Preference, read_preferences
from rlzoo.writing import write_text
from rlzoo_preference import TrainPreferenceOptions
from rlzoo_preference.encoders import RATE, EncoderSettings, describe, make
from rlzoo_preference.model import Head, save
from rlzoo_preference.pairs import groups, held_out, parted
from rlzoo_preference.report import judged, text

WEIGHT_DECAYS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
BATCH = 16


def train(pairs: Path, out: Path, options: TrainPreferenceOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Train on the answers in `pairs`, write `out` (safetensors) and the report beside it (JSON), and return it.

    Raises DataError for pairs that cannot be read, are too few, or name recordings that are none.
    """
    answers = read_preferences(pairs)
    files = sorted({file for pair in answers for file in pair.recordings})
    encoder = make(options.encoder, options.layer, options.encoder_checkpoint).to(options.device)
    say(f"describing {len(files)} recordings with {options.encoder}")
    features = _described(files, encoder, options)
    index = {file: row for row, file in enumerate(files)}
    rows = torch.tensor([[index[file] for file in pair.recordings] for pair in answers])
    tie = torch.tensor([pair.tie for pair in answers])
    generator = np.random.default_rng(options.seed)
    group = groups(answers)
    hidden = torch.from_numpy(held_out(group, options.held_out, generator))
    taught = ~hidden & ~tie if options.ties == "drop" else ~hidden
    if not bool((taught & ~tie).any()):
        raise DataError("no decided answer is left to train on", "let more people listen")
    fold = torch.from_numpy(parted(group[taught.numpy()], options.folds, generator))
    wins = torch.where(tie, 0.5, 1.0)
    decay = chosen_decay(features, rows[taught], wins[taught], fold, options)
    head = fitted(features, rows[taught], wins[taught], decay, options)
    margin = _margin(head, features, rows).double().numpy()
    report = {
        **_counts(answers, group),
        "encoder": options.encoder,
        "weight_decay": decay,
        "training": judged(margin[~hidden.numpy()], tie[~hidden].numpy(), options.bins),
        "held_out": judged(margin[hidden.numpy()], tie[hidden].numpy(), options.bins),
    }
    settings = EncoderSettings(
        name=options.encoder,
        level_dbfs=options.level_dbfs,
        layer=options.layer if options.encoder == "wav2vec2" else 0,
        sha256=encoder.sha256,
    )
    save(out, head, settings, options.hidden, report)
    write_text(out.with_suffix(".json"), json.dumps(report, indent=2) + "\n", refused="choose another --out")
    say(text(report))
    return report


def _counts(answers: Sequence[Preference], group: NDArray[np.int64]) -> dict[str, int]:
    return {
        "answers": len(answers),
        "ties": sum(pair.tie for pair in answers),
        "raters": len({pair.rater for pair in answers}),
        "prompts": len({pair.prompt.id for pair in answers}),
        "groups": len(np.unique(group)),
    }


@torch.no_grad()
def _described(files: Sequence[Path], encoder: Any, options: TrainPreferenceOptions) -> Tensor:
    """(R, D) on the CPU, clips of similar length together."""
    waves = [read_audio(file, RATE, on_rate="resample")[0] for file in files]
    order = sorted(range(len(files)), key=lambda row: len(waves[row]))
    found: list[Tensor] = [torch.empty(0)] * len(files)
    for start in range(0, len(order), BATCH):
        piece = order[start : start + BATCH]
        samples = to_samples([waves[row] for row in piece], RATE).to(options.device)
        for row, vector in zip(piece, describe(encoder, samples, options.level_dbfs).cpu(), strict=True):
            found[row] = vector
    return torch.stack(found)


def _margin(head: Head, features: Tensor, rows: Tensor) -> Tensor:
    """(P, 2) rows of preferred and rejected -> (P,) difference of their scores."""
    with torch.no_grad():
        scores = head(features)
    margin: Tensor = scores[rows[:, 0]] - scores[rows[:, 1]]
    return margin


def chosen_decay(features: Tensor, rows: Tensor, wins: Tensor, fold: Tensor, options: TrainPreferenceOptions) -> float:
    """The weight decay with the least log loss on the folds that were left out; training answers only."""

    def left_out_loss(decay: float) -> float:
        losses = []
        for part in fold.unique():
            inside = fold != part
            head = fitted(features, rows[inside], wins[inside], decay, options)
            losses.append(_loss(_margin(head, features, rows[~inside]), wins[~inside]))
        return torch.cat(losses).mean().item()

    return min(WEIGHT_DECAYS, key=left_out_loss)


def _loss(margin: Tensor, wins: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(margin, wins, reduction="none")


def fitted(features: Tensor, rows: Tensor, wins: Tensor, decay: float, options: TrainPreferenceOptions) -> Head:
    """The head of least loss on these answers (L-BFGS over all of them), scores centred on their recordings."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        head = Head(features.shape[1], options.hidden)
    heard = features[rows.unique()]
    head.mean.copy_(heard.mean(0))
    # A feature that never changes teaches nothing; dividing by its rounding would make it everything.
    head.std.copy_(heard.std(0, correction=0).clamp(min=1e-3))
    parameters = list(head.parameters())
    optimizer = torch.optim.LBFGS(parameters, max_iter=200, line_search_fn="strong_wolfe")
    scored, place = rows.unique(return_inverse=True)

    def closure() -> float:
        optimizer.zero_grad()
        scores = head(features[scored])
        loss = _loss(scores[place[:, 0]] - scores[place[:, 1]], wins).mean()
        penalty = torch.stack([parameter.square().sum() for parameter in parameters]).sum()
        total = loss + 0.5 * decay * penalty
        total.backward()
        return total.item()

    optimizer.step(closure)
    with torch.no_grad():
        head.offset.copy_(head(heard).mean())
    return head.eval().requires_grad_(False)
