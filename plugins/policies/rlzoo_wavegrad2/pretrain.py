"""Train WaveGrad 2 on recorded speech, resumable (arXiv:2106.09660).

One step: encode U utterances, spread them over frames with their true durations, cut W windows of each, and lower the
losses of `losses.py`. The corpus lies in the device's memory and losses are read every `log_every` steps only, so that
a GPU does not wait for the host.
"""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlzoo.corpus.speech import SpeechCorpus
from rlzoo.errors import ConfigError, DataError, Diverged, Interrupted
from rlzoo.signals import stop_requests
from rlzoo_wavegrad2 import PretrainOptions
from rlzoo_wavegrad2.checkpoint import save_voice
from rlzoo_wavegrad2.data import Recordings, corpus_gain, draw_starts, load_utterances
from rlzoo_wavegrad2.losses import Losses
from rlzoo_wavegrad2.network import PRESETS, NetworkConfig, WaveGrad2Network
from rlzoo_wavegrad2.policy import read_voice
from rlzoo_wavegrad2.validation import Panel, validate

OnStep = Callable[[dict[str, float]], None]

ON_CUDA = {"compile": True, "utterances_per_step": 64, "windows_per_utterance": 4}
"""Defaults that differ on a GPU; what the user sets stays."""


def for_device(options: PretrainOptions, device: torch.device) -> PretrainOptions:
    """`options` with the defaults that suit `device` in place of those that were not set."""
    defaults: dict[str, Any] = dict(ON_CUDA) if device.type == "cuda" else {}
    has_units = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    # Without units for it bf16 is emulated, and several times slower than float32.
    defaults["precision"] = "bf16-mixed" if device.type == "cuda" or has_units else "fp32"
    return options.model_copy(update={k: v for k, v in defaults.items() if k not in options.model_fields_set})


def learning_rate(step: int, elapsed: float, options: PretrainOptions) -> float:
    """Linear warm-up, then a cosine down to `final_learning_rate` over the budget of steps or minutes."""
    progress = step / options.steps
    if options.minutes:
        progress = max(progress, elapsed / (60 * options.minutes))
    low, high = options.final_learning_rate, options.learning_rate
    decayed = low + (high - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return decayed * min(1.0, (step + 1) / options.warmup_steps)


class Pretraining:
    """One training run: everything that a resumed run needs, and the files it writes."""

    def __init__(self, data: Path, out: Path, options: PretrainOptions) -> None:
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(automatic if options.device == "auto" else options.device)
        self.options, self.out = for_device(options, self.device), out
        self.checkpoint, self.voice, self.log = out / "train.pt", out / "voice.safetensors", out / "train.jsonl"
        self.config, weights, origin = _start(options)
        self.panel = Panel(options.judges, self.device)
        self.corpus = self._open(data, "train")
        self.gain = None if options.peak == "each" else corpus_gain(self.corpus)
        utterances = load_utterances(self.corpus, self.config, self.gain)
        self.recordings = Recordings(utterances, self.config.hop, self.device)
        held_out = self._open(data, "validation")[: options.validation_utterances]
        self.held_out = load_utterances(held_out, self.config, self.gain)
        torch.manual_seed(options.seed)
        self.generator = torch.Generator().manual_seed(options.seed)
        self.noise = torch.Generator(self.device).manual_seed(options.seed)
        network = WaveGrad2Network(self.config, init=weights is None)
        if weights is not None:
            network.load_state_dict(weights)
        self.losses = Losses(network, self.options).to(self.device)
        self.network = self.losses.network
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self.losses.parameters(), options.learning_rate, weight_decay=options.weight_decay, fused=True
        )
        self.origin = origin
        self.step, self.seconds = 0, 0.0
        self.running: dict[str, Tensor] = {}

    def _open(self, data: Path, split: str) -> SpeechCorpus:
        o = self.options
        return SpeechCorpus.open(
            data,
            split=split,
            sample_rate=self.config.sample_rate,
            textgrids=o.textgrids,
            trim_silence=o.trim_silence,
        )

    def train_step(self) -> None:
        """One update; its losses and the gradient's norm are added to `running`, on the device."""
        o = self.options
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.seconds, o)
        rows = torch.randint(len(self.recordings), (o.utterances_per_step,), generator=self.generator)
        totals = self.recordings.totals[rows]
        starts = draw_starts(totals, o.window_frames, o.windows_per_utterance, self.generator).to(self.device)
        parts = self.losses(self.recordings.batch(rows), starts, self.noise)
        total = self.losses.total(parts)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.losses.parameters(), o.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._update_average()
        for name, value in {**parts, "grad_norm": norm}.items():
            self.running[name] = self.running.get(name, 0.0) + value.detach()

    @torch.no_grad()
    def _update_average(self) -> None:
        # The average forgets its random start: its horizon grows with the steps made.
        decay = min(self.options.ema_decay, self.step / (self.step + 9))
        pairs = [(self.average[name], value) for name, value in self.network.state_dict().items()]
        mixed = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in mixed], [value for _, value in mixed], 1 - decay)
        for mean, value in pairs:
            if not mean.is_floating_point():
                mean.copy_(value)

    def read_losses(self) -> dict[str, float]:
        """Means since the last call. Diverged where one is not finite, before anything is written."""
        count = (self.step - 1) % self.options.log_every + 1
        means = {name: round(value.item() / count, 5) for name, value in self.running.items()}
        self.running = {}
        for name, value in means.items():
            if not math.isfinite(value):
                hint = "lower learning_rate, then --resume"
                raise Diverged(f"{name} is {value} within the last {count} of {self.step} steps", hint)
        return means

    def store(self) -> None:
        """Write the voice and, last and whole, the checkpoint."""
        card = {
            "step": self.step,
            "minutes": round(self.seconds / 60, 2),
            "sentences": len(self.corpus),
            "hours_of_speech": round(self.corpus.hours, 3),
            "phones": list(self.corpus.phones),
            "gain": self.gain,
            "options": self.options.model_dump(mode="json"),
        }
        description = {
            "network": self.config.model_dump(),
            **self.origin,
            "card": card,
        }
        if levels := self.options.rollout_levels:
            description["schedules"] = {str(len(levels)): list(levels)}
        save_voice(self.voice, self.average, description, half=self.options.half)
        state = {
            "losses": self.losses.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "running": self.running,
            "generator": self.generator.get_state(),
            "noise": self.noise.get_state(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "step": self.step,
            "seconds": self.seconds,
        }
        temporary = self.checkpoint.with_suffix(".tmp")
        try:
            torch.save(state, temporary)
            temporary.replace(self.checkpoint)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            hint = "check free space and permissions, then --resume"
            raise DataError(f"cannot write '{self.checkpoint}': {error}", hint) from error

    def restore(self) -> None:
        """Go on from the checkpoint; rows of the log behind it are dropped."""
        if not self.checkpoint.exists():
            raise DataError(f"nothing to resume in '{self.out}'", "leave out --resume to start a new training run")
        try:
            state = torch.load(self.checkpoint, weights_only=True, map_location=self.device)
            self.losses.load_state_dict(state["losses"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average, self.running = state["average"], state["running"]
            self.generator.set_state(state["generator"].cpu())
            self.noise.set_state(state["noise"].cpu())
            torch.set_rng_state(state["torch_rng"].cpu())
            if state["cuda_rng"] is not None and self.device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)
            self.step, self.seconds = state["step"], state["seconds"]
        except (OSError, RuntimeError, KeyError, ValueError, pickle.UnpicklingError) as error:
            raise DataError(f"cannot read '{self.checkpoint}': {error}", "start again in another --out") from error
        rows = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        kept = [row for row in rows if json.loads(row)["step"] <= self.step]
        self.log.write_text("".join(row + "\n" for row in kept), encoding="utf-8")

    def run(self, on_step: OnStep) -> None:
        """Train until the budget is used up or a signal asks to stop; log, validate and save on the way."""
        o = self.options
        started = time.monotonic() - self.seconds
        validated = -1
        self.network.train()
        with stop_requests() as stop:
            while not stop and self.step < o.steps and not (o.minutes and self.seconds >= 60 * o.minutes):
                self.train_step()
                self.seconds = time.monotonic() - started
                if self.step % o.log_every == 0:
                    self._report(self.read_losses(), on_step)
                if self.step % o.validate_every == 0:
                    validated = self.step
                    self._validate(on_step)
                elif self.step % o.save_every == 0:
                    self.store_sound()
            if stop:
                self.store_sound()
                saved = f"{stop.signal} after step {self.step}; everything is saved"
                raise Interrupted(saved, "continue with --resume")
        if validated != self.step:
            self._validate(on_step)

    def store_sound(self) -> None:
        """`store`, but never weights that a loss which is not finite has spoilt."""
        if any(not bool(torch.isfinite(value)) for value in self.running.values()):
            self.read_losses()
        self.store()

    def _validate(self, on_step: OnStep) -> None:
        self.store_sound()
        folder = self.out / "validation" / f"{self.step:07d}"
        steps = self.options.validation_steps
        self._report(validate(self.voice, self.held_out, folder, steps, self.panel, self.device), on_step)

    def _report(self, metrics: dict[str, float], on_step: OnStep) -> None:
        row = {"step": self.step, "seconds": round(self.seconds, 1), **metrics}
        with self.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        on_step(row)


def _start(options: PretrainOptions) -> tuple[NetworkConfig, dict[str, Tensor] | None, dict[str, Any]]:
    """The network to train, with `init` the weights to start from, and what the voice will say of both."""
    if options.init is None:
        if options.preset not in PRESETS:
            raise ConfigError(f"unknown preset '{options.preset}'", f"choose one of {', '.join(PRESETS)}")
        return PRESETS[options.preset], None, {"preset": options.preset, "text": options.text_style}
    if "preset" in options.model_fields_set:
        raise ConfigError("preset and init are both set", "leave out preset: the voice in init has its own size")
    weights, voice = read_voice(options.init)
    # The voice keeps its pronunciation unless the new recordings are said to have another.
    style = options.text_style if "text_style" in options.model_fields_set else voice["text"]
    origin = {"preset": voice.get("preset"), "text": style, "init": options.init.name}
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
        Diverged: a loss that is not finite; the last checkpoint stays.
        Interrupted: after Ctrl-C or SIGTERM, when the step is finished and saved; a second one stops at once.
    """
    if (out / "train.pt").exists() and not resume:
        raise ConfigError(f"'{out}' already holds a training run", "continue it with --resume, or choose another --out")
    training = Pretraining(data, out, options)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make '{out}': {error.strerror}", "choose another --out") from error
    if resume:
        training.restore()
    else:
        training.log.unlink(missing_ok=True)  # of a run that was killed before its first checkpoint
    training.run(on_step)
    return training.voice
