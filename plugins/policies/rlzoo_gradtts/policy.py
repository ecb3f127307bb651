"""Grad-TTS as a policy: N rows, P phones, T frames, M mel bands, L samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from rlzoo.api import Batch, Gaussian, GaussianDiffusionPolicy, Media, Prompt, RectifiedFlowForm, Samples, Schedule
from rlzoo.parallel import map_rows
from rlzoo.text import TextFrontend
from rlzoo.voices import VoiceFormat
from rlzoo_gradtts import GradTTSOptions
from rlzoo_gradtts.levels import noise_level
from rlzoo_gradtts.mel import Mel
from rlzoo_gradtts.network import Bands, GradTTSNetwork, NetworkConfig, along, column, state_mask
from rlzoo_gradtts.phones import ROWS
from rlzoo_gradtts.style import summarise

VOICES = VoiceFormat("gradtts", NetworkConfig, GradTTSNetwork)
SHIPPED = Path(__file__).with_name("voices") / "heart.safetensors"
TERMINAL_LEVEL = 0.999
"""Noise level at which training ends; a rollout from N(0, 1) begins there."""


class GradTTSPolicy(GaussianDiffusionPolicy):
    """Text in, waveform out; the chain runs over the style and (log-mel - mean of that style) / scale, (M, 1 + T)."""

    rows_on_cores = True

    def __new__(cls, options: GradTTSOptions | None = None) -> Self:
        """The class that `process` asks for; no options where a policy is copied."""
        flow = cls is GradTTSPolicy and options is not None and options.process == "flow"
        return super().__new__(GradTTSFlowPolicy if flow else cls)  # type: ignore[return-value]

    def __init__(self, options: GradTTSOptions) -> None:
        super().__init__()
        self.options = options
        state, voice = VOICES.load(options.checkpoint or SHIPPED)
        self.config = NetworkConfig.model_validate(voice["network"])
        self.media = Media("audio", self.config.sample_rate)
        self.card: dict[str, Any] = voice.get("card", {})
        self.frontend = TextFrontend(voice["text"], silence_ends=True, learnt=self.card.get("phones", ()))
        self.network = GradTTSNetwork(self.config)
        self.network.load_state_dict(state)
        self.bands = Bands(self.config.bands)
        self.mel = Mel(self.config)
        self.requires_grad_(False)
        if options.trainable != "lora":
            self.bands.requires_grad_(True)
            self.network.style_denoiser.requires_grad_(True)
        for name, parameter in self.network.denoiser.named_parameters():
            wanted = {"biases": name.endswith("bias"), "denoiser": True}
            parameter.requires_grad_(wanted.get(options.trainable, False))
        if options.trainable == "lora":
            from rlzoo_gradtts import lora

            lora.adapt(self.network.denoiser, options.lora_rank, options.lora_alpha, options.lora_layers)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.network.average.device

    def condition(self, prompts: Sequence[Prompt]) -> Batch:
        """Tensors `frames` (B,), `features` (B, C, T) and `plain` (B, M, T), the spectrum before its style.

        Each prompt is encoded by itself, so that no rounding of a duration can depend on its batch mates.

        Raises:
            DataError: a text with nothing to say, named.
        """
        return self.batch([self.encode(self.ids(prompt)) for prompt in prompts])

    def batch(self, rows: Sequence[Mapping[str, Tensor]]) -> Batch:
        """Result of `encode` for B texts -> the tensors of `condition`."""

        def pad(name: str) -> Tensor:
            return pad_sequence([row[name].t() for row in rows], batch_first=True).transpose(1, 2).contiguous()

        frames = torch.tensor([row["features"].shape[1] for row in rows], device=self.device)
        return Batch({"frames": frames, "features": pad("features"), "plain": pad("plain")})

    def supervise(self, prompts: Sequence[Prompt], recordings: Samples) -> tuple[Tensor, Batch]:
        """Recordings with their own phones, durations and pitch, from the corpus they belong to; see `supervise.py`."""
        from rlzoo_gradtts.supervise import supervise

        return supervise(self, prompts, recordings)

    def ids(self, prompt: Prompt) -> Tensor:
        """(P,) rows of the embedding: the prompt's attribute "phones", else its text, spelled by the voice's habits."""
        return torch.tensor(self.frontend.rows(prompt, ROWS))

    @torch.no_grad()
    def encode(self, ids: Tensor, frames: Tensor | None = None, contour: Tensor | None = None) -> dict[str, Tensor]:
        """ids (P,), frames of each phone (P,) and pitch of each frame (T,), None: as planned -> `features` (C, T),
        `plain` (M, T)."""
        count = torch.tensor([len(ids)], device=self.device)
        encoded, planned = self.network.encode(ids[None].to(self.device), count)
        if frames is None:
            # Every phone is heard, if only for a frame, and a single one for long enough to have a spectrum.
            frames = ((planned.log_frames[0].exp() - 0.5) / self.options.pace).round().long().clamp(min=1)
            frames[-1] += (self.config.shortest - frames.sum()).clamp(min=0)
        frames = frames.to(self.device)
        if contour is None:
            contour = along(planned.log_pitch[0], frames.cumsum(0) - frames / 2, int(frames.sum()))
        contour = contour.to(self.device)
        expanded = self.network.expand(encoded[0], frames, contour)[None]
        features, plain = self.network.decode(expanded, contour[None], expanded.new_ones(1, 1, expanded.shape[1]))
        return {"features": features[0], "plain": plain[0]}

    @torch.no_grad()
    def to_state(self, mel: Tensor, row: Mapping[str, Tensor]) -> Tensor:
        """A recording's log-mel spectrum (M, T) and what `encode` says of it -> the clean state (M, 1 + T)."""
        style, _ = self.network.posterior(summarise(mel)[None])
        mean = self.network.mean_spectrum(row["features"][None], row["plain"][None], style)[0]
        residual = (mel - mean) / self.config.residual_scale
        return torch.cat([column(style[0], self.config.bands), residual], 1)

    def state_shape(self, cond: Batch) -> tuple[int, ...]:
        """`(M, 1 + T)`, T the longest row's frames."""
        return self.config.bands, 1 + cond.get("features").shape[2]

    def lengths(self, cond: Batch) -> Tensor:
        """(N,) columns of each row: its style and its frames."""
        return cond.get("frames") + 1

    def mask(self, cond: Batch) -> Tensor | None:
        """(N, M, 1 + T), false behind a row's end and below its style."""
        return state_mask(cond.get("frames"), self.config.style, *self.state_shape(cond))

    def trim(self, cond: Batch) -> Batch:
        """Cut to the longest row's frames."""
        frames = int(cond.get("frames").max())
        cut = {name: cond.get(name)[:, :, :frames] for name in ("features", "plain")}
        return Batch({**cond.tensors, **cut})

    def forward(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        """(N, M, 1 + T), noise levels sigma (N,) -> the clean states that are predicted (N, M, 1 + T), zero on
        padding."""
        frames, features = cond.get("frames"), cond.get("features")
        if x_t.device.type != "cpu":
            return self.denoise(x_t, t, frames, features)
        # Row by row a sample's last bit does not depend on its batch mates, which Griffin-Lim would magnify.
        width, counts = x_t.shape[2], frames.tolist()

        def alone(row: int, x: Tensor) -> Tensor:
            count, one = counts[row], slice(row, row + 1)
            clean = self.denoise(x[:, :, : count + 1], t[one], frames[one], features[one, :, :count])
            return F.pad(clean, (0, width - count - 1))

        return map_rows(alone, x_t, list(self.parameters()))

    def denoise(self, x_t: Tensor, t: Tensor, frames: Tensor, features: Tensor) -> Tensor:
        """`forward` for rows that all go through the network at once: (N, M, 1 + T), (N,), (N,), (N, C, T)."""
        mask = state_mask(frames, self.config.style, *x_t.shape[1:]).to(x_t.dtype)
        fixed = self.network.clean_style.expand(len(x_t), -1) if self.options.style == "clean" else None
        style, residual = self.network.clean(x_t * mask, t, features, mask, fixed)
        return torch.cat([column(style, self.config.bands), self.bands(residual)], 2) * mask

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

    def transition(
        self, x: Tensor, k: Tensor, cond: Batch, schedule: Schedule, prediction: Tensor | None = None
    ) -> Gaussian:
        """The posterior; for the style, with what the prediction leaves open added to its variance.

        The posterior takes the predicted style for the true one. Four such steps would draw styles a third too narrow.
        Training holds styles near N(0, I), where Var[x_0 | x_t] = sigma_t^2 (Analytic-DPM, arXiv:2201.06503, Eq. 8).
        """
        step = super().transition(x, k, cond, schedule, prediction)
        if self.options.style == "clean":
            return step
        style = self._style_stds(schedule.to(x.device), x.dtype)[k, None, None].expand(-1, x.shape[1], 1)
        frames = step.std[:, None, None].expand(-1, x.shape[1], x.shape[2] - 1)
        return Gaussian(step.mean, torch.cat([style, frames], 2), step.mask)

    def _style_stds(self, schedule: Schedule, dtype: torch.dtype) -> Tensor:
        """(K,) standard deviations of the style's steps. Computed once for a schedule, in float64."""

        def compute() -> Tensor:
            sigma_t, sigma_s = schedule.times[:-1], schedule.times[1:]
            of_x0, _, std = self.posterior(sigma_t, sigma_s)
            wider = (std**2 + (of_x0 * sigma_t) ** 2).sqrt()
            return torch.where(schedule.stochastic, wider, torch.zeros_like(wider)).to(dtype)

        return schedule.once(("style", dtype), compute)

    def sample_times(self, uniform: Tensor) -> Tensor:
        """The levels of pretraining."""
        return noise_level(uniform)

    def decode(self, x: Tensor, cond: Batch) -> Samples:
        """Clean states (N, M, 1 + T) -> waveforms (N, T·hop), (frames - 1)·hop samples each."""
        frames, hop = cond.get("frames"), self.config.hop
        waves = self.mel.invert(self.spectra(x, cond), frames)
        return Samples(F.pad(waves, (0, hop)), (frames - 1) * hop, self.media)

    def spectra(self, x: Tensor, cond: Batch) -> Tensor:
        """Clean states (N, M, 1 + T) -> log-mel spectra (N, M, T)."""
        features, plain, style = cond.get("features"), cond.get("plain"), x[:, : self.config.style, 0]
        if x.device.type != "cpu":
            mean = self.network.mean_spectrum(features, plain, style)
        else:
            # Row by row, see `forward`: Griffin-Lim would magnify a last bit that depends on the batch's width.
            width, counts = plain.shape[2], cond.get("frames").tolist()

            def speak(row: int, style: Tensor) -> Tensor:
                count, one = counts[row], slice(row, row + 1)
                own = self.network.mean_spectrum(features[one, :, :count], plain[one, :, :count], style)
                return F.pad(own, (0, width - count))

            mean = map_rows(speak, style)
        return mean + self.options.temperature * self.config.residual_scale * x[..., 1:]


class GradTTSFlowPolicy(RectifiedFlowForm, GradTTSPolicy):
    """The same voice as a rectified flow, for methods that are published for flows."""

    def __init__(self, options: GradTTSOptions) -> None:
        super().__init__(options)
        self.noise_form, self.noise_level = options.noise_form, options.noise_level
