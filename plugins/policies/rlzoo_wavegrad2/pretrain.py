"""Train WaveGrad 2 on recorded speech with its published losses, windowed, resumable (arXiv:2106.09660).

One step: encode U utterances, spread them over frames with their true durations, cut W windows of each, and learn

    L1(eps, eps_theta(sqrt(ab) y + sqrt(1 - ab) eps, hidden, sqrt(ab)))  +  duration MSE in seconds^2
    +  `spectral_weight` x L1 between a linear read-out of the hidden frames and the log-mel spectrum.

The last term is ours and only trains the encoder sooner: its read-out is no part of the saved network.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlzoo.corpus.speech import SpeechCorpus, frame_durations
from rlzoo.errors import ConfigError, DataError, Diverged
from rlzoo_wavegrad2 import PretrainOptions
from rlzoo_wavegrad2.network import PRESETS, NetworkConfig, WaveGrad2Network
from rlzoo_wavegrad2.schedules import training_levels
from rlzoo_wavegrad2.symbols import phone_ids


@dataclass(frozen=True)
class Utterance:
    """ids (P,), frames (P,) int64, wave (T·hop,) float32."""

    id: str
    ids: Tensor
    frames: Tensor
    wave: Tensor


def load_utterances(corpus: SpeechCorpus, config: NetworkConfig, gain: float | None = None) -> list[Utterance]:
    """Everything in memory; `gain` None scales each recording to a peak of 1, as published."""
    found = []
    for item in corpus:
        wave = item.load()
        total = len(wave) // config.hop
        if total < 1:
            continue
        wave = wave[: total * config.hop]
        scale = gain if gain is not None else 1 / wave.abs().max().clamp(min=1e-4).item()
        frames = frame_durations(item.ends, config.hop / config.sample_rate, total)
        ids = torch.tensor(phone_ids(list(item.phones)))
        found.append(Utterance(item.id, ids, torch.tensor(frames), (wave * scale).clamp(-1, 1).half()))
    if not found:
        raise DataError(f"no usable recording in '{corpus.folder}'", "check metadata.csv and the phone times")
    return found


@dataclass(frozen=True)
class Batch:
    """ids (U, P), lengths (U,), frames (U, P), waves: one per utterance."""

    ids: Tensor
    lengths: Tensor
    frames: Tensor
    waves: list[Tensor]


def collate(utterances: list[Utterance], device: torch.device) -> Batch:
    pad = nn.utils.rnn.pad_sequence
    lengths = torch.tensor([len(u.ids) for u in utterances])
    ids = pad([u.ids for u in utterances], batch_first=True)
    frames = pad([u.frames for u in utterances], batch_first=True)
    return Batch(ids.to(device), lengths.to(device), frames.to(device), [u.wave.float().to(device) for u in utterances])


class LogMel(nn.Module):
    """(B, T·hop) -> (B, 40, T): log-mel magnitudes, one column per hidden frame."""

    def __init__(self, config: NetworkConfig, bands: int = 40) -> None:
        super().__init__()
        from torchaudio.functional import melscale_fbanks

        self.hop, self.window_size = config.hop, 4 * config.hop
        self.fft = 2 ** math.ceil(math.log2(self.window_size))
        banks = melscale_fbanks(self.fft // 2 + 1, 0.0, config.sample_rate / 2, bands, config.sample_rate, "slaney", "slaney")
        self.register_buffer("banks", banks)
        self.register_buffer("window", torch.hann_window(self.window_size))

    def forward(self, wave: Tensor) -> Tensor:
        side = (self.fft - self.hop) // 2
        padded = F.pad(wave, (side, self.fft - self.hop - side))
        spectrum = torch.stft(
            padded, self.fft, self.hop, self.window_size, self.window, center=False, return_complex=True
        ).abs()
        return (spectrum.transpose(1, 2) @ self.banks).clamp(min=1e-3).log().transpose(1, 2)


def windows(batch: Batch, hidden: Tensor, size: int, count: int, hop: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` windows of `size` frames from each row: hidden (U·count, H, size), waves (U·count, size·hop).

    A row shorter than the window is zero padded, as published.
    """
    cut_hidden, cut_waves = [], []
    for row, wave in enumerate(batch.waves):
        total = len(wave) // hop
        for _ in range(count):
            start = int(torch.randint(max(1, total - size + 1), (1,), generator=generator))
            h = hidden[row, :, start : min(start + size, total)]
            w = wave[start * hop : (start + size) * hop]
            cut_hidden.append(F.pad(h, (0, size - h.shape[1])))
            cut_waves.append(F.pad(w, (0, size * hop - len(w))))
    return torch.stack(cut_hidden), torch.stack(cut_waves)


class Losses(nn.Module):
    """The network, the spectral read-out and the three losses of one batch."""

    def __init__(self, network: WaveGrad2Network, options: PretrainOptions) -> None:
        super().__init__()
        self.network, self.options = network, options
        self.mel = LogMel(network.config)
        self.readout = nn.Conv1d(network.config.hidden_channels, 40, 1)
        self.register_buffer("levels", training_levels())

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """sqrt(alpha_bar), uniform between two neighbours of the 1000-step training schedule."""
        s = torch.randint(1, len(self.levels), (count,), generator=generator)
        mix = torch.rand(count, generator=generator).to(self.levels)
        return (self.levels[s] + mix * (self.levels[s - 1] - self.levels[s])).float()

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
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


def save(path: Path, state: dict[str, Any]) -> None:
    """Written whole or not at all."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def pretrain(
    data: Path,
    out: Path,
    options: PretrainOptions,
    *,
    resume: bool = False,
    on_step: Callable[[dict[str, float]], None] | None = None,
) -> Path:
    """Train until the budget is used up; writes `train.pt` (to resume) and `voice.safetensors` (to use) into `out`.

    Raises:
        ConfigError: unknown preset, or `out` holds another run.
        DataError: what is wrong with the corpus.
        Diverged: a loss that is not finite; the last checkpoint stays.
    """
    from rlzoo_wavegrad2.checkpoint import save_voice

    if options.preset not in PRESETS:
        raise ConfigError(f"unknown preset '{options.preset}'", f"choose one of {', '.join(PRESETS)}")
    config = PRESETS[options.preset]
    device = torch.device("cuda" if options.device == "auto" and torch.cuda.is_available() else options.device.replace("auto", "cpu"))
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "train.pt"
    if checkpoint.exists() and not resume:
        raise ConfigError(f"'{out}' already holds a training run", "continue it with --resume, or choose another --out")

    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    losses = Losses(WaveGrad2Network(config), options).to(device)
    network = losses.network
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    fused = device.type in ("cpu", "cuda")
    optimizer = torch.optim.AdamW(losses.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, fused=fused)
    corpus = SpeechCorpus.open(data, split="train", sample_rate=config.sample_rate, textgrids=options.textgrids)
    gain = None if options.peak == "each" else corpus_gain(corpus)
    utterances = load_utterances(corpus, config, gain)
    step, elapsed = 0, 0.0
    if resume:
        if not checkpoint.exists():
            raise DataError(f"nothing to resume in '{out}'", "leave out --resume to start a new training run")
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        losses.load_state_dict(state["losses"])
        optimizer.load_state_dict(state["optimizer"])
        average = state["average"]
        generator.set_state(state["generator"].cpu())
        torch.set_rng_state(state["torch_rng"].cpu())
        step, elapsed = state["step"], state["elapsed"]

    def store() -> None:
        save(checkpoint, {
            "losses": losses.state_dict(), "optimizer": optimizer.state_dict(), "average": average,
            "generator": generator.get_state(), "torch_rng": torch.get_rng_state(), "step": step, "elapsed": elapsed,
        })  # fmt: skip
        card = {"step": step, "minutes": elapsed / 60, "hours_of_speech": corpus.hours, "sentences": len(corpus),
                "options": options.model_dump(mode="json"), "phones": list(corpus.phones), "gain": gain}  # fmt: skip
        save_voice(out / "voice.safetensors", average, {"network": config.model_dump(), "preset": options.preset,
                   "text": options.text_style, "card": card})  # fmt: skip

    network.train()
    started = time.monotonic() - elapsed
    log = (out / "train.jsonl").open("a", encoding="utf-8")
    running: dict[str, float] = {}
    while step < options.steps and not (options.minutes and elapsed >= 60 * options.minutes):
        rate = learning_rate(step, elapsed, options)
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = torch.randint(len(utterances), (options.utterances_per_step,), generator=generator).tolist()
        parts = losses(collate([utterances[i] for i in rows], device), generator)
        total = losses.total(parts)
        if not torch.isfinite(total):
            raise Diverged(f"the loss is {total.item()} at step {step}", "lower learning_rate, then --resume")
        total.backward()
        norm = nn.utils.clip_grad_norm_(losses.parameters(), options.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        # The average forgets its random start: its horizon grows with the steps made.
        decay = min(options.ema_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                if value.is_floating_point():
                    average[name].lerp_(value, 1 - decay)
                else:
                    average[name].copy_(value)
        step += 1
        elapsed = time.monotonic() - started
        for name, value in (*parts.items(), ("grad_norm", norm)):
            running[name] = running.get(name, 0.0) + value.item() / options.log_every
        if step % options.log_every == 0:
            row = {"step": step, "seconds": round(elapsed, 1), "learning_rate": rate, **{k: round(v, 5) for k, v in running.items()}}
            log.write(json.dumps(row) + "\n")
            log.flush()
            running = {}
            if on_step is not None:
                on_step(row)
        if step % options.save_every == 0:
            store()
    store()
    log.close()
    return out / "voice.safetensors"


def corpus_gain(corpus: SpeechCorpus) -> float:
    """One gain for all recordings: 19 of 20 peaks come out below 0.95, the loudest are clipped."""
    peaks = sorted(float(item.load().abs().max()) for item in corpus)
    return 0.95 / max(1e-4, peaks[int(0.95 * (len(peaks) - 1))])


__all__ = ["pretrain"]
