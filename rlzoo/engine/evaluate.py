"""Held-out evaluation: the same noise per prompt every time, so that base and tuned are compared sample by sample."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from rlzoo.config.schema import EvalTable
from rlzoo.core.noise import seed_of
from rlzoo.core.types import Prompt, Samples
from rlzoo.engine import rollout, scoring
from rlzoo.engine.checkpoint import name_of
from rlzoo.engine.context import Context
from rlzoo.engine.events import Progress
from rlzoo.errors import ConfigError, DataError
from rlzoo.files.evaluations import read_evaluation
from rlzoo.files.rundir import RunDirectory
from rlzoo.speech.audio import write_audio


def evaluate(
    ctx: Context, heldout: Sequence[Prompt], judges: Sequence[scoring.Scorer], table: EvalTable, rundir: RunDirectory
) -> dict[str, Any]:
    """Judge the policy on the held-out prompts; write `eval/<step>.json` and `samples/<step>/`; return the former.

    The first evaluation of a run is its base. Counts nothing against the budget. Collective.
    """
    processes, rank = ctx.fabric.world_size, ctx.fabric.global_rank
    if len(heldout) < processes:
        raise ConfigError(
            f"{len(heldout)} held-out prompts cannot be shared by {processes} processes", "raise eval.prompts"
        )
    mine = rollout.share(len(heldout), rank, processes)
    scorers = [*ctx.scorers, *judges]
    names = ["total", *(scorer.name for scorer in scorers)]
    tables: list[torch.Tensor] = []
    with ctx.optimisation.averaged(), ctx.counters.paused(), torch.no_grad():
        per_call = max(1, ctx.rollout_table.micro_batch // table.samples_per_prompt)
        for first in range(mine.start, mine.stop, per_call):
            prompts = heldout[first : min(first + per_call, mine.stop)]
            tables.append(_judge(ctx, prompts, scorers, table, rundir))
            ctx.observer(Progress("evaluating", first - mine.start + len(prompts), len(mine)))
    scoring.cache_use(scorers)  # the rate in the metrics is that of training samples
    scores = ctx.gather(torch.cat(tables)).cpu()
    document = _document(ctx, heldout, scores, names, table, rundir)
    if rank == 0:
        _write(document, rundir)
    ctx.fabric.barrier()
    return document


def read(rundir: RunDirectory, step: int) -> dict[str, Any] | None:
    """An evaluation that was written before, or None. DataError if it is damaged."""
    path = rundir / f"eval/{name_of(step)}.json"
    return read_evaluation(path) if path.is_file() else None


def _judge(
    ctx: Context, prompts: Sequence[Prompt], scorers: Sequence[scoring.Scorer], table: EvalTable, rundir: RunDirectory
) -> torch.Tensor:
    """(rows, 1 + scorers) of some prompts; writes their audio."""
    G = table.samples_per_prompt
    rows = [prompt for prompt in prompts for _ in range(G)]
    seeds = tuple(seed_of("eval", ctx.seed, prompt.id, g) for prompt in prompts for g in range(G))
    cond = ctx.policy.condition(prompts).to(ctx.device).repeat(G)
    schedule = ctx.policy.schedule(table.num_steps or ctx.rollout_table.num_steps)
    if ctx.rollout_table.deterministic if table.deterministic is None else table.deterministic:
        schedule = replace(schedule, stochastic=torch.zeros_like(schedule.stochastic))
    plan = rollout.SamplingPlan(
        schedule=schedule,
        seeds=seeds,
        reduction=ctx.logprob_reduction,
        micro_batch=ctx.rollout_table.micro_batch,
        micro_batch_frames=ctx.rollout_table.micro_batch_frames,
    )
    samples = rollout.sample(ctx.policy, cond, plan).samples
    scored = scoring.score(scorers, samples, rows, ctx.rollout_table.micro_batch, ctx.failures)
    weighted = scoring.Scored(scored.values[: len(ctx.scorers)], {})
    for row, prompt in enumerate(rows):
        _write_sample(samples, row, rundir, _file_of(ctx.step, prompt, row % G, samples.media.kind))
    return torch.stack([scoring.total(ctx.scorers, weighted), *scored.values], 1).double()


def _file_of(step: int, prompt: Prompt, index: int, kind: str) -> str:
    return f"samples/{name_of(step)}/{prompt.id}-{index}.wav" if kind == "audio" else ""


def _write_sample(samples: Samples, row: int, rundir: RunDirectory, file: str) -> None:
    if file and samples.media.sample_rate:
        write_audio(rundir / file, samples.row(row), samples.media.sample_rate)


def _document(
    ctx: Context,
    heldout: Sequence[Prompt],
    scores: torch.Tensor,
    names: Sequence[str],
    table: EvalTable,
    rundir: RunDirectory,
) -> dict[str, Any]:
    base = read(rundir, 0) if ctx.step else None
    places = [(prompt, index) for prompt in heldout for index in range(table.samples_per_prompt)]
    rows = [
        {
            "prompt": prompt.id,
            "text": prompt.text,
            "index": index,
            "file": _file_of(ctx.step, prompt, index, ctx.policy.media.kind),
            "scores": dict(zip(names, values, strict=True)),
        }
        for (prompt, index), values in zip(places, scores.tolist(), strict=True)
    ]
    summary = {name: scoring.summary(scores[:, column]) for column, name in enumerate(names)}
    if base is not None:
        if len(base["rows"]) != len(rows) or not all(name in base["scores"] for name in names):
            raise DataError(
                f"the evaluation of the start in '{rundir.path}' is of other samples or scores", "start the run again"
            )
        for column, name in enumerate(names):
            before = [row["scores"][name] for row in base["rows"]]
            summary[name] |= _gain(scores[:, column], before, table.samples_per_prompt)
    return {"step": ctx.step, "scores": summary, "rows": rows}


def _gain(tuned: torch.Tensor, base: Sequence[float], samples_per_prompt: int) -> dict[str, float]:
    """Paired difference to the base: its mean, the standard error of that mean, and the share of samples that rose.

    The error is that of the mean over prompts: samples of one prompt rise and fall together, so each prompt counts as
    one observation however often it was sampled. NaN is not valid JSON, so the error of a single prompt is given as 0.
    """
    before = torch.tensor(base, dtype=torch.float64)
    gain = tuned.double() - before
    of_prompts = gain.view(-1, samples_per_prompt).mean(1)
    error = float(of_prompts.std(correction=1)) / math.sqrt(len(of_prompts)) if len(of_prompts) > 1 else 0.0
    return {
        "base": float(before.mean()),
        "gain": float(gain.mean()),
        "gain_error": error,
        "improved": float((gain > 0).double().mean()),
    }


def _write(document: dict[str, Any], rundir: RunDirectory) -> None:
    name = name_of(document["step"])
    lines = [{key: row[key] for key in ("file", "prompt", "text", "index", "scores")} for row in document["rows"]]
    rundir.write_text(
        f"samples/{name}/index.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    )
    rundir.write_json(f"eval/{name}.json", document)
