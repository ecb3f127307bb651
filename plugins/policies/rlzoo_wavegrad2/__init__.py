"""WaveGrad 2: text to waveform by diffusion, no spectrogram between (Chen et al., arXiv:2106.09660)."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlzoo.plugin import Options, PolicySpec, hookimpl
from rlzoo.pretraining.options import PretrainingOptions


class WaveGrad2Options(Options):
    """Options of `[policy] name = "wavegrad2"`."""

    checkpoint: Path | None = None
    """Voice to start from: our .safetensors, or a .ckpt of maum-ai/wavegrad2; unset: the voice that ships."""
    num_steps: Annotated[int, Field(ge=1, le=1000)] = 6
    """Denoising steps K unless the run says otherwise."""
    schedule: str = "auto"
    """Noise schedule: auto (tuned for voice and K, else placed), tuned, placed, linear, maum-8, wavegrad-6, -7, -12."""
    clip_clean: bool = True
    """Clamp the implied clean waveform to [-1, 1] in every step, as published; where it bites, its gradient is zero."""
    trainable: Literal["biases", "lora", "denoiser", "all"] = "biases"
    """Weights that RL trains: the denoiser's biases (a few thousand numbers, as the few hundred samples of a CPU
    run can tell), low-rank adapters of its convolutions, the denoiser (for a GPU, with a learning rate near 1e-5), or
    text encoder and ranges too. The duration predictor is always frozen."""
    lora_rank: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Rank of the adapters (`trainable = "lora"`)."""
    lora_alpha: Annotated[float, Field(gt=0)] = 8.0
    """The adapters' product is scaled by alpha / rank."""
    lora_layers: str = ""
    """Regular expression for the convolutions that get adapters, such as `ublocks`; empty: all of the denoiser."""
    activation_checkpointing: bool = False
    """Keep only the ends of the denoiser's blocks for the backward pass and compute their inside once more: the same
    gradient to the last bit (adapters: to rounding), about 0.6 times the tensors, 1.6 times the time."""
    compile: bool | Literal["auto"] = "auto"
    """Compile the denoiser (torch.compile; needs a C++ compiler): one graph for all lengths, on a GPU with CUDA graphs.
    auto: in training on a GPU, without activation_checkpointing. On a CPU it takes minutes to compile, and rows one by
    one are quicker."""
    text: Literal["flite", "cmu"] | None = None
    """Pronunciation habits; unset: what the voice was trained on."""
    pace: Annotated[float, Field(gt=0.2, lt=5)] = 1.0
    """Speaking rate: 2 is twice as fast."""

    @model_validator(mode="after")
    def _compiled_or_checkpointed(self) -> WaveGrad2Options:
        if self.compile is True and self.activation_checkpointing:
            raise ValueError("compile=true cannot look into activation_checkpointing; choose one of them")
        return self


class PretrainOptions(PretrainingOptions):
    """Options of `rlzoo pretrain --policy wavegrad2`."""

    preset: str = "mini"
    """Size of the network: mini (8 kHz), mini-16k, base, large (22.05 kHz)."""
    init: Literal["shipped"] | Path | None = None
    """Voice to go on from, a file or `shipped` for the one that comes with rlzoo, with its own size: fine-tune it on
    new recordings, with a learning rate near 1e-4."""
    textgrids: Path | None = None
    """Folder of MFA TextGrids; unset: phones.jsonl of the corpus."""
    trim_silence: bool = False
    """Leave out the silence at both ends of every recording, as published for LJSpeech."""
    text_style: Literal["flite", "cmu"] = "cmu"
    """Whose pronunciation the corpus follows; stored with the voice, so that synthesis spells words alike."""
    peak: Literal["corpus", "each"] = "corpus"
    """Scale the recordings with one gain, or each to a peak of 1 (published)."""
    utterances_per_step: Annotated[int, Field(ge=1, le=10_000)] = 8
    """On a GPU 64 unless set."""
    windows_per_utterance: Annotated[int, Field(ge=1, le=10_000)] = 2
    """On a GPU 4 unless set."""
    window_frames: Annotated[int, Field(ge=8)] = 50
    """Length of a training window in hidden frames (published: 256)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Dropout of the text encoder; unset: 0.5 as published, 0.1 for an encoder of fewer than 512 channels."""
    duration_weight: Annotated[float, Field(ge=0)] = 1.0
    spectral_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the auxiliary mel decoder's loss, which teaches the encoder what phones sound like; 0: the published
    losses alone."""
    mel_steps: Annotated[int, Field(ge=0, le=100_000_000)] = 2000
    """The first so many steps train encoder, durations and mel decoder without the denoiser, which is most of a step's
    work. Unless it is set: at most a quarter of `steps` and 20 for each of `minutes`, and 0 with `init`."""
    level_sampling: Literal["published", "log-snr"] = "published"
    """Noise levels of training: uniform over the 1000 steps of the published schedule, or in log-SNR, as the steps of
    the schedule `placed` lie: a quarter of the windows instead of 6 % have a level above 0.99. The cleanest has sigma
    0.03, so schedules that go below it (maum-8, wavegrad-6, -7, -12) do not suit such a voice."""
    estimate_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the spectral distance between the recording and the clean estimate at the noise loss's own level: a
    short training then learns the spectrum of noisy levels earlier."""
    rollout_levels: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    """Few-step schedule to train for, sqrt(alpha_bar) cleanest first: half of the windows then start from noise and go
    through these steps (InferGrad, arXiv:2202.03751). Stored with the voice as its schedule of so many steps."""
    rollout_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the spectral distance of such a rollout."""
    precision: Literal["fp32", "bf16-mixed"] = "fp32"
    """Precision of the denoiser. On a GPU, and on a CPU with bf16 units, bf16-mixed unless set."""
    compile: bool = False
    """Compile the denoiser (torch.compile; needs a C compiler). On a GPU true unless set."""
    validation_steps: tuple[Annotated[int, Field(ge=2, le=10_000)], ...] = (10, 50)
    """Denoising steps K of the samples in validation."""

    @model_validator(mode="after")
    def _levels_fall_and_have_windows(self) -> PretrainOptions:
        levels = self.rollout_levels
        if any(later >= earlier for earlier, later in itertools.pairwise(levels)):
            raise ValueError(f"rollout_levels {list(levels)} must fall, cleanest first, such as [0.835, 0.35]")
        if levels and self.utterances_per_step * self.windows_per_utterance < 2:
            raise ValueError("rollout_levels take half of the windows: set windows_per_utterance to 2 or more")
        return self


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
            tune="rlzoo_wavegrad2.tune:tune_schedule",
            run={"train": {"micro_batch": 0}},
            reference="arXiv:2106.09660",
            tier="stable",
        )
    ]
