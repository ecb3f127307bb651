"""From events of a run to a run of Weights & Biases."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import wandb

from rlzoo.api import AudioSample, EndState, RunInfo, RunObserver
from rlzoo_wandb import WandbOptions


class WandbObserver(RunObserver[WandbOptions]):
    """Logs every metric, `heldout/<score>` and `heldout_gain/<score>`, some audio, and the configuration.

    The steps of Weights & Biases are the run's own. The id is kept in `wandb/id.txt` of the run directory, so that a
    resumed run goes on where it was.
    """

    run: Any

    def start(self, run: RunInfo) -> None:
        """Begin a run of Weights & Biases, or go on with this one's."""
        kept = run.directory / "wandb" / "id.txt"
        known = run.first_step > 0 and kept.is_file()
        name = kept.read_text(encoding="utf-8")[:64] if known else uuid.uuid4().hex[:8]
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(name, encoding="utf-8")
        self.run = wandb.init(
            project=self.options.project,
            entity=self.options.entity,
            mode="offline" if self.options.mode == "offline" else None,
            id=name,
            resume="allow" if known else None,
            name=run.directory.name,
            dir=str(run.directory),
            config=dict(run.config),
            settings=wandb.Settings(console="off"),  # the run's own lines stay in the terminal and in log.txt
        )

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Every metric under its own name."""
        self.run.log({name: value for name, value in metrics.items() if name != "step"}, step=step)

    def evaluation(self, step: int, scores: Mapping[str, Mapping[str, float]]) -> None:
        """The mean of each score, and its gain over the base."""
        self._played = 0
        means = {f"heldout/{name}": figures["mean"] for name, figures in scores.items()}
        gains = {f"heldout_gain/{name}": figures["gain"] for name, figures in scores.items() if "gain" in figures}
        self.run.log(means | gains, step=step)

    def audio(self, step: int, sample: AudioSample) -> None:
        """The first few samples of an evaluation."""
        if self._played < self.options.audio:
            self._played += 1
            clip = wandb.Audio(sample.wave.numpy(), sample_rate=sample.sample_rate, caption=sample.text)
            self.run.log({f"heldout/{sample.prompt}": clip}, step=step)

    def end(self, state: EndState) -> None:
        """Send what is left; a run that was interrupted or failed is marked so."""
        self.run.finish(exit_code=0 if state == "done" else 1)
