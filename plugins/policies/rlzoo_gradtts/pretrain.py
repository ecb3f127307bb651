"""Train Grad-TTS on recorded speech, resumable: what `rlzoo.pretraining` needs to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rlzoo.api import Batch, Prompt
from rlzoo.corpus import SpeechCorpus, check_coverage
from rlzoo.errors import ConfigError
from rlzoo.pretraining.loop import OnStep, Task, choose_device, train
from rlzoo.pretraining.panel import Panel
from rlzoo_gradtts import GradTTSOptions, PretrainOptions
from rlzoo_gradtts.data import Utterance, crops, load_utterances
from rlzoo_gradtts.losses import Losses
from rlzoo_gradtts.network import GradTTSNetwork, NetworkConfig
from rlzoo_gradtts.policy import VOICES, GradTTSPolicy


class SpeechTask(Task):
    """A corpus, the network and its losses."""

    network: GradTTSNetwork
    trained: Losses
    voices = VOICES

    def __init__(self, data: Path, options: PretrainOptions) -> None:
        self.options = options
        weights, self.origin = start(options)
        self.config = NetworkConfig.model_validate(self.origin["network"])
        self.device = choose_device(options.device)
        self.panel = Panel(options.judges, self.device)
        self.corpus = self._open(data, "train")
        check_coverage(self.corpus, self.origin["text"])
        self.utterances = load_utterances(self.corpus, self.config)
        self.held_out = load_utterances(self._open(data, "validation")[: options.validation_utterances], self.config)
        torch.manual_seed(options.seed)
        self.network = GradTTSNetwork(self.config)
        if weights is not None:
            self.network.load_state_dict(weights)
        else:
            frames = sum(u.mel.shape[1] for u in self.utterances)
            total = torch.stack([u.mel.double().sum(1) for u in self.utterances]).sum(0)
            self.network.average.copy_(total / frames)
        self.trained = Losses(self.network).to(self.device)

    def _open(self, data: Path, split: str) -> SpeechCorpus:
        return SpeechCorpus.open(
            data, split=split, sample_rate=self.config.sample_rate, textgrids=self.options.textgrids
        )

    def losses(self, generator: torch.Generator, noise: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """One random crop of each of a few random utterances."""
        rows = torch.randint(len(self.utterances), (self.options.utterances_per_step,), generator=generator)
        batch = crops([self.utterances[row] for row in rows.tolist()], self.options.window_frames, generator)
        parts = self.trained(batch, noise)
        return torch.stack(list(parts.values())).sum(), parts

    def describe(self) -> dict[str, Any]:
        """See `Task.describe`."""
        return {**self.origin, "card": self.corpus.card}

    def validate(self, voice: Path, out: Path) -> dict[str, float]:
        """See `validate`."""
        policy = GradTTSPolicy(GradTTSOptions(checkpoint=voice, conditions=False)).to(self.device)
        return validate(policy, self.held_out, out, self.options.validation_steps, self.panel)


def start(options: PretrainOptions) -> tuple[dict[str, Tensor] | None, dict[str, Any]]:
    """With `init` the weights to start from, and what the voice will say of its network and its text."""
    if options.init is None:
        return None, {"network": NetworkConfig(channels=options.channels).model_dump(), "text": options.text_style}
    if "channels" in options.model_fields_set:
        raise ConfigError("channels and init are both set", "leave out channels: the voice in init has its own size")
    weights, voice = VOICES.load(options.init)
    text = options.text_style if "text_style" in options.model_fields_set else voice["text"]
    return weights, {"network": voice["network"], "text": text, "init": options.init.name}


@torch.no_grad()
def validate(
    policy: GradTTSPolicy, utterances: Sequence[Utterance], out: Path, steps: Sequence[int], panel: Panel
) -> dict[str, float]:
    """Metrics `validation/...` of a voice on recordings it has not seen, at their own durations and pitch.

    mel_K: mean |difference| of K-step log-mel spectra to the recordings', in nepers; K = mean: of the mean spectrum.
    NAME_K and NAME_recordings: what the judges say. Samples and what Griffin-Lim makes of the recordings go to `out`.
    """
    cond = policy.batch([policy.encode(u.ids, u.frames, u.log_pitch) for u in utterances])
    recorded = [u.mel.to(policy.device) for u in utterances]
    states = {"mean": torch.zeros(len(cond), *policy.state_shape(cond), device=policy.device)}
    states |= {str(num_steps): _sample(policy, cond, num_steps) for num_steps in steps}
    metrics: dict[str, float] = {}
    systems: dict[str, list[Tensor]] = {}
    for name, x in states.items():
        made = cond.get("mean") + policy.config.residual_scale * x[..., 1:]
        gaps = [(row[:, : mel.shape[1]] - mel).abs().mean() for row, mel in zip(made, recorded, strict=True)]
        metrics[f"mel_{name}"] = torch.stack(gaps).mean().item()
        samples = policy.decode(x, cond)
        systems[name] = [samples.row(row) for row in range(len(utterances))]
    systems["recordings"] = [policy.mel.invert(mel) for mel in recorded]
    prompts = [Prompt(u.id, u.text) for u in utterances]
    metrics |= panel.compare(systems, policy.config.sample_rate, prompts, out)
    return {f"validation/{name}": round(value, 5) for name, value in metrics.items()}


def _sample(policy: GradTTSPolicy, cond: Batch, num_steps: int) -> Tensor:
    """(N, M, 1 + T); a row's noise is always the same."""
    schedule, generators = policy.schedule(num_steps), [torch.Generator().manual_seed(row) for row in range(len(cond))]
    bands, _ = policy.state_shape(cond)
    sizes = policy.lengths(cond).tolist()

    def noise() -> Tensor:
        rows = [torch.randn(size, bands, generator=g) for size, g in zip(sizes, generators, strict=True)]
        return pad_sequence(rows, batch_first=True).transpose(1, 2).to(policy.device)

    x = noise()
    for k in range(len(schedule)):
        step = policy.transition(x, torch.full((len(x),), k, device=policy.device), cond, schedule)
        x = step.rsample(noise()) if schedule.stochastic[k] else step.mode
    return x


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
        ConfigError: `out` holds another run.
        DataError: what is wrong with the corpus or with the files in `out`.
        PluginError: pyworld is missing.
        Diverged, Interrupted: see `rlzoo.pretraining.loop.train`.
    """
    return train(lambda: SpeechTask(data, options), out, options, resume=resume, on_step=on_step)
