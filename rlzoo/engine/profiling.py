"""`rlzoo run --profile`: a trace of a few training steps."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rlzoo.engine.events import Event, Observer, Started, StepDone
from rlzoo.files.rundir import RunDirectory

if TYPE_CHECKING:
    from torch.profiler import profile

TRACE = "trace.json.gz"
_STEPS = 2


class Profile:
    """Observer that records two steps after the first one of this process; the only step where there is but one.

    The first step allocates and compiles, which would hide what the others do.
    """

    def __init__(self, directory: RunDirectory, then: Observer) -> None:
        self.directory, self.then = directory, then
        self.recording: profile | None = None
        self.written = False
        self._left = _STEPS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop()

    def __call__(self, event: Event) -> None:
        """Start or stop the recording, then pass the event on."""
        if isinstance(event, StepDone) and self.recording is not None:
            self._left -= 1
            if self._left == 0:
                self._stop()
        only = isinstance(event, Started) and event.steps - event.first_step == 1
        if (only or isinstance(event, StepDone)) and self.recording is None and not self.written:
            import torch
            from torch.profiler import ProfilerActivity, profile

            kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
            self.recording = profile(activities=kinds)
            self.recording.start()
        self.then(event)

    def _stop(self) -> None:
        recording, self.recording = self.recording, None
        if recording is None:
            return
        self.written = True
        recording.stop()
        with self.directory.writing(TRACE) as path:
            # The profiler compresses by the name's ending, which a temporary name lacks.
            whole = path.with_name(path.name + ".json.gz")
            recording.export_chrome_trace(str(whole))
            whole.replace(path)
