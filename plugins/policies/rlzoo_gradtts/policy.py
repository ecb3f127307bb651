"""Grad-TTS as a policy: N rows, P phones, T frames, M mel bands, L samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from rlzoo.api import Batch, GaussianDiffusionPolicy, Media, Prompt, Samples, Schedule
from rlzoo.functional import length_mask
from rlzoo.text import TextFrontend
from rlzoo.voices import VoiceFormat
from rlzoo_gradtts import GradTTSOptions, lora
from rlzoo_gradtts.conditions import NUMBERS, coloured, hissing
from rlzoo_gradtts.losses import noise_level
from rlzoo_gradtts.mel import Mel
from rlzoo_gradtts.network import Bands, GradTTSNetwork, NetworkConfig, state_mask
from rlzoo_gradtts.phones import ROWS
from rlzoo_gradtts.supervise import supervise

VOICES = VoiceFormat("gradtts", NetworkConfig, GradTTSNetwork)
SHIPPED = Path(__file__).with_name("voices") / "rms.safetensors"
TERMINAL_LEVEL = 0.999
"""Noise level at which training ends; a rollout from N(0, 1) begins there."""


class GradTTSPolicy(GaussianDiffusionPolicy):
    """Text in, waveform out; the chain runs over the recording condition and (log-mel - mean) / scale, (M, 1 + T)."""

    def __init__(self, options: GradTTSOptions) -> None:
        super().__init__()
        self.options = options
        state, voice = VOICES.load(options.checkpoint or SHIPPED)
        self.config = NetworkConfig.model_validate(voice["network"])
        self.media = Media("audio", self.config.sample_rate)
        self.card: dict[str, Any] = voice.get("card", {})
        self.frontend = TextFrontend(style=voice["text"], learnt=self.card.get("phones", ()))
        self.network = GradTTSNetwork(self.config)
        self.network.load_state_dict(state)
        self.bands = Bands(self.config.bands)
        self.mel = Mel(self.config)
        self.requires_grad_(False)
        self.bands.requires_grad_(options.trainable != "lora")
        for name, parameter in self.network.denoiser.named_parameters():
            wanted = {"biases": name.endswith("bias"), "denoiser": True}
            parameter.requires_grad_(wanted.get(options.trainable, False))
        if options.trainable == "lora":
            lora.adapt(self.network.denoiser, options.lora_rank, options.lora_alpha, options.lora_layers)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.average.device

    def condition(self, prompts: Sequence[Prompt]) -> Batch:
        """Tensors `frames` (B,), `features` (B, C, T) and `mean` (B, M, T), the mean log-mel spectrum.

        Each prompt is encoded by itself, so that no rounding of a duration can depend on its batch mates.

        Raises:
            DataError: a text with nothing to say, named.
        """
        return self.batch([self.encode(self.ids(prompt)) for prompt in prompts])

    def batch(self, rows: Sequence[Mapping[str, Tensor]]) -> Batch:
        """What `encode` says of B texts -> the tensors of `condition`."""

        def pad(name: str) -> Tensor:
            return pad_sequence([row[name].t() for row in rows], batch_first=True).transpose(1, 2).contiguous()

        frames = torch.tensor([row["mean"].shape[1] for row in rows], device=self.device)
        return Batch({"frames": frames, "features": pad("features"), "mean": pad("mean")})

    def supervise(self, prompts: Sequence[Prompt], recordings: Samples) -> tuple[Tensor, Batch]:
        """Recordings with their own phones, durations and pitch, from the corpus they belong to; see `supervise.py`."""
        return supervise(self, prompts, recordings)

    def ids(self, prompt: Prompt) -> Tensor:
        """(P,) rows of the embedding: the prompt's attribute "phones", else its text, spelled by the voice's habits."""
        return torch.tensor(self.frontend.rows(prompt, ROWS))

    @torch.no_grad()
    def encode(self, ids: Tensor, frames: Tensor | None = None, log_pitch: Tensor | None = None) -> dict[str, Tensor]:
        """ids (P,), frames and pitch of each phone (P,), None: as planned -> `features` (C, T), `mean` (M, T)."""
        count = torch.tensor([len(ids)], device=self.device)
        encoded, planned = self.network.encode(ids[None].to(self.device), count)
        if frames is None:
            # Every phone is heard, if only for a frame, and a single one for long enough to have a spectrum.
            frames = ((planned.log_frames[0].exp() - 0.5) / self.options.pace).round().long().clamp(min=1)
            frames[-1] += (self.config.shortest - frames.sum()).clamp(min=0)
        pitch = planned.log_pitch[0] if log_pitch is None else log_pitch.to(self.device)
        expanded = self.network.expand(encoded[0], frames.to(self.device), pitch)[None]
        features, mean = self.network.decode(expanded, expanded.new_ones(1, 1, expanded.shape[1]))
        return {"features": features[0], "mean": mean[0] + self.network.average[:, None]}

    def state_shape(self, cond: Batch) -> tuple[int, ...]:
        """`(M, 1 + T)`, T the longest row's frames."""
        bands, size = cond.get("mean").shape[1:]
        return bands, 1 + size

    def lengths(self, cond: Batch) -> Tensor:
        """(N,) columns of each row: its condition and its frames."""
        return cond.get("frames") + 1

    def mask(self, cond: Batch) -> Tensor | None:
        """(N, M, 1 + T), false behind a row's end and below its condition."""
        return state_mask(cond.get("frames"), *self.state_shape(cond))

    def trim(self, cond: Batch) -> Batch:
        """Cut to the longest row's frames."""
        frames = int(cond.get("frames").max())
        cut = {name: cond.get(name)[:, :, :frames] for name in ("features", "mean")}
        return Batch({**cond.tensors, **cut})

    def forward(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        """(N, M, 1 + T), noise levels sigma (N,) -> what is taken for clean (N, M, 1 + T), zero on padding."""
        frames, features = cond.get("frames"), cond.get("features")
        if x_t.device.type != "cpu":
            return self._denoise(x_t, t, frames, features)
        # Row by row a sample's last bit does not depend on its batch mates either, which Griffin-Lim would magnify.
        width, rows = x_t.shape[2], []
        for row, count in enumerate(frames.tolist()):
            one = slice(row, row + 1)
            clean = self._denoise(x_t[one, :, : count + 1], t[one], frames[one], features[one, :, :count])
            rows.append(F.pad(clean, (0, width - count - 1)))
        return torch.cat(rows)

    def _denoise(self, x_t: Tensor, t: Tensor, frames: Tensor, features: Tensor) -> Tensor:
        mask = state_mask(frames, *x_t.shape[1:]).to(x_t.dtype)
        clean: Tensor = self.bands(self.network.clean(x_t * mask, t, features, mask), mask)
        return clean

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The clean state, which is what this policy predicts.

        Losses then count what is heard, alike at all noise levels. An error in the noise would count it by the
        signal-to-noise ratio, up to 10,000 times, where the noise is all but gone and so is what a sample can teach.
        """
        return x

    def clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The prediction itself."""
        return prediction

    def schedule(self, num_steps: int | None = None) -> Schedule:
        """K steps, even in the angle whose sine is the noise level; the last one takes its mean."""
        count = num_steps or self.options.num_steps
        angles = math.asin(TERMINAL_LEVEL) * torch.linspace(1, 0, count + 1, dtype=torch.float64)
        return Schedule(angles.sin(), torch.arange(count) < count - 1)

    def sample_times(self, uniform: Tensor) -> Tensor:
        """The levels of pretraining."""
        return noise_level(uniform)

    def decode(self, x: Tensor, cond: Batch) -> Samples:
        """Clean states (N, M, 1 + T) -> waveforms (N, T·hop), (frames - 1)·hop samples each."""
        spectra = cond.get("mean") + self.config.residual_scale * x[..., 1:]
        frames, condition, hop = cond.get("frames"), x[:, :NUMBERS, 0], self.config.hop
        lengths = (frames - 1) * hop
        if not self.options.conditions:
            waves = self.mel.invert(spectra, frames)
        else:
            clear = self.mel.invert(coloured(spectra, condition), frames)
            waves = hissing(clear, condition).clamp(-1, 1) * length_mask(lengths, clear.shape[1])
        return Samples(F.pad(waves, (0, hop)), lengths, self.media)
