"""A scorer in processes of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.errors import DataError
from rlzoo_remote import ProcessOptions
from rlzoo_remote.wire import Answer, answer, joined, pieces, request


class Worker:
    """One process that answers a line of JSON with a line. Its standard error is kept, to be quoted when it fails."""

    def __init__(self, command: Sequence[str], env: dict[str, str], timeout_seconds: float) -> None:
        self.command, self.timeout_seconds = list(command), timeout_seconds
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._who = f"the scorer '{self.command[0]}'"
        try:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env={**os.environ, **env},
                encoding="utf-8",
            )
        except OSError as error:
            self._log.close()
            raise DataError(f"{self._who} cannot be started: {error.strerror}", "check `command`") from error

    def ask(self, line: str, rows: int) -> Answer:
        """One request. DataError when the process ends or takes too long; it is killed then."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(self.timeout_seconds, stop)
        timer.start()
        try:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            # A process that ended may have said why before it did.
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()
            text = self._process.stdout.readline()
        finally:
            timer.cancel()
        if late.is_set():
            raise DataError(f"{self._who} did not answer within {self.timeout_seconds:g} s", "raise timeout_seconds")
        if not text:
            code = self._process.wait()
            raise DataError(f"{self._who} ended with exit code {code}: {self._last_words()}", "run it by hand")
        return answer(text, rows, self._who)

    def close(self) -> None:
        """End the process and wait for it."""
        for pipe in (self._process.stdin, self._process.stdout):
            # The process may have ended first; then there is nothing left to flush.
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return " / ".join(lines[-3:]) or "it wrote nothing to standard error"


class ProcessReward(Reward[ProcessOptions]):
    """Requests of `batch` rows go to `workers` processes in turn; the answers keep the order of the rows.

    The processes start with the first call and end with this object. Raises DataError where an answer cannot be had.
    """

    def __init__(self, options: ProcessOptions) -> None:
        super().__init__(options)
        self.sample_rate, self.version = options.sample_rate, options.scorer_version
        self._workers: list[Worker] = []
        self._pool = ThreadPoolExecutor(options.workers, thread_name_prefix="rlzoo-process")
        weakref.finalize(self, _finish, self._workers, self._pool)

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """N samples and prompts -> (N,). Not differentiable."""
        if not self._workers:
            self._start()
        parts = pieces(len(samples), self.options.batch)
        lines = [request(samples[rows], prompts[rows], "process") for rows in parts]
        sizes = [len(samples[rows]) for rows in parts]

        def serve(index: int) -> list[Answer]:
            turns = range(index, len(lines), len(self._workers))
            return [self._workers[index].ask(lines[turn], sizes[turn]) for turn in turns]

        try:
            served = list(self._pool.map(serve, range(len(self._workers))))
        except BaseException:
            # What a process answers next would belong to a request that nobody waits for.
            self.close()
            raise
        count = len(self._workers)
        answers = [served[turn % count][turn // count] for turn in range(len(lines))]
        return joined(answers, samples.data.device, "process")

    def close(self) -> None:
        """End the processes; the next call starts new ones."""
        while self._workers:
            self._workers.pop().close()

    def _start(self) -> None:
        o = self.options
        for _ in range(o.workers):
            self._workers.append(Worker(o.command, o.env, o.timeout_seconds))


def _finish(workers: list[Worker], pool: ThreadPoolExecutor) -> None:
    while workers:
        workers.pop().close()
    pool.shutdown(wait=False)
