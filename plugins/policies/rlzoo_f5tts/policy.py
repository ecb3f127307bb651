"""F5-TTS as a policy: N rows, M mel bands, W frames of the longest row, reference and new speech together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from rlzoo.api import Batch, Gaussian, Media, Prompt, RectifiedFlowPolicy, Samples, Schedule
from rlzoo.assets import obtain
from rlzoo.audio import resample_samples
from rlzoo.errors import DataError
from rlzoo.functional import length_mask
from rlzoo_f5tts import V1_BASE, VOCABULARY, VOCOS, F5TTSOptions, lora
from rlzoo_f5tts.checkpoint import read_model, read_vocoder, write_model
from rlzoo_f5tts.mel import BANDS, HOP, RATE, GriffinLim, Mel
from rlzoo_f5tts.network import TEXT_POSITIONS
from rlzoo_f5tts.text import as_reference, read_vocabulary, to_rows
from rlzoo_f5tts.voice import Voice, load_voice, total_frames, wanted

VERSIONS = {"v1": (True, 0), "v0": (False, 1), "auto": (None, None)}
SPACED = {
    5: (0, 2, 4, 8, 16, 32),
    6: (0, 2, 4, 6, 8, 16, 32),
    7: (0, 2, 4, 6, 8, 16, 24, 32),
    10: (0, 2, 4, 6, 8, 12, 16, 20, 24, 28, 32),
    12: (0, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32),
    16: (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32),
}
"""Times of few steps, in units of 1/32, that F5-TTS found by trying."""


@dataclass(frozen=True)
class Infilling(Gaussian):
    """A Gaussian on the new frames, which `mask` marks; what is known moves without noise, and padding stays zero."""

    def rsample(self, noise: Tensor) -> Tensor:
        """See `StepDistribution.rsample`."""
        assert self.mask is not None
        return self.mean + self.std[:, None, None] * noise * self.mask


class F5TTSPolicy(RectifiedFlowPolicy):
    """Text and a reference recording in, waveform out; the chain runs over log-mel spectra (M, W), reference first.

    Only new frames have noise, density and loss. Time is the base class's, 1 for noise: F5-TTS's runs the other way.
    """

    zero_shot = True

    def __init__(self, options: F5TTSOptions) -> None:
        super().__init__()
        self.options = options
        self.noise_level, self.noise_form = options.noise_level, options.noise_form
        self.media = Media("audio", RATE)
        path = obtain(V1_BASE, options.checkpoint)
        filler_masked, rotary_heads = VERSIONS[options.version]
        self.network = read_model(path, filler_masked=filler_masked, rotary_heads=rotary_heads)
        self.network.checkpointing = options.activation_checkpointing
        if self.network.config.bands != BANDS:
            raise DataError(f"'{path}' makes {self.network.config.bands} mel bands, not {BANDS}", "give another model")
        self.vocabulary = self._read_vocabulary(path)
        self.mel = Mel()
        if options.vocoder == "griffin-lim":
            self.vocoder: torch.nn.Module = GriffinLim(self.mel)
        else:
            self.vocoder = read_vocoder(obtain(VOCOS, options.vocoder))
        self.voices: dict[Path, Voice] = {}
        self.requires_grad_(False)
        if options.trainable == "lora":
            lora.adapt(self.network, options.lora_rank, options.lora_alpha, options.lora_layers)
        else:
            self.network.requires_grad_(True)
        self.eval()

    def _read_vocabulary(self, model: Path) -> dict[str, int]:
        beside = model.with_name("vocab.txt")
        path = self.options.vocabulary or (beside if beside.is_file() else obtain(VOCABULARY))
        rows = read_vocabulary(path)
        if len(rows) != self.network.config.vocabulary:
            raise DataError(
                f"the vocabulary '{path}' has {len(rows)} entries, the model '{model}' "
                f"{self.network.config.vocabulary}",
                "name the vocab.txt that came with the model: policy.vocabulary",
            )
        return rows

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.mel.banks.device

    def condition(self, prompts: Sequence[Prompt]) -> Batch:
        """Tensors of B rows; see `batch`.

        Raises:
            ConfigError: a prompt without a voice, or with a text that the vocabulary knows nothing of.
            DataError: a bad recording, or a text that is too long.
        """
        return self.batch([self.encode(prompt) for prompt in prompts])

    @torch.no_grad()
    def encode(self, prompt: Prompt, frames: int | None = None) -> dict[str, Tensor]:
        """One row: `reference` (M, R), `text` (P,), `frames` and `gain` (1,). `frames`: of both; None: by the rule."""
        who = wanted(prompt, self.options)
        if who.recording not in self.voices:
            self.voices[who.recording] = load_voice(who.recording, self.mel, trim=self.options.trim_silence)
        voice = self.voices[who.recording]
        before = as_reference(who.text)
        to_rows(prompt.text, self.vocabulary)  # refuses a text that says nothing, whatever the reference says
        text = to_rows(before + prompt.text, self.vocabulary)
        if frames is None:
            frames = total_frames(voice, before, prompt.text, who.speed, len(text))
        if frames > TEXT_POSITIONS:
            raise DataError(
                f"prompt '{prompt.id}' would last {frames * HOP / RATE:.0f} s, reference included; F5-TTS knows 30 s",
                "split the text (rlzoo synth --stream speaks sentence by sentence)",
            )
        return {
            "reference": voice.mel.to(self.device),
            "text": text[:frames].to(self.device),
            "frames": torch.tensor([frames], device=self.device),
            "gain": torch.tensor([voice.gain], device=self.device),
        }

    def batch(self, rows: Sequence[dict[str, Tensor]]) -> Batch:
        """Result of `encode` for B prompts -> `reference` (B, M, W) and `text` (B, W), zero behind their ends, `known`,
        `frames` (B,) of the reference and of all, `gain` (B,), `told` (B,) bool: whether voice and text are told."""
        frames = torch.cat([row["frames"] for row in rows])
        width = int(frames.max())

        def pad(name: str) -> Tensor:
            return torch.stack([F.pad(row[name], (0, width - row[name].shape[-1])) for row in rows])

        known = torch.tensor([row["reference"].shape[1] for row in rows], device=self.device)
        gain = torch.cat([row["gain"] for row in rows])
        told = torch.ones(len(rows), dtype=torch.bool, device=self.device)
        cond = {"known": known, "frames": frames, "gain": gain, "told": told}
        return Batch({**cond, "reference": pad("reference"), "text": pad("text")})

    def state_shape(self, cond: Batch) -> tuple[int, ...]:
        """`(M, W)`."""
        return tuple(cond.get("reference").shape[1:])

    def lengths(self, cond: Batch) -> Tensor:
        """(N,) frames of each row, reference and new ones."""
        return cond.get("frames")

    def mask(self, cond: Batch) -> Tensor:
        """(N, M, W), true on the new frames: not on the reference, which is known, and not on padding."""
        bands, width = self.state_shape(cond)
        new = length_mask(cond.get("frames"), width) & ~length_mask(cond.get("known"), width)
        return new[:, None].expand(-1, bands, -1)

    def trim(self, cond: Batch) -> Batch:
        """Cut to the longest row's frames."""
        frames = int(cond.get("frames").max())
        cut = {name: cond.get(name)[..., :frames] for name in ("reference", "text")}
        return Batch({**cond.tensors, **cut})

    def forward(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        """(N, M, W), times (N,) -> velocity noise - data (N, M, W); what stands on padding means nothing."""
        told = cond.get("told")
        reference = cond.get("reference") * told[:, None, None]
        inputs = x_t.transpose(1, 2), reference.transpose(1, 2), cond.get("text"), 1 - t
        if x_t.device.type != "cpu":
            made: Tensor = self.network(*inputs, length_mask(cond.get("frames"), x_t.shape[2]), ~told)
            return -made.transpose(1, 2)
        # Row by row nothing is spent on padding, and a sample's last bit does not depend on its batch mates either.
        rows = []
        for row, count in enumerate(cond.get("frames").tolist()):
            x, known, text, time = (part[row : row + 1] for part in inputs)
            made = self.network(x[:, :count], known[:, :count], text[:, :count], time, None, ~told[row : row + 1])
            rows.append(F.pad(-made.transpose(1, 2), (0, x_t.shape[2] - count)))
        return torch.cat(rows)

    def transition(
        self, x: Tensor, k: Tensor, cond: Batch, schedule: Schedule, prediction: Tensor | None = None
    ) -> Infilling:
        """The base class's step on the new frames, with guidance; known ones take the ODE's, see `reference_path`."""
        times = schedule.times.to(x.device)
        t, s = times[k].to(x.dtype), times[k + 1].to(x.dtype)[:, None, None]
        v = self.predict(x, t, cond) if prediction is None else prediction
        if self.options.guidance:
            untold = Batch({**cond.tensors, "told": torch.zeros_like(cond.get("told"))})
            v = v + self.options.guidance * (v - self.predict(x, t, untold))
        step = super().transition(x, k, cond, schedule, v)
        reference, new = cond.get("reference"), self.mask(cond)
        straight = self.options.reference_path == "line"
        t = t[:, None, None]
        moved = x + ((x - reference) / t if straight else v) * (s - t)
        moved = torch.where(s > 0, moved, reference)  # the recording itself, whatever the velocity led to
        inside = length_mask(cond.get("frames"), x.shape[2])[:, None]
        return Infilling(torch.where(new, step.mean, moved * inside), step.std, new)

    def schedule(self, num_steps: int | None = None) -> Schedule:
        """K steps at F5-TTS's times, swayed; the last one takes its mean."""
        count = num_steps or self.options.num_steps
        if count in SPACED:
            u = torch.tensor(SPACED[count], dtype=torch.float64) / 32
        else:
            u = torch.linspace(0, 1, count + 1, dtype=torch.float64)
        swayed = u + self.options.sway * ((torch.pi / 2 * u).cos() - 1 + u)
        times = 1 - swayed
        times[0], times[-1] = 1.0, 0.0
        return Schedule(times, torch.arange(count) < count - 1)

    def decode(self, x: Tensor, cond: Batch) -> Samples:
        """Clean states (N, M, W) -> waveforms (N, (W - 1) HOP) of the new frames, row by row.

        As in F5-TTS's tools the last frame of the reference is the first that is heard: a vocoder's first frame has no
        neighbour to start from.
        """
        known, frames = cond.get("known") - 1, cond.get("frames")
        width, waves = (x.shape[2] - 1) * HOP, []
        for row, first, last, gain in zip(x, known.tolist(), frames.tolist(), cond.get("gain"), strict=True):
            wave = (self.vocoder(row[None, :, first:last])[0] * gain).clamp(-1, 1)
            waves.append(F.pad(wave, (0, width - len(wave))))
        return Samples(torch.stack(waves), (frames - known - 1) * HOP, self.media)

    def supervise(self, prompts: Sequence[Prompt], recordings: Samples) -> tuple[Tensor, Batch]:
        """Recordings behind the reference of each prompt, at their own length and at the level of the reference."""
        recordings = resample_samples(recordings, RATE)
        rows, states = [], []
        for index, prompt in enumerate(prompts):
            voice = self.encode(prompt, frames=1)
            gain = voice["gain"].to(recordings.data)
            mel = self.mel(recordings.row(index).detach().to(self.device) / gain)
            state = torch.cat([voice["reference"], mel], 1)
            rows.append(self.encode(prompt, frames=state.shape[1]))
            states.append(state)
        cond = self.batch(rows)
        _, width = self.state_shape(cond)
        return torch.stack([F.pad(state, (0, width - state.shape[1])) for state in states]), cond

    def export(self, path: Path) -> None:
        """Write the weights, adapters merged, as a model file that F5-TTS's own tools load."""
        write_model(path, self.network, self.network.config, {})
