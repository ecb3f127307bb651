"""Train WaveGrad 2 on recorded speech with its published losses, windowed, resumable (arXiv:2106.09660).

One step: encode U utterances, spread them over frames with their true durations, cut W windows of each, and learn

    L1(eps, eps_theta(sqrt(ab) y + sqrt(1 - ab) eps, hidden, sqrt(ab)))  +  duration MSE in seconds^2
    +  `spectral_weight` x L1 between a linear read-out of the hidden frames and the log-mel spectrum.

The last term is ours and only trains the encoder sooner: its read-out is no part of the saved network.
"""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from rlzoo.corpus.speech import SpeechCorpus
from rlzoo.errors import ConfigError, DataError, Diverged, Interrupted
from rlzoo_wavegrad2 import PretrainOptions
from rlzoo_wavegrad2.checkpoint import save_voice
from rlzoo_wavegrad2.data import Batch, LogMel, collate, corpus_gain, load_utterances, windows
from rlzoo_wavegrad2.network import PRESETS, WaveGrad2Network
from rlzoo_wavegrad2.schedules import training_levels
from rlzoo_wavegrad2.validation import validate


class Losses(nn.Module):
    """The network, the spectral read-out and the three losses of one batch."""

    def __init__(self, network: WaveGrad2Network, options: PretrainOptions) -> None:
        super().__init__()
        self.network, self.options = network, options
        self.mel = LogMel(network.config)
        self.readout = nn.Conv1d(network.config.hidden_channels, 40, 1)
        self.levels: Tensor
        self.register_buffer("levels", training_levels())

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """sqrt(alpha_bar), uniform between two neighbours of the 1000-step training schedule."""
        s = torch.randint(1, len(self.levels), (count,), generator=generator)
        mix = torch.rand(count, generator=generator).to(self.levels)
        return (self.levels[s] + mix * (self.levels[s - 1] - self.levels[s])).float()

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses `noise`, `duration` and `spectral`, scalars."""
        o, net = self.options, self.network
        hop = net.config.hop
        encoded = net.encode(batch.ids, batch.lengths)
        seconds = net.resampling.seconds(encoded, batch.lengths)
        valid = torch.arange(batch.ids.shape[1], device=batch.ids.device) < batch.lengths[:, None]
        truth = batch.frames / net.config.frame_rate
        duration = ((seconds - truth) ** 2)[valid].mean()
        hidden = net.resampling(encoded, batch.frames, batch.lengths)
        spectral = hidden.new_zeros(())
        if o.spectral_weight:
            waves = nn.utils.rnn.pad_sequence(batch.waves, batch_first=True)
            inside = torch.arange(hidden.shape[2], device=hidden.device) < batch.frames.sum(1)[:, None]
            error = (self.readout(hidden) - self.mel(waves)).abs().mean(1)
            spectral = error[inside].mean()
        cut, clean = windows(batch, hidden, o.window_frames, o.windows_per_utterance, hop, generator)
        level = self.draw_levels(len(clean), generator).to(clean.device)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        noisy = level[:, None] * clean + (1 - level[:, None] ** 2).sqrt() * noise
        autocast = torch.autocast(clean.device.type, torch.bfloat16, enabled=o.precision == "bf16-mixed")
        with autocast:
            predicted = net.decoder(noisy, cut, level)
        return {
            "noise": (predicted.float() - noise).abs().mean(),
            "duration": duration,
            "spectral": spectral,
        }

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Their weighted sum."""
        o = self.options
        return losses["noise"] + o.duration_weight * losses["duration"] + o.spectral_weight * losses["spectral"]


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
        if options.preset not in PRESETS:
            raise ConfigError(f"unknown preset '{options.preset}'", f"choose one of {', '.join(PRESETS)}")
        self.options, self.out = options, out
        self.checkpoint, self.voice, self.log = out / "train.pt", out / "voice.safetensors", out / "train.jsonl"
        self.config = PRESETS[options.preset]
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(automatic if options.device == "auto" else options.device)
        self.corpus = self._open(data, "train")
        self.gain = None if options.peak == "each" else corpus_gain(self.corpus)
        self.utterances = load_utterances(self.corpus, self.config, self.gain)
        held_out = self._open(data, "validation")[: options.validation_utterances]
        self.held_out = load_utterances(held_out, self.config, self.gain)
        torch.manual_seed(options.seed)
        self.generator = torch.Generator().manual_seed(options.seed)
        self.losses = Losses(WaveGrad2Network(self.config), options).to(self.device)
        self.network = self.losses.network
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self.losses.parameters(), options.learning_rate, weight_decay=options.weight_decay, fused=True
        )
        self.step, self.seconds = 0, 0.0

    def _open(self, data: Path, split: str) -> SpeechCorpus:
        rate, textgrids = self.config.sample_rate, self.options.textgrids
        return SpeechCorpus.open(data, split=split, sample_rate=rate, textgrids=textgrids)

    def train_step(self) -> dict[str, float]:
        """One update; returns its losses and the gradient's norm."""
        o = self.options
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.seconds, o)
        rows = torch.randint(len(self.utterances), (o.utterances_per_step,), generator=self.generator).tolist()
        parts = self.losses(collate([self.utterances[i] for i in rows], self.device), self.generator)
        total = self.losses.total(parts)
        if not torch.isfinite(total):
            raise Diverged(f"the loss is {total.item()} at step {self.step}", "lower learning_rate, then --resume")
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.losses.parameters(), o.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._update_average()
        return {name: value.item() for name, value in parts.items()} | {"grad_norm": norm.item()}

    @torch.no_grad()
    def _update_average(self) -> None:
        # The average forgets its random start: its horizon grows with the steps made.
        decay = min(self.options.ema_decay, self.step / (self.step + 9))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

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
            "preset": self.options.preset,
            "text": self.options.text_style,
            "card": card,
        }
        save_voice(self.voice, self.average, description)
        state = {
            "losses": self.losses.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
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
        except (OSError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
            raise DataError(f"cannot read '{self.checkpoint}': {error}", "start again in another --out") from error
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]
        self.generator.set_state(state["generator"].cpu())
        torch.set_rng_state(state["torch_rng"].cpu())
        self.step, self.seconds = state["step"], state["seconds"]
        rows = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        kept = [row for row in rows if json.loads(row)["step"] <= self.step]
        self.log.write_text("".join(row + "\n" for row in kept), encoding="utf-8")

    def run(self, on_step: Callable[[dict[str, float]], None]) -> None:
        """Train until the budget is used up, logging, validating and saving on the way."""
        o = self.options
        started = time.monotonic() - self.seconds
        running: dict[str, float] = {}
        self.network.train()
        while self.step < o.steps and not (o.minutes and self.seconds >= 60 * o.minutes):
            for name, value in self.train_step().items():
                running[name] = running.get(name, 0.0) + value / o.log_every
            self.seconds = time.monotonic() - started
            if self.step % o.log_every == 0:
                self._report({name: round(value, 5) for name, value in running.items()}, on_step)
                running = {}
            if self.step % o.validate_every == 0:
                self._validate(on_step)
            elif self.step % o.save_every == 0:
                self.store()
        self._validate(on_step)

    def _validate(self, on_step: Callable[[dict[str, float]], None]) -> None:
        self.store()
        folder = self.out / "validation" / f"{self.step:07d}"
        self._report(validate(self.voice, self.held_out, folder, self.options.validation_steps), on_step)

    def _report(self, metrics: dict[str, float], on_step: Callable[[dict[str, float]], None]) -> None:
        row = {"step": self.step, "seconds": round(self.seconds, 1), **metrics}
        with self.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        on_step(row)


def pretrain(
    data: Path,
    out: Path,
    options: PretrainOptions,
    *,
    resume: bool = False,
    on_step: Callable[[dict[str, float]], None] = lambda row: None,
) -> Path:
    """Train until the budget is used up; writes `train.pt` (to resume) and `voice.safetensors` (to use) into `out`.

    Raises:
        ConfigError: unknown preset, or `out` holds another run.
        DataError: what is wrong with the corpus or with the files in `out`.
        Diverged: a loss that is not finite; the last checkpoint stays.
        Interrupted: after Ctrl-C, when everything is saved.
    """
    if (out / "train.pt").exists() and not resume:
        raise ConfigError(f"'{out}' already holds a training run", "continue it with --resume, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    training = Pretraining(data, out, options)
    if resume:
        training.restore()
    try:
        training.run(on_step)
    except KeyboardInterrupt:
        training.store()
        raise Interrupted(
            f"stopped after step {training.step}; everything is saved", "continue with --resume"
        ) from None
    return training.voice
