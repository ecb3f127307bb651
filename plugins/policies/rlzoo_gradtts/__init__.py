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
    trainable: Literal["bands", "biases", "lora", "denoiser"] = "bands"
    """What RL updates: a scale and a shift of what the denoiser takes for clean in every mel band, and a shift of every
    number of the condition (164 numbers, which is what the few hundred samples of a CPU run can tell), the denoiser's
    biases too, low-rank adapters of its convolutions alone (extra `lora`), or all of the denoiser (for a GPU, with a
    learning rate near 1e-5)."""
    lora_rank: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Rank of the adapters (`trainable = "lora"`)."""
    lora_alpha: Annotated[float, Field(gt=0)] = 8.0
    """The adapters' product is scaled by alpha / rank."""
    lora_layers: str = ""
    """Regular expression for the convolutions that get adapters, such as `^layers`; empty: all of the denoiser."""
    conditions: bool = True
    """Simulate that every sample chooses a recording condition, hiss and colour, as voices trained on found speech do
    (`conditions.py`); false: the voice as it is, clean."""
    pace: Annotated[float, Field(gt=0.2, lt=5)] = 1.0
    """Speaking rate: 2 is twice as fast."""


class PretrainOptions(PretrainingOptions):
    """Options of `rlzoo pretrain --policy gradtts`."""

    textgrids: Path | None = None
    """Folder of MFA TextGrids; unset: phones.jsonl of the corpus."""
    text_style: Literal["flite", "cmu"] = "flite"
    """Whose pronunciation the corpus follows; stored with the voice, so that synthesis spells words alike."""
    channels: Annotated[int, Field(ge=1, le=10_000)] = 128
    """Width of the network."""
    init: Path | None = None
    """Voice to go on from: fine-tune it on new recordings, with a learning rate near 5e-4."""
    utterances_per_step: Annotated[int, Field(ge=1, le=10_000)] = 12
    window_frames: Annotated[int, Field(ge=8)] = 160
    """Frames of each utterance that a step learns from, at random; 10 ms each."""
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
            run={"train": {"learning_rate": 0.005, "micro_batch": 0, "times": "schedule"}},
            reference="arXiv:2105.06337",
            tier="stable",
        )
    ]
