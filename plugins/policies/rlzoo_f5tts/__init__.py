"""F5-TTS: zero-shot speech by flow matching (Chen et al., arXiv:2410.06885). Its published weights: CC BY-NC 4.0."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.assets import Asset
from rlzoo.plugin import Options, PolicySpec, hookimpl

_F5 = "https://huggingface.co/SWivid/F5-TTS/resolve/84e5a410d9cead4de2f847e7c9369a6440bdfaca/F5TTS_v1_Base/"
V1_BASE = Asset(
    name="f5tts-v1-base",
    url=f"{_F5}model_1250000.safetensors",
    sha256="670900fd14e6c458b95da6e9ed317cdb20dbaf7a1c02ac06a05475a9d32b6a38",
    size=1_348_435_761,
    licence="CC BY-NC 4.0",
    commercial_use=False,
    source="F5-TTS v1 base trained on Emilia, English and Chinese (SWivid/F5-TTS)",
)
VOCABULARY = Asset(
    name="f5tts-vocabulary",
    url=f"{_F5}vocab.txt",
    sha256="2a05f992e00af9b0bd3800a8d23e78d520dbd705284ed2eedb5f4bd29398fa3c",
    size=13_800,
    licence="CC BY-NC 4.0",
    commercial_use=False,
    source="characters and pinyin of F5-TTS's base models (SWivid/F5-TTS)",
)
VOCOS = Asset(
    name="vocos-mel-24khz",
    url="https://huggingface.co/charactr/vocos-mel-24khz/resolve/0feb3fdd929bcd6649e0e7c5a688cf7dd012ef21/"
    "pytorch_model.bin",
    sha256="97ec976ad1fd67a33ab2682d29c0ac7df85234fae875aefcc5fb215681a91b2a",
    size=54_365_991,
    licence="MIT",
    commercial_use=True,
    source="Vocos for 100 mel bands at 24 kHz (charactr/vocos-mel-24khz)",
)


class F5TTSOptions(Options):
    """Options of `[policy] name = "f5tts"`."""

    checkpoint: Path | None = None
    """Model file in F5-TTS's layout, .safetensors or .pt: published, fine-tuned, or written by `rlzoo export`; unset:
    v1 base, a download of 1.3 GB (CC BY-NC 4.0, no commercial use)."""
    version: Literal["auto", "v1", "v0"] = "auto"
    """Generation of the model, which no weight tells: v0 is the first one (F5TTS_Base, F5TTS_Small) and most community
    models of before March 2025. auto: what the file's header says where rlzoo wrote it, else v1."""
    vocabulary: Path | None = None
    """vocab.txt of the checkpoint, one character or syllable a line; unset: the one beside the checkpoint, else that of
    the base models."""
    vocoder: Path | Literal["griffin-lim"] | None = None
    """Vocos' pytorch_model.bin for 100 mel bands at 24 kHz; unset: the published one, a download of 54 MB (MIT).
    griffin-lim needs no weights and sounds metallic."""
    voice: Path | None = None
    """Reference recording of prompts that bring none (attribute `voice`): up to 12 s of one speaker, mono."""
    voice_text: str = ""
    """Text spoken in `voice`, word for word."""
    trim_silence: bool = True
    """Cut silence below -42 dBFS from both ends of reference recordings, as F5-TTS's own tools do."""
    speed: Annotated[float, Field(ge=0.2, le=5)] = 1.0
    """Speaking rate: 2 is twice as fast. A prompt's attribute `speed` multiplies it."""
    num_steps: Annotated[int, Field(ge=2, le=1000)] = 16
    """Denoising steps K unless the run says otherwise. 5, 6, 7, 10, 12 and 16 are spaced as F5-TTS found best."""
    sway: Annotated[float, Field(ge=-1, le=1.75)] = -1.0
    """Sway sampling coefficient: below 0 more steps at the noisy end, 0 none."""
    guidance: Annotated[float, Field(ge=0, le=10)] = 2.0
    """Strength of classifier-free guidance, in training too, where it costs a second evaluation; 0: off."""
    reference_path: Literal["flow", "line"] = "flow"
    """Path of the reference's frames from noise to the recording while the new ones are made. flow: along the network's
    velocity, as F5-TTS samples; line: straight, as in its training. With line a transition's density has no part that
    is left out."""
    noise_level: Annotated[float, Field(gt=0, le=2)] = 0.7
    """a of the SDE's noise; see `noise_form`."""
    noise_form: Literal["flow", "constant"] = "flow"
    """flow: a sqrt(t / (1 - t)), Flow-GRPO's; constant: a, DanceGRPO's (there 0.3)."""
    trainable: Literal["lora", "all"] = "lora"
    """Weights that RL trains: low-rank adapters of attention and feed-forward (extra `lora`), or all of them (with a
    learning rate near 1e-5)."""
    lora_rank: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Rank of the adapters."""
    lora_alpha: Annotated[float, Field(gt=0)] = 16.0
    """The adapters' product is scaled by alpha / rank."""
    lora_layers: str = ""
    """Regular expression for the linear layers that get adapters, such as `attn`; empty: all of attention and
    feed-forward."""
    activation_checkpointing: bool = False
    """Compute the blocks a second time in the backward pass instead of keeping what is inside them: a third slower, and
    memory for one block instead of all."""


@hookimpl
def rlzoo_policies() -> list[PolicySpec]:
    return [
        PolicySpec(
            name="f5tts",
            summary="zero-shot speech in the voice of a recording, by flow matching (F5-TTS, 337 M parameters)",
            target="rlzoo_f5tts.policy:F5TTSPolicy",
            options=F5TTSOptions,
            offers=frozenset({"log-prob", "denoising-loss", "sampling-grad"}),
            emits="audio",
            run={"train": {"learning_rate": 1e-4, "micro_batch": 0}},
            reference="arXiv:2410.06885",
            assets=(V1_BASE, VOCABULARY, VOCOS),
        )
    ]
