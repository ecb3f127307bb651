"""Is the style of `gradtts` learnt? Distill-MOS against its eight numbers, and its spread against the corpus's.

    python benchmarks/voice/style.py --data CORPUS [--voice FILE] [--samples 30] [--out DIR]

Eight prompts of `short` are spoken with sampled styles. Differences between prompts are taken away, then a linear fit
predicts Distill-MOS from the style; R^2 is cross-validated (ten folds). The same of a fit with squares. Spread:
standard deviation of every number of the style, of samples against recordings of CORPUS (test split) through the
reference encoder; and of Distill-MOS. Writes style.md, style.json and style.png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from evaluate import HERE, load
from matplotlib.figure import Figure
from pictures import save
from rlzoo_gradtts.policy import GradTTSPolicy
from rlzoo_gradtts.style import summarise

from rlzoo.api import Prompt
from rlzoo.audio import to_samples
from rlzoo.core.noise import seed_of
from rlzoo.engine.rollout import SamplingPlan, sample
from rlzoo.rewards import build_reward
from rlzoo.speech.corpus.speech import SpeechCorpus

mpl.use("Agg")
from matplotlib import pyplot as plt

PROMPTS = 8


@torch.no_grad()
def sampled(policy: GradTTSPolicy, prompts: list[Prompt], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Styles (N, Z) and Distill-MOS (N,) of one sample of each prompt."""
    seeds = tuple(seed_of("style", seed, prompt.id) for prompt in prompts)
    plan = SamplingPlan(schedule=policy.schedule(), seeds=seeds)
    done = sample(policy, policy.condition(prompts), plan)
    scores = build_reward("distillmos", {}).score(done.samples, prompts).values
    return done.states[-1][:, : policy.config.style, 0].numpy(), scores.numpy()


@torch.no_grad()
def recorded(policy: GradTTSPolicy, data: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Styles (N, Z) that the reference encoder reads off recordings, and their Distill-MOS (N,)."""
    items = list(SpeechCorpus.open(data, split="test", sample_rate=policy.config.sample_rate))[:count]
    waves = [item.load() for item in items]
    styles = [policy.network.posterior(summarise(policy.mel(wave[None])[0])[None])[0][0] for wave in waves]
    reward, prompts = build_reward("distillmos", {}), [Prompt(item.id, item.text) for item in items]
    scores = reward.score(to_samples(waves, policy.config.sample_rate), prompts).values
    return torch.stack(styles).numpy(), scores.numpy()


def features(styles: np.ndarray, squares: bool) -> np.ndarray:
    """Columns of the fit: one, the numbers and, if asked for, their squares."""
    return np.column_stack([np.ones(len(styles)), styles, *([styles**2] if squares else [])])


def predicted(styles: np.ndarray, scores: np.ndarray, squares: bool, folds: int = 10) -> np.ndarray:
    """Scores (N,) by least squares, each from the other folds."""
    made, fold = np.zeros(len(scores)), np.random.default_rng(0).permutation(len(scores)) % folds
    for part in range(folds):
        kept, left = fold != part, fold == part
        weights = np.linalg.lstsq(features(styles[kept], squares), scores[kept], rcond=None)[0]
        made[left] = features(styles[left], squares) @ weights
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="corpus that the voice was trained on")
    parser.add_argument("--voice", type=Path, help="default: the voice that ships")
    parser.add_argument("--samples", type=int, default=30, help="of each prompt")
    parser.add_argument("--recordings", type=int, default=80)
    parser.add_argument("--out", type=Path, default=HERE / "gradtts")
    args = parser.parse_args()

    policy = load("gradtts", args.voice)
    assert isinstance(policy, GradTTSPolicy)
    from rlzoo_prompts import ShortOptions
    from rlzoo_prompts.prompts import ShortPrompts

    prompts = list(ShortPrompts(ShortOptions()).train())[:PROMPTS]
    parts = [sampled(policy, prompts, seed) for seed in range(args.samples)]
    styles, raw = (np.concatenate(column) for column in zip(*parts, strict=True))
    corpus_styles, corpus_scores = recorded(policy, args.data, args.recordings)
    prompt = np.arange(len(raw)) % len(prompts)
    centred = raw - np.array([raw[prompt == row].mean() for row in prompt])
    fits = {name: predicted(styles, centred, squares) for name, squares in (("linear", False), ("squares", True))}
    explained = {name: 1 - float(((fit - centred) ** 2).sum() / (centred**2).sum()) for name, fit in fits.items()}
    found = {
        "samples": len(raw),
        "correlation": [float(np.corrcoef(styles[:, n], centred)[0, 1]) for n in range(styles.shape[1])],
        "explained": explained,
        "correlation_of_fit": {name: float(np.corrcoef(fit, centred)[0, 1]) for name, fit in fits.items()},
        "spread_samples": styles.std(0).tolist(),
        "spread_recordings": corpus_styles.std(0).tolist(),
        "mos_samples": [float(raw.mean()), float(centred.std())],
        "mos_recordings": [float(corpus_scores.mean()), float(corpus_scores.std())],
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "style.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    numbers = range(styles.shape[1])
    rows = [
        ("", *[f"z{n + 1}" for n in numbers]),
        ("---", *["---"] * len(numbers)),
        ("correlation with Distill-MOS", *[f"{value:+.2f}" for value in found["correlation"]]),
        ("spread over samples", *[f"{value:.2f}" for value in found["spread_samples"]]),
        ("spread over recordings", *[f"{value:.2f}" for value in found["spread_recordings"]]),
    ]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    mean, spread = corpus_scores.mean(), corpus_scores.std()
    lines += [
        "",
        f"{len(raw)} samples of {len(prompts)} prompts: Distill-MOS {raw.mean():.2f}, standard deviation within a",
        f"prompt {centred.std():.2f}. {len(corpus_scores)} recordings: {mean:.2f}, {spread:.2f}.",
        "",
        f"Of the variance within a prompt the eight numbers explain {explained['linear']:.0%} linearly and",
        f"{explained['squares']:.0%} with their squares (cross-validated; correlations",
        f"{found['correlation_of_fit']['linear']:.2f} and {found['correlation_of_fit']['squares']:.2f}).",
        "",
        "![Distill-MOS against the style](style.png)",
    ]
    (args.out / "style.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    picture(styles, centred, fits["squares"], args.out / "style.png")
    print("\n".join(lines))


def picture(styles: np.ndarray, centred: np.ndarray, fit: np.ndarray, path: Path) -> None:
    """Left: the two numbers that tell most, coloured by score; right: the score against the fit."""
    strength = [abs(np.corrcoef(styles[:, n], centred)[0, 1]) for n in range(styles.shape[1])]
    one, other = np.argsort(strength)[::-1][:2]
    figure: Figure
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    dots = axes[0].scatter(styles[:, one], styles[:, other], c=centred, cmap="viridis", s=14)
    axes[0].set(xlabel=f"z{one + 1}", ylabel=f"z{other + 1}", title="samples, coloured by Distill-MOS")
    figure.colorbar(dots, ax=axes[0], label="Distill-MOS minus its prompt's mean")
    axes[1].scatter(fit, centred, s=14)
    axes[1].set(xlabel="predicted from the style (cross-validated)", ylabel="Distill-MOS minus its prompt's mean")
    save(figure, path)


if __name__ == "__main__":
    main()
