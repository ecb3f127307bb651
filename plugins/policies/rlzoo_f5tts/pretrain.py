"""Train F5-TTS on recordings, resumable: the flow-matching loss of masked infilling (Chen et al., arXiv:2410.06885).

A recording's spectrum loses a random stretch. The network learns the velocity from noise to data in that stretch, from
what is left of the spectrum and the text of the whole recording. Phone times are not needed.

**N** rows, **L** frames of the longest row, **M** mel bands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rlzoo.api import Prompt, Schedule
from rlzoo.audio import read_audio, resample
from rlzoo.corpus import read_metadata, recordings_in
from rlzoo.errors import DataError
from rlzoo.functional import length_mask
from rlzoo.pretraining.loop import OnStep, Task, choose_device, train
from rlzoo.pretraining.panel import Panel
from rlzoo.voices import VoiceFormat
from rlzoo_f5tts import F5TTSOptions, PretrainOptions
from rlzoo_f5tts.checkpoint import read_model, write_weights
from rlzoo_f5tts.mel import FFT, RATE, Mel
from rlzoo_f5tts.network import DiT, DiTConfig
from rlzoo_f5tts.policy import F5TTSPolicy
from rlzoo_f5tts.text import read_vocabulary, to_rows, to_tokens
from rlzoo_f5tts.voice import LEVEL, trimmed

MASKED = (0.7, 1.0)
"""Share of a recording's frames in the stretch that is learned, drawn uniformly between these."""
NO_AUDIO, NO_TEXT = 0.3, 0.2
"""Share of rows that are not shown the frames around it, and of rows that are shown neither those nor the text: what
guidance needs."""


@dataclass(frozen=True)
class Recording:
    """A recording and what is said in it."""

    id: str
    wav: Path
    text: str


@dataclass(frozen=True)
class Published(VoiceFormat[DiTConfig]):
    """Voices of f5tts are model files of F5-TTS; `entries` of the vocabulary go beside them."""

    entries: tuple[str, ...] = ()

    def save(
        self, path: str | Path, state: Mapping[str, Tensor], description: Mapping[str, Any], *, half: bool = False
    ) -> None:
        """See `VoiceFormat.save`."""
        config = DiTConfig.model_validate(description["network"])
        weights = {name: value.half() if half and value.dim() > 1 else value for name, value in state.items()}
        write_weights(Path(path), weights, config, {**description, **description["card"]})
        Path(path).with_name("vocab.txt").write_text("".join(f"{entry}\n" for entry in self.entries), encoding="utf-8")


class InfillingTask(Task):
    """Recordings, the network, and the loss on a stretch of them."""

    network: DiT
    trained: DiT

    def __init__(self, data: Path, options: PretrainOptions) -> None:
        self.options, self.device = options, choose_device(options.device)
        self.panel = Panel(options.judges, self.device)
        recordings = read_recordings(data)
        count = options.validation_utterances
        if len(recordings) < count + 2:
            raise DataError(f"'{data}' has {len(recordings)} recordings", f"{count} are held out, and one is the voice")
        self.recordings, self.held_out = recordings[: -count - 1], recordings[-count - 1 :]
        self.vocabulary = vocabulary(options, self.recordings)
        self.voices = Published("f5tts", DiTConfig, DiT, tuple(self.vocabulary))
        torch.manual_seed(options.seed)
        self.network = self._network().to(self.device)
        self.trained = self.network
        self.mel, self._spectra = Mel(), dict[str, Tensor]()

    def _network(self) -> DiT:
        o = self.options
        if o.init is not None:
            network = read_model(o.init)
            if network.config.vocabulary != len(self.vocabulary):
                raise DataError(
                    f"'{o.init}' knows {network.config.vocabulary} characters, its vocabulary has "
                    f"{len(self.vocabulary)}",
                    "name the vocab.txt that came with it: vocabulary",
                )
            return network
        sizes = {"dim": o.dim, "depth": o.depth, "heads": o.heads, "ff": 2 * o.dim}
        text = {"text_dim": o.text_dim, "text_blocks": o.text_blocks, "text_ff": 2 * o.text_dim}
        return DiT(DiTConfig(**sizes, **text, vocabulary=len(self.vocabulary)))

    def spectrum(self, recording: Recording) -> Tensor:
        """(L, M) log-mel of a recording as a reference would be: ends cut, quiet ones raised. Kept in memory."""
        if recording.id not in self._spectra:
            wave, rate = read_audio(recording.wav)
            wave = trimmed(wave, rate)
            level = float(wave.square().mean().sqrt())
            wave = resample(wave / min(1.0, max(level, 1e-6) / LEVEL), rate, RATE)
            if len(wave) < FFT:
                raise DataError(f"'{recording.wav}' lasts {len(wave) / RATE:.2f} s", "take its line out of the list")
            self._spectra[recording.id] = self.mel(wave).t().contiguous()
        return self._spectra[recording.id]

    def losses(self, generator: torch.Generator, noise: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Of a few random recordings."""
        rows = torch.randint(len(self.recordings), (self.options.utterances_per_step,), generator=generator)
        loss = self.loss([self.recordings[row] for row in rows.tolist()], generator, noise)
        return loss, {"flow": loss}

    def loss(self, recordings: Sequence[Recording], generator: torch.Generator, noise: torch.Generator) -> Tensor:
        """Mean squared error of the velocity in the stretch that is masked, a scalar."""
        spectra = [self.spectrum(recording) for recording in recordings]
        texts = [to_rows(recording.text, self.vocabulary) for recording in recordings]
        count, frames = len(recordings), torch.tensor([len(spectrum) for spectrum in spectra])
        x = pad_sequence(spectra, batch_first=True)
        text = torch.zeros(x.shape[:2], dtype=torch.int64)
        for row, (ids, size) in enumerate(zip(texts, frames.tolist(), strict=True)):
            text[row, : min(len(ids), size)] = ids[:size]
        stretch = masked_stretch(frames, x.shape[1], generator)
        told_audio, told_text = told(count, generator)
        t = torch.rand(count, generator=generator)
        moved = (x, text, stretch, told_audio, told_text, t, length_mask(frames, x.shape[1]))
        x, text, stretch, told_audio, told_text, t, own = (part.to(self.device) for part in moved)
        start = torch.randn(x.shape, generator=noise, device=self.device)
        x_t = (1 - t)[:, None, None] * start + t[:, None, None] * x
        reference = x * (~stretch & told_audio[:, None])[..., None]
        velocity = self.network(x_t * own[..., None], reference, text, t, own, ~told_text)
        loss: Tensor = (velocity - (x - start)).square()[stretch].mean()
        return loss

    def describe(self) -> dict[str, Any]:
        """See `Task.describe`."""
        return {"network": self.network.config.model_dump(), "card": {"sentences": len(self.recordings)}}

    @torch.no_grad()
    def validate(self, voice: Path, out: Path) -> dict[str, float]:
        """`flow`: the loss of the averaged weights on held-out recordings; then the judges, of their texts spoken in
        the voice of the first of them, and of the recordings."""
        reference, *others = self.held_out
        policy = F5TTSPolicy(
            F5TTSOptions(checkpoint=voice, vocoder="griffin-lim", voice=reference.wav, voice_text=reference.text)
        ).to(self.device)
        trained, self.network = self.network, policy.network
        draws = torch.Generator().manual_seed(1), torch.Generator(self.device).manual_seed(1)
        metrics = {"flow": float(torch.stack([self.loss(self.held_out, *draws) for _ in range(4)]).mean())}
        self.network = trained
        prompts = [Prompt(other.id, other.text) for other in others]
        said = [speak(policy, prompt, self.options.validation_steps) for prompt in prompts]
        recorded = [resample(*read_audio(other.wav), RATE) for other in others]
        metrics |= self.panel.compare({"f5tts": said, "recordings": recorded}, RATE, prompts, out)
        return {f"validation/{name}": round(value, 5) for name, value in metrics.items()}


def read_recordings(data: Path) -> list[Recording]:
    """metadata.csv and wavs/ of a corpus in LJSpeech's layout, in the order of the list.

    Raises:
        DataError: no such files, or a recording that is missing.
    """
    texts = read_metadata(data / "metadata.csv").texts
    if not (data / "wavs").is_dir():
        raise DataError(f"'{data}' has no folder wavs", "put the recordings there, ID.wav for each line's id")
    files = recordings_in(data / "wavs")
    if missing := [name for name in texts if name not in files]:
        raise DataError(
            f"'{data / 'wavs'}' lacks {len(missing)} recordings of metadata.csv, the first is '{missing[0]}'",
            "take their lines out of metadata.csv",
        )
    return [Recording(name, files[name], text) for name, text in texts.items()]


def vocabulary(options: PretrainOptions, recordings: Sequence[Recording]) -> dict[str, int]:
    """{entry: row} of the options' file, of the one beside `init`, or of the characters of the texts."""
    path = options.vocabulary or (options.init.with_name("vocab.txt") if options.init is not None else None)
    if path is not None:
        return read_vocabulary(path)
    entries = sorted({token for recording in recordings for token in to_tokens(recording.text)} - {" "})
    return {entry: row for row, entry in enumerate([" ", *entries])}


def masked_stretch(frames: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """(N,) frames of rows -> (N, `width`) bool, one run of MASKED of each row, anywhere in it, a frame at least."""
    low, high = MASKED
    share, place = torch.rand(2, len(frames), generator=generator, dtype=torch.float64)
    size = ((low + (high - low) * share) * frames).long().clamp(min=1)
    first = (place * (frames - size + 1)).long()
    frame = torch.arange(width)
    inside: Tensor = (frame >= first[:, None]) & (frame < (first + size)[:, None])
    return inside


def told(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which rows are shown the frames around the stretch, and which the text, (N,) bool each."""
    audio, text = torch.rand(2, count, generator=generator)
    return (audio >= NO_AUDIO) & (text >= NO_TEXT), text >= NO_TEXT


def speak(policy: F5TTSPolicy, prompt: Prompt, steps: int) -> Tensor:
    """(L,) without noise between the first state and the last; the same each time."""
    cond, times = policy.condition([prompt]), policy.schedule(steps).times
    fixed = Schedule(times, torch.zeros(steps, dtype=torch.bool))
    noise = torch.randn(policy.state_shape(cond), generator=torch.Generator().manual_seed(0))
    x = noise[None].to(policy.device)
    for k in range(steps):
        x = policy.transition(x, torch.tensor([k], device=policy.device), cond, fixed).mode
    return policy.decode(x, cond).row(0)


def pretrain(
    data: Path,
    out: Path,
    options: PretrainOptions,
    *,
    resume: bool = False,
    on_step: OnStep = lambda row: None,
) -> Path:
    """Train until the budget is used up; writes `train.pt` (to resume), `voice.safetensors` and `vocab.txt` into `out`.

    Raises:
        ConfigError: `out` holds another run.
        DataError: what is wrong with the recordings, with `init`, or with the files in `out`.
        Diverged, Interrupted: see `rlzoo.pretraining.loop.train`.
    """
    return train(lambda: InfillingTask(data, options), out, options, resume=resume, on_step=on_step)
