"""WaveGrad 2 as a policy: N rows, P phonemes, T hidden frames, L = T·hop samples."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from rlzoo.api import Batch, Crop, GaussianDiffusionPolicy, Media, Prompt, Samples, Schedule
from rlzoo.functional import length_mask, masked_mean
from rlzoo.text import TextFrontend
from rlzoo_wavegrad2 import WaveGrad2Options, compiled, lora, windows
from rlzoo_wavegrad2.checkpoint import VOICES, load_maum_checkpoint
from rlzoo_wavegrad2.network import NetworkConfig, WaveGrad2Network
from rlzoo_wavegrad2.schedules import named_levels, to_schedule
from rlzoo_wavegrad2.supervise import supervise
from rlzoo_wavegrad2.symbols import PHONE_IDS

_LOG = logging.getLogger(__name__)
FADE_SECONDS = 0.01
SHIPPED = Path(__file__).with_name("voices") / "mini.safetensors"


def read_voice(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and description of a voice: our `.safetensors`, or a Lightning `.ckpt` of the public model."""
    if path.suffix == ".safetensors":
        return VOICES.load(path)
    state, public = load_maum_checkpoint(path)
    if public.assumed:
        # Wrong dilations or a wrong rate would not fail but sound wrong, so the user has to know.
        _LOG.warning(
            "'%s' does not hold its %s: the published values of the %s model are assumed",
            path,
            ", ".join(public.assumed),
            "large" if public.network.large else "base",
        )
    return state, {"network": public.network.model_dump(), "text": "cmu", "assumed": list(public.assumed)}


def has_silent_ends(card: Mapping[str, Any]) -> bool | None:
    """True if most recordings of the voice's corpus began and ended in `sil`; None: its card does not count phones."""
    phones, options = card.get("phones"), card.get("options")
    if not phones or not isinstance(phones, Mapping):
        return None
    if isinstance(options, Mapping) and options.get("trim_silence"):
        return False
    silences, sentences = phones.get("sil", 0), card.get("sentences", 0)
    return isinstance(silences, int) and isinstance(sentences, int) and silences > sentences


class WaveGrad2Policy(GaussianDiffusionPolicy):
    """Text in, waveform out; the chain runs over the whole utterance at the voice's rate."""

    loss_norm = "l1"

    def __init__(self, options: WaveGrad2Options) -> None:
        super().__init__()
        self.options = options
        self._trains = False  # see `_compiles`
        state, voice = read_voice(options.checkpoint or SHIPPED)
        self.config = NetworkConfig.model_validate(voice["network"])
        self.media = Media("audio", self.config.sample_rate)
        self.clip_clean = 1.0 if options.clip_clean else None
        self.tuned: dict[str, list[float]] = voice.get("schedules", {})
        self.card: dict[str, Any] = voice.get("card", {})
        self.frontend = TextFrontend(
            style=options.text or voice["text"],
            silence_ends=has_silent_ends(self.card),
            learnt=self.card.get("phones", ()),
        )
        self.network = WaveGrad2Network(self.config, init=False)
        self.network.load_state_dict(state)
        self.network.decoder.recompute = options.activation_checkpointing
        self.eval()
        self.requires_grad_(False)
        for name, parameter in self.network.decoder.named_parameters():
            parameter.requires_grad_(options.trainable != "biases" or name.endswith("bias"))
        if options.trainable == "lora":
            lora.adapt(self.network.decoder, options.lora_rank, options.lora_alpha, options.lora_layers)
        if options.trainable == "all":
            self.network.requires_grad_(True)
            # Durations are rounded to frames, so no reward can reach them; only their own loss could train them.
            self.network.resampling.duration_predictor.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.network.parameters()).device

    def condition(self, prompts: Sequence[Prompt]) -> Batch:
        """Tensors `ids` (B, P), `phones` (B,), `durations` (B, P) in frames, `frames` (B,), `hidden` (B, H, T).

        Each prompt is encoded by itself, so that no rounding of a duration can depend on its batch mates.

        Raises:
            DataError: a text with nothing to say, named.
        """
        return self.batch([self.encode(self.ids(prompt)) for prompt in prompts])

    def batch(self, rows: Sequence[Mapping[str, Tensor]]) -> Batch:
        """Result of `encode` for B texts -> the tensors of `condition`."""

        def pad(name: str) -> Tensor:
            return torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True)

        # Channels first in memory: else a row alone goes through another convolution than in training, and rounds
        # otherwise; in bfloat16 the first ratio was as far from 1 as a clip of 1e-4 allows.
        hidden = pad("hidden").transpose(1, 2).contiguous()
        count = torch.tensor([len(row["ids"]) for row in rows], device=self.device)
        frames = torch.tensor([len(row["hidden"]) for row in rows], device=self.device)
        tensors = {
            "ids": pad("ids"),
            "phones": count,
            "durations": pad("durations"),
            "frames": frames,
            "hidden": hidden,
        }
        return Batch(tensors)

    def supervise(self, prompts: Sequence[Prompt], recordings: Samples) -> tuple[Tensor, Batch]:
        """Recordings with their own phones and durations, from the corpus they belong to; see `supervise.py`."""
        return supervise(self, prompts, recordings)

    def ids(self, prompt: Prompt) -> Tensor:
        """(P,) rows of the embedding: the prompt's attribute "phones", else its text, spelled by the voice's habits."""
        return torch.tensor(self.frontend.rows(prompt, PHONE_IDS))

    @torch.no_grad()
    def encode(self, ids: Tensor, frames: Tensor | None = None) -> dict[str, Tensor]:
        """ids (P,), frames of each phone (P,), None: as planned -> `ids`, `durations` (P,) float32, `hidden` (T, H)."""
        row, lengths = ids[None].to(self.device), torch.tensor([len(ids)], device=self.device)
        encoded = self.network.encode(row, lengths)
        if frames is None:
            seconds = self.network.resampling.seconds(encoded, lengths)
            durations = self.network.frames(seconds, lengths, 1 / self.options.pace)
        else:
            durations = frames[None].to(self.device, torch.float32)
        hidden = self.network.resampling(encoded, durations, lengths)
        return {"ids": row[0], "durations": durations[0], "hidden": hidden[0].t()}

    def state_shape(self, cond: Batch) -> tuple[int, ...]:
        """`(L,)`, L the longest row's samples."""
        return (cond.get("hidden").shape[2] * self.config.hop,)

    def lengths(self, cond: Batch) -> Tensor:
        """(N,) samples of each row."""
        return cond.get("frames") * self.config.hop

    def mask(self, cond: Batch) -> Tensor | None:
        """(N, L), false behind a row's end; of a crop, true on its window."""
        (size,) = self.state_shape(cond)
        place = torch.arange(size, device=self.device)
        if "window" not in cond.tensors:
            return place < self.lengths(cond)[:, None]
        first, stop = (cond.get("window") * self.config.hop).unbind(1)
        return (place >= first[:, None]) & (place < stop[:, None])

    def trim(self, cond: Batch) -> Batch:
        """Cut to the longest row's frames and phones."""
        frames, phones = int(cond.get("frames").max()), int(cond.get("phones").max())
        cut = {
            "ids": cond.get("ids")[:, :phones],
            "durations": cond.get("durations")[:, :phones],
            "hidden": cond.get("hidden")[:, :, :frames],
        }
        return Batch({**cond.tensors, **cut})

    def frames(self, cond: Batch) -> Tensor:
        """(N,) hidden frames of each row."""
        return cond.get("frames")

    def crop(self, cond: Batch, first: Tensor, count: Tensor) -> tuple[Batch, Crop]:
        """Windows with as many frames around them as the denoiser sees; see `Policy.crop`."""
        return windows.crop(self.config, cond, first, count)

    def forward(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        """(N, L), noise levels sigma (N,) -> predicted noise (N, L), zero on padding."""
        # Adapters are added to their weights once per call and not wherever a weight is read. What is computed again
        # must find what it found: a block then adds its own, each time.
        again = self.options.activation_checkpointing and torch.is_grad_enabled()
        compiles = self._compiles(x_t)
        # A compiler sees what is added twice, and cannot look into a cache.
        with nullcontext() if again or compiles else parametrize.cached():
            return self._denoise(x_t, t, cond, compiles)

    def _compiles(self, x_t: Tensor) -> bool:
        if self.options.compile != "auto":
            return self.options.compile
        # A minute of compiling pays where there is training, and that begins with a gradient; not for some sentences.
        self._trains = self._trains or torch.is_grad_enabled()
        return self._trains and x_t.device.type == "cuda" and not self.options.activation_checkpointing

    def _denoise(self, x_t: Tensor, t: Tensor, cond: Batch, compiles: bool) -> Tensor:
        level = (1 - t.double() ** 2).sqrt().float()
        hidden = cond.get("hidden")
        if self.options.trainable == "all" and torch.is_grad_enabled():
            encoded = self.network.encode(cond.get("ids"), cond.get("phones"))
            hidden = self.network.resampling(encoded, cond.get("durations"), cond.get("phones"))
            if "start" in cond.tensors:
                hidden = Crop(cond.get("start"), cond.get("frames")).cut(hidden)
        if compiles:
            return compiled.denoise(self.network.decoder, x_t, hidden, level, cond.get("frames"))
        decoder = self.network.decoder
        denoise = decoder.row_by_row if x_t.device.type == "cpu" else decoder
        out: Tensor = denoise(x_t, hidden, level, cond.get("frames"))
        return out

    def schedule(self, num_steps: int | None = None) -> Schedule:
        """K steps of the schedule in the options; ConfigError for a K that a fixed schedule does not have."""
        return to_schedule(named_levels(self.options.schedule, num_steps or self.options.num_steps, self.tuned))

    def sample_times(self, uniform: Tensor) -> Tensor:
        """Published training distribution of noise levels, as sigma: uniform over the 1000-step schedule.

        That of every voice, also of one that was trained with `level_sampling="log-snr"`.
        """
        levels = to_schedule(named_levels("linear", 1000, {})).times.flip(0).to(uniform.device)  # sigma, clean first
        position = uniform.double() * (len(levels) - 1)
        index = position.long().clamp(max=len(levels) - 2)
        squares = 1 - levels**2
        low, high = squares[index].sqrt(), squares[index + 1].sqrt()
        level = low + (position - index) * (high - low)
        return (1 - level**2).sqrt().float()

    def decode(self, x: Tensor, cond: Batch) -> Samples:
        """(N, L) -> audio without offset, clamped to [-1, 1], faded in and out, at the voice's rate.

        The denoiser sees nothing beyond an utterance's ends, and few steps make a click of the last samples there. An
        offset is inaudible, but all biases move it alike: the noise of a policy gradient adds up there as nowhere else.
        """
        lengths, place = self.lengths(cond), torch.arange(x.shape[1], device=x.device)
        x = x - masked_mean(x, length_mask(lengths, x.shape[1]))[:, None]
        edge = torch.minimum(place, lengths[:, None] - 1 - place)
        fade = (edge / (FADE_SECONDS * self.config.sample_rate)).clamp(0, 1)
        return Samples(x.clamp(-1, 1) * fade, lengths, self.media)
