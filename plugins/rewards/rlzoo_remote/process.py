"""A scorer in processes of its own."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.errors import ConfigError, DataError
from rlzoo_remote import ProcessOptions
from rlzoo_remote.wire import MAX_ANSWER_BYTES, Answer, answer, joined, pieces, request

_LEASH = ("sh", "-c", "cat >/dev/null; kill -KILL 0")
"""Leads the process group, and ends it when its standard input does: when we close it, or die of whatever cause."""
_PATIENCE = 2.0
"""Seconds that a scorer has to end by itself once its standard input has ended."""
_QUOTED = 1 << 16


class Worker:
    """One process that answers a line of JSON with a line. Its standard error is kept, to be quoted when it fails.

    It and whatever it starts are a process group of their own, which ends as a whole.
    """

    def __init__(self, command: Sequence[str], env: dict[str, str], timeout_seconds: float) -> None:
        self.command, self.timeout_seconds = list(command), timeout_seconds
        self._who = f"the scorer '{self.command[0]}'"
        self._asked = 0
        self._rest = b""
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._leash = subprocess.Popen(_LEASH, stdin=subprocess.PIPE, process_group=0)
        try:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env={**os.environ, **env},
                bufsize=0,
                process_group=self._leash.pid,
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL, or `=` in the name of a variable
            self._end_group()
            self._log.close()
            if isinstance(error, ValueError):
                raise ConfigError(f"{self._who} cannot be started: {error}", "check `command` and `env`") from error
            raise DataError(f"{self._who} cannot be started: {error.strerror}", "check `command`") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        for pipe in (self._input, self._output):
            os.set_blocking(pipe.fileno(), False)

    def ask(self, samples: Samples, prompts: Sequence[Prompt]) -> Answer:
        """One request. DataError when the process ends or takes too long, ContractError for anything but its answer."""
        self._asked += 1
        line = request(samples, prompts, "process", self._asked)
        return answer(self._exchange(line.encode() + b"\n"), len(prompts), self._who, self._asked)

    def _exchange(self, line: bytes) -> bytes:
        """Write a line and read one, both before the deadline, however slowly bytes go."""
        deadline = time.monotonic() + self.timeout_seconds
        waiting = memoryview(line)
        read = bytearray(self._rest)
        with selectors.DefaultSelector() as selector:
            selector.register(self._input, selectors.EVENT_WRITE)
            selector.register(self._output, selectors.EVENT_READ)
            while b"\n" not in read:
                left = deadline - time.monotonic()
                ready = selector.select(left) if left > 0 else []
                if not ready:
                    raise DataError(
                        f"{self._who} did not answer within {self.timeout_seconds:g} s", "raise timeout_seconds"
                    )
                for key, _ in ready:
                    if key.fileobj is self._input:
                        waiting = self._written(waiting)
                        if not waiting:
                            selector.unregister(self._input)
                        continue
                    chunk = os.read(self._output.fileno(), 1 << 16)
                    if not chunk:
                        raise DataError(f"{self._who} {self._ended()}: {self._last_words()}", "run it by hand")
                    read += chunk
                    if len(read) > MAX_ANSWER_BYTES:
                        raise DataError(
                            f"{self._who} answered more than {MAX_ANSWER_BYTES >> 20} MiB", "run it by hand"
                        )
        found, _, self._rest = bytes(read).partition(b"\n")
        return found

    def _written(self, waiting: memoryview) -> memoryview:
        try:
            return waiting[os.write(self._input.fileno(), waiting) :]
        except BlockingIOError:
            return waiting
        except BrokenPipeError:
            return waiting[:0]  # it ended, and may have said why before it did

    def close(self) -> None:
        """Let the process end, then end it and all it started."""
        with contextlib.suppress(OSError):
            self._input.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        self._end_group()
        self._process.wait()
        self._output.close()
        self._log.close()

    def kill(self) -> None:
        """End the process and all it started at once."""
        self._end_group()
        self.close()

    def _end_group(self) -> None:
        # The group exists as long as its leader is not waited for, so that its number belongs to nobody else.
        if self._leash.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._leash.pid, signal.SIGKILL)
            assert self._leash.stdin is not None
            self._leash.stdin.close()
            self._leash.wait()

    def _ended(self) -> str:
        try:
            return f"ended with exit code {self._process.wait(_PATIENCE)}"
        except subprocess.TimeoutExpired:
            return "closed its standard output"

    def _last_words(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _QUOTED))
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return " / ".join(lines[-3:]) or "it wrote nothing to standard error"


class ProcessReward(Reward[ProcessOptions]):
    """Requests of `batch` rows go to `workers` processes in turn; the answers keep the order of the rows.

    The processes start with the first call and end with this object, or with this process. Raises DataError if an
    answer cannot be had, ContractError if it is none.
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
        count = len(self._workers)

        def serve(index: int) -> list[Answer]:
            turns = range(index, len(parts), count)
            return [self._workers[index].ask(samples[parts[turn]], prompts[parts[turn]]) for turn in turns]

        try:
            served = list(self._pool.map(serve, range(count)))
        except BaseException:
            # What a process answers next would belong to a request that nobody waits for.
            while self._workers:
                self._workers.pop().kill()
            raise
        answers = [served[turn % count][turn // count] for turn in range(len(parts))]
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
