"""One `rlzoo run` in a process of its own: the same command a user would type, with its figures written down.

python -m rlzoo.bench.worker RESULT ARGUMENT...     runs `rlzoo ARGUMENT...` and writes RESULT (JSON)
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(result: Path, arguments: Sequence[str]) -> int:
    """Run the command, write exit code, seconds and peak memory to `result`, return the exit code."""
    from rlzoo.cli import main as command

    started = time.monotonic()
    sys.argv = ["rlzoo", *arguments]
    try:
        command()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    figures = {"exit_code": code, "seconds": time.monotonic() - started, **peak_memory()}
    temporary = result.with_name(f".{result.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(figures) + "\n", encoding="utf-8")
    temporary.replace(result)
    return code


def logged(result: Path, arguments: Sequence[str], log: Path, threads: int) -> None:
    """`main` in a forked process, its output appended to `log`. Ends the process."""
    import torch

    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    torch.set_num_threads(threads)
    sys.exit(main(result, arguments))


def peak_memory() -> dict[str, Any]:
    """`memory_mb` of this process so far, and `gpu_memory_mb` (None without a GPU in use)."""
    import resource

    import torch

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    memory = size / 2**20 if sys.platform == "darwin" else size / 2**10
    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_initialized() else None
    return {"memory_mb": memory, "gpu_memory_mb": gpu}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
