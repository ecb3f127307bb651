"""A tiny F5-TTS with random weights in the published layout, its vocoder and a reference recording."""

from __future__ import annotations

from pathlib import Path

import torch
from rlzoo_f5tts import F5TTSOptions
from rlzoo_f5tts.checkpoint import write_model
from rlzoo_f5tts.mel import Vocos
from rlzoo_f5tts.network import DiT, DiTConfig
from safetensors.torch import save_file

from rlzoo.audio import write_audio

VOCABULARY = [" ", *map(chr, range(33, 127))]
CONFIG = DiTConfig(dim=64, depth=2, heads=1, ff=96, text_dim=16, text_blocks=1, text_ff=32, vocabulary=len(VOCABULARY))
VOICE_TEXT = "Good evening to you all."


def randomise(module: torch.nn.Module, seed: int = 0, spread: float = 0.15) -> None:
    """Weights that let every input be heard: what the paper starts at zero would say nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))


def make(folder: Path, config: DiTConfig = CONFIG, **options: object) -> F5TTSOptions:
    """Files in `folder`, and options that name them: all weights trained, two seconds of a voice, four steps."""
    network, vocoder = DiT(config), Vocos(32, 48, 2)
    randomise(network)
    randomise(vocoder, 1)
    write_model(folder / "model.safetensors", network, config, {"step": 7})
    save_file(vocoder.state_dict(), folder / "vocos.safetensors")
    (folder / "vocab.txt").write_text("".join(f"{entry}\n" for entry in VOCABULARY), encoding="utf-8")
    reference(folder / "voice.wav")
    given = {
        "checkpoint": folder / "model.safetensors",
        "vocoder": folder / "vocos.safetensors",
        "voice": folder / "voice.wav",
        "voice_text": VOICE_TEXT,
        "trainable": "all",
        "num_steps": 4,
    }
    return F5TTSOptions.model_validate({**given, **options})


def reference(path: Path, seconds: float = 0.6) -> Path:
    """A recording with the bands of speech, quiet enough that its level is raised."""
    generator = torch.Generator().manual_seed(5)
    wave = 0.05 * torch.randn(int(24_000 * seconds), generator=generator)
    return write_audio(path, wave, 24_000)
