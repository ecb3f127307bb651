"""Core's own tables of the run file. Plugins' tables are their `Options`; see `rlzoo.config` for how both meet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlzoo.core.specs import Options

MANY = 10_000_000
"""More than any run makes of anything; a slip of the keyboard would otherwise run for years."""
Count = Annotated[int, Field(ge=1, le=100_000)]
DenoisingSteps = Annotated[int, Field(ge=1, le=10_000)]
Limit = Annotated[int, Field(ge=1, le=2**53)]


class RolloutTable(Options):
    """`[rollout]`: what is sampled in each optimisation step, alike for every algorithm."""

    prompts_per_step: Count = 6
    """Distinct prompts in one step, over all processes."""
    samples_per_prompt: Count = 6
    """Samples of each prompt; group-relative advantages need at least 2."""
    num_steps: DenoisingSteps | None = None
    """Denoising steps K of a rollout; unset: the policy's default."""
    micro_batch: Annotated[int, Field(ge=0, le=MANY)] = 16
    """Rows sampled at once by one process. Changes memory and speed, never results; 0: as many as in training."""
    micro_batch_frames: Annotated[int, Field(ge=0, le=MANY)] = 0
    """Most frames sampled at once, padding included, but one row in any case; see `train.micro_batch_frames`."""
    score_ahead: bool | Literal["auto"] = "auto"
    """Score finished rows while the next ones are sampled. Changes memory and speed, never results;
    auto: on a GPU."""
    deterministic: bool = False
    """Sample without noise between the first state and the last: the ODE of a flow, DDIM of a diffusion. For methods
    that learn finished samples (nft, awm, rwr, bon, dpo, dgpo, sft); those that train transitions need the noise."""


class BudgetTable(Options):
    """`[train.budget]`: the run ends cleanly as soon as one of these is used up. Unset: no limit."""

    samples: Limit | None = None
    network_evaluations: Limit | None = None
    """Rows through the network: sampling, training, KL and reference alike."""
    reward_calls: Limit | None = None
    """Scored samples."""
    updates: Limit | None = None
    """Optimiser steps."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Training time without evaluation; resumed runs continue the count."""


class TrainTable(Options):
    """`[train]`: optimisation, alike for every algorithm."""

    steps: Annotated[int, Field(ge=1, le=MANY)] = 14
    """Optimisation steps: each samples, scores and updates."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 5e-4
    """Of AdamW. The default suits a few thousand parameters; whole networks need 1e-5 to 1e-4."""
    learning_rate_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or falling to 0 at the last of `steps`."""
    warmup_steps: Annotated[int, Field(ge=0, le=MANY)] = 0
    """Optimisation steps over which the rate rises linearly to `learning_rate`."""
    adam_betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decays of AdamW's averages of the gradient and of its square."""
    adam_eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to AdamW's denominator."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    grad_clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the whole gradient."""
    precision: Literal["fp32", "bf16-mixed"] = "fp32"
    """Arithmetic of the network; log-probabilities, losses and scores are float32 in either. Float32 is never TF32."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Exponential moving average of the weights, used for evaluation and synthesis; 0: off."""
    ema_warmup: bool = False
    """Start with a short average: update u = 1, 2 ... decays by (1 + u) / (10 + u), `ema_decay` at most."""
    advantage: Literal["prompt", "group", "batch", "none"] = "group"
    """Standardise rewards per prompt with running statistics, within a prompt's group, over the batch, or not."""
    advantage_std: Literal["same", "batch", "none"] = "same"
    """Divisor of the centred reward: the deviation of the same rewards that gave the mean; that of the batch,
    as published with Flow-GRPO, DiffusionNFT and AWM (their `global_std`); nothing (Dr. GRPO)."""
    advantage_per_reward: bool = False
    """Standardise every reward by itself and add the results up by weight (MixGRPO, GDPO), not the weighted sum."""
    advantage_history: Count = 32
    """Scores of each prompt that its running statistics remember (`advantage = "prompt"`)."""
    advantage_min_count: Count = 16
    """A prompt with fewer scores than this uses the batch's statistics (`advantage = "prompt"`)."""
    advantage_clip: Annotated[float, Field(gt=0)] | None = None
    """Largest advantage, either way; unset: 5, and none for raw scores (`advantage = "none"`)."""
    logprob_reduction: Literal["mean", "sum"] = "mean"
    """Log-probabilities per element (as in DDPO) or of the whole state; ratio clips are scaled accordingly."""
    inner_epochs: Count = 1
    """Passes over the transitions of one step."""
    minibatch: Annotated[int, Field(ge=0, le=MANY)] = 0
    """Transitions per gradient update, over all processes; 0: all of a pass in one update."""
    num_minibatches: Annotated[int, Field(ge=0, le=MANY)] = 0
    """Gradient updates in one pass over the transitions, whatever their number; 0: as `minibatch` says. After the first
    update the ratio leaves 1, and clips begin to count."""
    micro_batch: Annotated[int, Field(ge=0, le=MANY)] = 16
    """Transitions through the network at once, in one process. Changes memory, speed and the order of sums: one at a
    time, gradients are the same to the last digit whatever the number of processes. 0: one on a CPU, or 16 for a policy
    that gives each row a core and adds gradients up as one at a time does; on a GPU as many as fit, by what one row is
    measured to take, at most 256 in 60 % of the free memory."""
    micro_batch_frames: Annotated[int, Field(ge=0, le=MANY)] = 0
    """Most frames through the network at once, padding included, but one row in any case: rows of unlike lengths then
    need like memory. A frame is a column of the state: of the spectrum (f5tts, gradtts), a sample (wavegrad2).
    `micro_batch` still bounds the rows, unless it is 0; 0: no bound."""
    step_selection: Literal["all", "fraction", "window"] = "all"
    """Trained denoising steps: all stochastic ones, a random share of each row's, or a run of neighbours."""
    step_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the stochastic steps for `fraction` and `window`."""
    window_frames: Annotated[int, Field(ge=0, le=MANY)] = 0
    """Train on a random window of at most so many of the policy's frames (wavegrad2: 10 ms at 8 kHz) of each
    transition, not on the whole utterance: the same gradient on average, in less memory; 0: whole utterances."""
    times: Literal["policy", "schedule"] = "policy"
    """Noise levels at which losses on finished samples and recordings are taken (rwr, bon, awm, nft, dpo, sft): those
    of the policy's training (wavegrad2: as published), or those of the rollout's K steps, each as often, which are all
    that a sampler of few steps asks about and leave out the nearly clean ones, whose gradients are the noisiest."""
    kl_every: Annotated[int, Field(ge=0, le=MANY)] = 1
    """Measure the KL to the reference every so many steps, penalised or not, on some 16 rows; 0: never."""
    eval_every: Annotated[int, Field(ge=0, le=MANY)] = 7
    """Evaluate on held-out prompts every so many steps, besides before the first and after the last; 0: only then."""
    save_every: Annotated[int, Field(ge=1, le=MANY)] = 10
    """Checkpoint every so many steps, besides after the last and when stopped."""
    keep_checkpoints: Count = 2
    """Checkpoints to keep, newest first."""
    device: str = "auto"
    """`auto` (cuda if available), `cpu`, `cuda`, `cuda:1`."""
    score_cache: bool = True
    """Look up scores of audio that was scored before, in any run; a reward's gradient is always computed."""
    self_checks: bool = True
    """Before the first update: the ratio is 1, the reward reaches the policy, log-probabilities are finite."""
    budget: BudgetTable = BudgetTable()

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.minibatch and self.num_minibatches:
            raise ValueError("minibatch and num_minibatches say the same in two ways; set one of them")
        if self.micro_batch_frames and self.window_frames:
            raise ValueError(
                "windows are of one length: with window_frames, set micro_batch and not micro_batch_frames"
            )
        return self


class EvalTable(Options):
    """`[eval]`: how held-out prompts are judged."""

    prompts: Annotated[int, Field(ge=0, le=MANY)] = 16
    """Held-out prompts to use, from the first; 0: all."""
    samples_per_prompt: Count = 1
    num_steps: DenoisingSteps | None = None
    """Denoising steps K; unset: as in `[rollout]`."""
    deterministic: bool | None = None
    """Sample without noise between the first state and the last; unset: as in `[rollout]`."""
    judges: tuple[str, ...] | None = None
    """Rewards that only judge, by name, with their default options; unset: `guard`, `distillmos` and `dnsmos`, less
    what rewards and what cannot judge what the policy makes; `[]`: none."""


CORE_TABLES: Mapping[str, type[Options]] = {"rollout": RolloutTable, "train": TrainTable, "eval": EvalTable}
