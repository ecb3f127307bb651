"""WaveGrad 2: text to waveform by diffusion, no spectrogram between (Chen et al., arXiv:2106.09660)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.plugin import Options, PolicySpec, hookimpl


class WaveGrad2Options(Options):
    """Options of `[policy] name = "wavegrad2"`."""

    checkpoint: Path | None = None
    """Voice to start from: our .safetensors, or a .ckpt of maum-ai/wavegrad2; unset: the voice that ships."""
    num_steps: Annotated[int, Field(ge=1, le=1000)] = 2
    """Denoising steps K unless the run says otherwise."""
    schedule: str = "auto"
    """Noise schedule: auto (tuned for voice and K, else placed), placed, linear, maum-8, wavegrad-6, -7, -12."""
    clip_clean: bool = True
    """Clamp the implied clean waveform to [-1, 1] in every step, as published; where it bites, its gradient is zero."""
    trainable: Literal["biases", "denoiser", "all"] = "biases"
    """What RL updates: the denoiser's biases (a few thousand numbers, which is what the few hundred samples of a CPU
    run can tell), the denoiser (for a GPU, with a learning rate near 1e-5), or text encoder and ranges too. The
    duration predictor is always frozen."""
    text: Literal["flite", "cmu"] | None = None
    """Pronunciation habits; unset: what the voice was trained on."""
    pace: Annotated[float, Field(gt=0.2, lt=5)] = 1.0
    """Speaking rate: 2 is twice as fast."""


class PretrainOptions(Options):
    """Options of `rlzoo pretrain --policy wavegrad2`."""

    preset: str = "mini"
    """Size of the network: mini, base, large."""
    textgrids: Path | None = None
    """Folder of MFA TextGrids; unset: phones.jsonl of the corpus."""
    text_style: Literal["flite", "cmu"] = "flite"
    """Whose pronunciation the corpus follows; stored with the voice, so that synthesis spells words alike."""
    peak: Literal["corpus", "each"] = "corpus"
    """Scale the recordings with one gain, or each to a peak of 1 (published)."""
    steps: Annotated[int, Field(ge=1)] = 100_000
    minutes: Annotated[float, Field(ge=0)] = 0.0
    """Stop after so much training time; 0: after `steps`."""
    utterances_per_step: Annotated[int, Field(ge=1)] = 8
    windows_per_utterance: Annotated[int, Field(ge=1)] = 2
    window_frames: Annotated[int, Field(ge=8)] = 50
    """Length of a training window in hidden frames (published: 256)."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    final_learning_rate: Annotated[float, Field(gt=0, lt=1)] = 5e-5
    warmup_steps: Annotated[int, Field(ge=1)] = 200
    weight_decay: Annotated[float, Field(ge=0)] = 1e-6
    grad_clip: Annotated[float, Field(gt=0)] = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    duration_weight: Annotated[float, Field(ge=0)] = 1.0
    spectral_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the auxiliary log-mel read-out of the hidden frames; 0: the published losses alone."""
    precision: Literal["fp32", "bf16-mixed"] = "bf16-mixed"
    validate_every: Annotated[int, Field(ge=1)] = 2000
    """Judge held-out recordings every so many steps."""
    validation_utterances: Annotated[int, Field(ge=1)] = 4
    validation_steps: tuple[Annotated[int, Field(ge=2)], ...] = (10, 50)
    """Denoising steps K of the samples in validation."""
    log_every: Annotated[int, Field(ge=1)] = 20
    save_every: Annotated[int, Field(ge=1)] = 500
    seed: int = 0
    device: str = "auto"


@hookimpl
def rlzoo_policies() -> list[PolicySpec]:
    return [
        PolicySpec(
            name="wavegrad2",
            summary="text to waveform by diffusion, non-autoregressive, with learned durations",
            target="rlzoo_wavegrad2.policy:WaveGrad2Policy",
            options=WaveGrad2Options,
            offers=frozenset({"log-prob", "denoising-loss", "sampling-grad", "window"}),
            emits="audio",
            pretrain="rlzoo_wavegrad2.pretrain:pretrain",
            reference="arXiv:2106.09660",
            tier="stable",
        )
    ]
