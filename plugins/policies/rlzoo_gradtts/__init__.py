"""Grad-TTS: text to log-mel spectra by diffusion, waveforms by Griffin-Lim (Popov et al., arXiv:2105.06337)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.plugin import Options, PolicySpec, hookimpl
from rlzoo.pretraining.options import PretrainingOptions


class GradTTSOptions(Options):
    """Options of `[policy] name = "gradtts"`."""

    checkpoint: Path | None = None
    """Voice to start from, a .safetensors; unset: the voice that ships."""
    num_steps: Annotated[int, Field(ge=1, le=1000)] = 4
    """Denoising steps K unless the run says otherwise."""
    process: Literal["diffusion", "flow"] = "diffusion"
    """Sample as the diffusion that the voice was trained as, or, with the same weights, as a rectified flow."""
    noise_form: Literal["flow", "constant", "cps"] = "flow"
    """Noise of a flow's steps (`process = "flow"`): Flow-GRPO's, DanceGRPO's, or Flow-CPS's."""
    noise_level: Annotated[float, Field(ge=0, le=100)] = 0.7
    """Noise level; 0.3 in DanceGRPO, 0.8 in Flow-CPS."""
    trainable: Literal["style", "biases", "lora", "denoiser"] = "style"
    """Weights that RL trains: the style's denoiser with a scale and a shift of the clean residual per mel band (some
    18,000 numbers, few enough for the few hundred samples of a CPU run), the biases of the denoiser too, low-rank
    adapters of its convolutions alone (extra `lora`), or all of it (for a GPU, with a learning rate near 1e-5)."""
    lora_rank: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Rank of the adapters (`trainable = "lora"`)."""
    lora_alpha: Annotated[float, Field(gt=0)] = 8.0
    """The adapters' product is scaled by alpha / rank."""
    lora_layers: str = ""
    """Regular expression for the convolutions that get adapters, such as `^layers`; empty: all of the denoiser."""
    style: Literal["sampled", "clean"] = "sampled"
    """Sample the style of every utterance, as the corpus has it, or fix it to that of the clean recordings."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.25
    """Factor of the residual. 1 speaks all of it, which few denoising steps make
    too noisy; Grad-TTS narrows its prior for the same end."""
    pace: Annotated[float, Field(gt=0.2, lt=5)] = 1.0
    """Speaking rate: 2 is twice as fast."""


class PretrainOptions(PretrainingOptions):
    """Options of `rlzoo pretrain --policy gradtts`."""

    textgrids: Path | None = None
    """Folder of MFA TextGrids; unset: phones.jsonl of the corpus."""
    text_style: Literal["flite", "cmu"] = "cmu"
    """Whose pronunciation the corpus follows; stored with the voice, so that synthesis spells words alike."""
    channels: Annotated[int, Field(ge=1, le=10_000)] = 128
    """Width of the network."""
    style_numbers: Annotated[int, Field(ge=1, le=64)] = 8
    """Numbers of a style: how many ways there are in which recordings of one sentence can differ."""
    mean_steps: Annotated[int, Field(ge=0, le=100_000_000)] = 8000
    """The first so many steps train all but the denoisers, which cost most of a step and learn from a good mean.
    With `init` 0 unless it is set."""
    init: Literal["shipped"] | Path | None = None
    """Voice to go on from, a file or `shipped` for the one that comes with rlzoo: fine-tune it on new recordings, with
    a learning rate near 5e-4."""
    utterances_per_step: Annotated[int, Field(ge=1, le=10_000)] = 12
    window_frames: Annotated[int, Field(ge=8)] = 160
    """Frames of each utterance that a step learns from, at random; 12.5 ms each."""
    validation_steps: tuple[Annotated[int, Field(ge=1, le=10_000)], ...] = (4, 25)
    """Denoising steps K of the samples in validation."""


@hookimpl
def rlzoo_policies() -> list[PolicySpec]:
    return [
        PolicySpec(
            name="gradtts",
            summary="text to mel spectra by diffusion, waveforms by Griffin-Lim: quick on a CPU",
            target="rlzoo_gradtts.policy:GradTTSPolicy",
            options=GradTTSOptions,
            offers=frozenset({"log-prob", "denoising-loss", "sampling-grad"}),
            emits="audio",
            pretrain="rlzoo_gradtts.pretrain:pretrain",
            run={
                # With 36 samples a step, the style often goes the wrong way.
                # The mean of 16 held-out samples depends too much on the random seed.
                "rollout": {"prompts_per_step": 12},
                "eval": {"samples_per_prompt": 4},
                "train": {
                    "steps": 20,
                    "eval_every": 10,
                    # Where the style is good only noise is left in the gradient, and constant steps walk away again.
                    "learning_rate": 0.003,
                    "learning_rate_schedule": "cosine",
                    "micro_batch": 0,
                    "times": "schedule",
                },
            },
            reference="arXiv:2105.06337",
            tier="stable",
        )
    ]
