"""Rewards score what is sampled already while the rest is still being sampled.

For a GPU, where sampling leaves the host idle and one batch of rows may leave the chip half empty. The rewards run in a
thread with a stream of their own, in the very calls that they would get afterwards: no score changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

from rlzoo.core.types import Prompt, Samples
from rlzoo.engine import scoring


class ScorePrefetcher:
    """The scores of one rollout's N rows, `prompts` theirs; `device` is where they are sampled."""

    def __init__(
        self,
        scorers: Sequence[scoring.Scorer],
        prompts: Sequence[Prompt],
        micro_batch: int,
        failures: Path,
        device: torch.device,
    ) -> None:
        self._scorers, self._prompts, self._failures, self._device = scorers, prompts, failures, device
        self._calls = scoring.calls(prompts, micro_batch)
        self._found: dict[int, Samples] = {}
        self._scores: dict[int, Future[scoring.Scored]] = {}
        self._thread = ThreadPoolExecutor(1, "rewards")
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def add(self, rows: Sequence[int], samples: Samples) -> None:
        """Rows that were sampled just now, (n, ..., L). A call whose rows are all there is handed to the thread."""
        self._found |= {row: samples[place : place + 1].detach() for place, row in enumerate(rows)}
        sampled = torch.cuda.Event() if self._stream else None
        if sampled is not None:
            sampled.record(torch.cuda.current_stream(self._device))
        for index, call in enumerate(self._calls):
            if index not in self._scores and all(row in self._found for row in range(call.start, call.stop)):
                self._scores[index] = self._thread.submit(self._score, call, sampled)

    def result(self) -> scoring.Scored:
        """Scores of all rows, in their order; raises what a reward raised, as `scoring.score` does."""
        try:
            scored = scoring.join_scored([self._scores[index].result() for index in range(len(self._calls))])
        finally:
            self.close()
        if self._stream is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._stream)
            for values in scored.values:
                values.record_stream(current)
        return scored

    def close(self) -> None:
        """Finish the call at work and forget the others."""
        self._thread.shutdown(cancel_futures=True)

    def _score(self, call: slice, sampled: torch.cuda.Event | None) -> scoring.Scored:
        with torch.cuda.stream(self._stream) if self._stream else nullcontext(), torch.no_grad():
            if sampled is not None:
                sampled.wait()
            rows = [self._found[row] for row in range(call.start, call.stop)]
            data = pad_sequence([row.data[0].movedim(-1, 0) for row in rows], batch_first=True).movedim(1, -1)
            samples = Samples(data.contiguous(), torch.cat([row.lengths for row in rows]), rows[0].media)
            return scoring.score_call(self._scorers, samples, self._prompts[call], self._failures)
