"""Train WaveGrad 2 on recorded speech, resumable (arXiv:2106.09660).

One step: encode U utterances, spread them over frames with their true durations, cut W windows of each, and lower the
losses of `losses.py`. The corpus lies in the device's memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlzoo.corpus import SpeechCorpus, check_coverage
from rlzoo.errors import ConfigError
from rlzoo.pretraining.loop import OnStep, Task, choose_device, train
from rlzoo.pretraining.panel import Panel
from rlzoo_wavegrad2 import PretrainOptions
from rlzoo_wavegrad2.checkpoint import VOICES
from rlzoo_wavegrad2.data import Recordings, corpus_gain, draw_starts, load_utterances
from rlzoo_wavegrad2.losses import Losses
from rlzoo_wavegrad2.network import PRESETS, NetworkConfig, WaveGrad2Network
from rlzoo_wavegrad2.policy import SHIPPED, read_voice
from rlzoo_wavegrad2.validation import validate

ON_CUDA = {"compile": True, "utterances_per_step": 64, "windows_per_utterance": 4}
"""Defaults that differ on a GPU; what the user sets stays."""


def for_device(options: PretrainOptions, device: torch.device) -> PretrainOptions:
    """`options` with the defaults that suit `device` in place of those that were not set."""
    defaults: dict[str, Any] = dict(ON_CUDA) if device.type == "cuda" else {}
    has_units = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    # Without units for it bf16 is emulated, and several times slower than float32.
    defaults["precision"] = "bf16-mixed" if device.type == "cuda" or has_units else "fp32"
    return options.model_copy(update={k: v for k, v in defaults.items() if k not in options.model_fields_set})


def with_mel_steps(options: PretrainOptions) -> PretrainOptions:
    """`options` with the `mel_steps` that are meant: none without a mel decoder, or for a voice that can speak already.

    Raises:
        ConfigError: no step would train the denoiser.
    """
    is_set = "mel_steps" in options.model_fields_set
    if not options.spectral_weight or (options.init is not None and not is_set):
        return options.model_copy(update={"mel_steps": 0})
    if not is_set:  # at most a quarter of a short budget
        most = [options.mel_steps, options.steps // 4, *([int(20 * options.minutes)] if options.minutes else [])]
        return options.model_copy(update={"mel_steps": min(most)})
    if options.mel_steps >= options.steps:
        raise ConfigError(
            f"steps is {options.steps} and mel_steps {options.mel_steps}: no step would train the denoiser",
            "set mel_steps well below steps",
        )
    return options


class SpeechTask(Task):
    """Recordings, the network and its losses on one device."""

    network: WaveGrad2Network
    trained: Losses
    voices = VOICES

    def __init__(self, data: Path, options: PretrainOptions, device: torch.device) -> None:
        self.data, self.options, self.device = data, options, device
        self.config, weights, self.origin = _start(options)
        self.panel = Panel(options.judges, device)
        self.corpus = self._open("train")
        check_coverage(self.corpus, self.origin["text"])
        self.gain = None if options.peak == "each" else corpus_gain(self.corpus)
        utterances = load_utterances(self.corpus, self.config, self.gain)
        self.recordings = Recordings(utterances, self.config.hop, device)
        held_out = self._open("validation")[: options.validation_utterances]
        self.held_out = load_utterances(held_out, self.config, self.gain)
        torch.manual_seed(options.seed)
        self.network = WaveGrad2Network(self.config, init=weights is None)
        if weights is not None:
            self.network.load_state_dict(weights)
        # In half a narrow encoder too little is left: docs/decisions/0021-wavegrad2-learns-from-the-spectrum.md.
        published = 0.5 if self.config.encoder_channels >= 512 else 0.1
        self.network.encoder.dropout = published if options.dropout is None else options.dropout
        self.trained = Losses(self.network, options).to(device)

    def _open(self, split: str) -> SpeechCorpus:
        o, rate = self.options, self.config.sample_rate
        return SpeechCorpus.open(
            self.data, split=split, sample_rate=rate, textgrids=o.textgrids, trim_silence=o.trim_silence
        )

    def losses(self, generator: torch.Generator, noise: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Losses`."""
        o = self.options
        rows = torch.randint(len(self.recordings), (o.utterances_per_step,), generator=generator)
        totals = self.recordings.totals[rows]
        starts = draw_starts(totals, o.window_frames, o.windows_per_utterance, generator).to(self.device)
        parts = self.trained(self.recordings.batch(rows), starts, noise)
        return self.trained.total(parts), parts

    def describe(self) -> dict[str, Any]:
        """Network, origin, card, and the schedule that was trained for."""
        card = {**self.corpus.card, "gain": self.gain}
        description = {"network": self.config.model_dump(), **self.origin, "card": card}
        if levels := self.options.rollout_levels:
            description["schedules"] = {str(len(levels)): list(levels)}
        return description

    def validate(self, voice: Path, out: Path) -> dict[str, float]:
        """See `validation.validate`."""
        return validate(voice, self.held_out, out, self.options.validation_steps, self.panel, self.device)


def _start(options: PretrainOptions) -> tuple[NetworkConfig, dict[str, Tensor] | None, dict[str, Any]]:
    """The network to train, with `init` the weights to start from, and what the voice will say of both."""
    if options.init is None:
        if options.preset not in PRESETS:
            raise ConfigError(f"unknown preset '{options.preset}'", f"choose one of {', '.join(PRESETS)}")
        return PRESETS[options.preset], None, {"preset": options.preset, "text": options.text_style}
    if "preset" in options.model_fields_set:
        raise ConfigError("preset and init are both set", "leave out preset: the voice in init has its own size")
    path = SHIPPED if options.init == "shipped" else Path(options.init)
    weights, voice = read_voice(path)
    # The voice keeps its pronunciation unless the new recordings are said to have another.
    style = options.text_style if "text_style" in options.model_fields_set else voice["text"]
    origin = {"preset": voice.get("preset"), "text": style, "init": path.name}
    return NetworkConfig.model_validate(voice["network"]), weights, origin


def pretrain(
    data: Path,
    out: Path,
    options: PretrainOptions,
    *,
    resume: bool = False,
    on_step: OnStep = lambda row: None,
) -> Path:
    """Train until the budget is used up; writes `train.pt` (to resume) and `voice.safetensors` (to use) into `out`.

    Raises:
        ConfigError: unknown preset, or `out` holds another run.
        DataError: what is wrong with the corpus or with the files in `out`.
        Diverged, Interrupted: see `rlzoo.pretraining.loop.train`.
    """
    device = choose_device(options.device)
    options = with_mel_steps(for_device(options, device))
    return train(lambda: SpeechTask(data, options, device), out, options, resume=resume, on_step=on_step)
