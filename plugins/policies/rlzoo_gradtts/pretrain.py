"""Train Grad-TTS on recorded speech, resumable: what `rlzoo.pretraining` needs to know of it."""

from __future__ import annotations

import math
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
from rlzoo_gradtts.policy import SHIPPED, VOICES, GradTTSPolicy


class SpeechTask(Task):
    """A corpus, the network and its losses."""

    network: GradTTSNetwork
    trained: Losses
    voices = VOICES

    def __init__(self, data: Path, options: PretrainOptions) -> None:
        self.options = options
        mean_steps(options)
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
        self.trained = Losses(self.network, mean_steps(options)).to(self.device)

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
        policy = GradTTSPolicy(GradTTSOptions(checkpoint=voice, temperature=1.0)).to(self.device)
        return validate(policy, self.held_out, out, self.options.validation_steps, self.panel)


def mean_steps(options: PretrainOptions) -> int:
    """Steps before the chain is trained; none for a voice that goes on from another unless the options say so.

    Raises:
        ConfigError: no step would train the chain.
    """
    if options.init is not None and "mean_steps" not in options.model_fields_set:
        return 0
    if options.mean_steps >= options.steps:
        raise ConfigError(
            f"steps is {options.steps} and mean_steps {options.mean_steps}: no step would train the denoisers",
            "set mean_steps below steps, to about half of them",
        )
    return options.mean_steps


def start(options: PretrainOptions) -> tuple[dict[str, Tensor] | None, dict[str, Any]]:
    """With `init` the weights to start from, and what the voice will say of its network and its text."""
    if options.init is None:
        return None, {
            "network": NetworkConfig(channels=options.channels, style=options.style_numbers).model_dump(),
            "text": options.text_style,
        }
    for name in ("channels", "style_numbers"):
        if name in options.model_fields_set:
            raise ConfigError(f"{name} and init are both set", f"leave out {name}: the voice in init has its own size")
    path = SHIPPED if options.init == "shipped" else Path(options.init)
    weights, voice = VOICES.load(path)
    text = options.text_style if "text_style" in options.model_fields_set else voice["text"]
    return weights, {"network": voice["network"], "text": text, "init": path.name}


@torch.no_grad()
def validate(
    policy: GradTTSPolicy, utterances: Sequence[Utterance], out: Path, steps: Sequence[int], panel: Panel
) -> dict[str, float]:
    """Metrics `validation/...` of a voice on recordings it has not seen, at their own durations and pitch.

    mel_K: mean |difference| of K-step log-mel spectra to the recordings', in nepers; K = mean: of the mean spectrum.
    NAME_K and NAME_recordings: what the judges say. Samples and what Griffin-Lim makes of the recordings go to `out`.
    """
    rows = [policy.encode(u.ids, u.frames, u.contour) for u in utterances]
    cond = policy.batch(rows)
    pairs = zip(utterances, rows, strict=True)
    recorded = [policy.to_state(u.mel.to(policy.device), row).t() for u, row in pairs]
    mean = pad_sequence(recorded, batch_first=True).transpose(1, 2).contiguous()
    styles = mean[:, : policy.config.style, 0]
    mean[..., 1:] = 0
    states = {"mean": mean} | {str(num_steps): _sample(policy, cond, num_steps, styles) for num_steps in steps}
    metrics: dict[str, float] = {}
    systems: dict[str, list[Tensor]] = {}
    for name, x in states.items():
        made = policy.spectra(x, cond)
        gaps = [
            (row[:, : u.mel.shape[1]] - u.mel.to(row)).abs().mean() for row, u in zip(made, utterances, strict=True)
        ]
        metrics[f"mel_{name}"] = torch.stack(gaps).mean().item()
        samples = policy.decode(x, cond)
        systems[name] = [samples.row(row) for row in range(len(utterances))]
    systems["recordings"] = [policy.mel.invert(u.mel.to(policy.device)) for u in utterances]
    prompts = [Prompt(u.id, u.text) for u in utterances]
    metrics |= panel.compare(systems, policy.config.sample_rate, prompts, out)
    return {f"validation/{name}": round(value, 5) for name, value in metrics.items()}


def _sample(policy: GradTTSPolicy, cond: Batch, num_steps: int, styles: Tensor) -> Tensor:
    """(N, M, 1 + T) in the given styles (N, Z); a row's noise is always the same."""
    schedule, generators = policy.schedule(num_steps), [torch.Generator().manual_seed(row) for row in range(len(cond))]
    bands, _ = policy.state_shape(cond)
    sizes = policy.lengths(cond).tolist()

    def noise() -> Tensor:
        rows = [torch.randn(size, bands, generator=g) for size, g in zip(sizes, generators, strict=True)]
        return pad_sequence(rows, batch_first=True).transpose(1, 2).to(policy.device)

    x, size = noise(), policy.config.style
    for k in range(len(schedule)):
        sigma = float(schedule.times[k])
        x[:, :size, 0] = math.sqrt(1 - sigma**2) * styles + sigma * noise()[:, :size, 0]
        step = policy.transition(x, torch.full((len(x),), k, device=policy.device), cond, schedule)
        x = step.rsample(noise()) if schedule.stochastic[k] else step.mode
    x[:, :size, 0] = styles
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
