"""From events of a run to TensorBoard's event files."""

from __future__ import annotations

import json
from collections.abc import Mapping

from torch.utils.tensorboard import SummaryWriter

from rlzoo.api import AudioSample, EndState, RunInfo, RunObserver
from rlzoo_tensorboard import TensorBoardOptions

FLUSH_SECONDS = 10
"""How much of the log a killed run may lose."""


class TensorBoardObserver(RunObserver[TensorBoardOptions]):
    """Writes every metric, `heldout/<score>` and `heldout_gain/<score>`, some audio, and the configuration as text."""

    writer: SummaryWriter

    def start(self, run: RunInfo) -> None:
        """Open an event file. What a killed run logged after the step that it resumes from is hidden."""
        folder = self.options.folder or run.directory / "tensorboard"
        purge = run.first_step + 1 if run.first_step else None
        self.writer = SummaryWriter(str(folder), purge_step=purge, flush_secs=FLUSH_SECONDS)
        if not run.first_step:
            self.writer.add_text("config", f"```json\n{json.dumps(run.config, indent=2, default=str)}\n```", 0)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Every metric under its own name."""
        for name, value in metrics.items():
            if name != "step":
                self.writer.add_scalar(name, value, step)

    def evaluation(self, step: int, scores: Mapping[str, Mapping[str, float]]) -> None:
        """The mean of each score, and its gain over the base."""
        self._played = 0
        for name, figures in scores.items():
            self.writer.add_scalar(f"heldout/{name}", figures["mean"], step)
            if "gain" in figures:
                self.writer.add_scalar(f"heldout_gain/{name}", figures["gain"], step)

    def audio(self, step: int, sample: AudioSample) -> None:
        """The first few samples of an evaluation: one player per prompt, with a slider over steps."""
        if self._played < self.options.audio:
            self._played += 1
            self.writer.add_audio(f"heldout/{sample.prompt}", sample.wave, step, sample.sample_rate)

    def end(self, state: EndState) -> None:
        """Write what is left."""
        self.writer.add_text("state", state)
        self.writer.close()
