"""Checkpoints: written beside their final name and renamed, each with the sizes and hashes of its files.

    checkpoints/000100/policy.safetensors   weights to speak with (averaged ones, where the run averages)
                       algorithm.pt         what the algorithm keeps
                       engine.pt            optimiser, average, generators, prompt cursor, statistics, counters
                       DONE                 written last: the other files' sizes and SHA-256
    checkpoints/LATEST                      name of the newest

Everything loads with `weights_only`: a checkpoint is data and runs nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor, nn

from rlzoo.config.opening import open_run
from rlzoo.config.resolve import Choice
from rlzoo.core.algorithm import Algorithm
from rlzoo.core.policy import Policy
from rlzoo.engine.context import Context
from rlzoo.errors import DataError
from rlzoo.files.evaluations import steps_in
from rlzoo.files.reading import read_object
from rlzoo.files.rundir import RunDirectory
from rlzoo.files.safepickle import load_untrusted
from rlzoo.files.writing import discard, sweep

POLICY, ALGORITHM, ENGINE, DONE = "policy.safetensors", "algorithm.pt", "engine.pt", "DONE"
_FILES = {POLICY, ALGORITHM, ENGINE}


def name_of(step: int) -> str:
    """Directory name of a step in `checkpoints`, `samples` and `eval`."""
    return f"{step:06d}"


def save(rundir: RunDirectory, ctx: Context, algorithm: Algorithm[Any], keep: int) -> Path:
    """Write the checkpoint of `ctx.step`, then drop all but the newest `keep`. Call in one process only."""
    with ctx.optimisation.averaged():
        weights = portable(ctx.policy)
    engine = {
        **ctx.state_dict(),
        "starting": weights_digest(ctx.starting),
        "torch_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    # Through memory: torch and safetensors report a full disk as errors of their own, plain writes as an OSError.
    contents = {POLICY: serialise(weights), ALGORITHM: _to_bytes(algorithm.state_dict()), ENGINE: _to_bytes(engine)}
    name = name_of(ctx.step)
    with rundir.writing(f"checkpoints/{name}") as folder:
        _fill(folder, contents)
    tidy(rundir, keep)
    return rundir / f"checkpoints/{name}"


def tidy(rundir: RunDirectory, keep: int) -> None:
    """Name the newest checkpoint in `LATEST`, and drop all but the newest `keep` and what killed writes have left."""
    if (newest := latest(rundir)) is not None:
        rundir.write_text("checkpoints/LATEST", newest.name + "\n")
    for old in complete(rundir)[:-keep]:
        discard(old)
    sweep(rundir / "checkpoints")


def _fill(folder: Path, contents: Mapping[str, bytes]) -> None:
    folder.mkdir()
    stamps = {
        file: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for file, content in contents.items()
    }
    for file, content in {**contents, DONE: json.dumps(stamps, indent=2).encode()}.items():
        (folder / file).write_bytes(content)


def _to_bytes(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def complete(rundir: RunDirectory) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return [path.parent for _, path in steps_in(rundir / "checkpoints", f"[0-9]*/{DONE}")]


def latest(rundir: RunDirectory) -> Path | None:
    """The newest finished checkpoint."""
    return next(reversed(complete(rundir)), None)


def restore(folder: Path, ctx: Context, algorithm: Algorithm[Any]) -> None:
    """Bring context, policy and algorithm to a checkpoint. DataError if it is damaged or of another run."""
    _verify(folder)
    engine = _load(folder / ENGINE)
    if not isinstance(engine, dict) or "starting" not in engine:
        raise DataError(f"'{folder / ENGINE}' is no state of a run", _other(folder))
    if engine["starting"] != weights_digest(ctx.starting):
        raise DataError(
            "the policy's starting weights are not those the run was started with, so its reference is lost",
            "put the policy's checkpoint back to what it was",
        )
    _load_weights(ctx.policy, folder / POLICY)
    try:
        ctx.load_state_dict(engine)
        algorithm.load_state_dict(_load(folder / ALGORITHM))
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise DataError(
            f"'{folder}' does not fit this run: {type(error).__name__}: {error}",
            "resume with the version that wrote it",
        ) from error
    torch.set_rng_state(engine["torch_rng"])
    if torch.cuda.is_available() and len(engine["cuda_rng"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(engine["cuda_rng"])


def build_policy(choice: Choice[Any], seed: int) -> Policy:
    """Construct a policy; weights that are drawn then follow from `seed`, as in a run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy: Policy = choice.build()
    return policy


def load_policy(path: Path, *, start: bool = False, trust: bool = False) -> Policy:
    """The policy of a run directory (its newest checkpoint) or of one checkpoint in it, in eval mode on the CPU.

    `start`: as it was before the first step. `trust`: also where somebody else has made the directory and it names a
    program. Raises DataError if there is none, it is damaged, or the weights that the run started from are no longer
    what they were.
    """
    path = path.expanduser().absolute()
    inside = path.parent.name == "checkpoints"
    rundir = RunDirectory.open(path.parent.parent if inside else path)
    folder = path if inside else latest(rundir)
    if folder is None or not (folder / DONE).is_file():
        raise DataError(f"'{path}' has no finished checkpoint", "let the run reach its first checkpoint, or resume it")
    _verify(folder)
    run = open_run(rundir, uses=("policy",), trust=trust)
    policy = build_policy(run.policy, run.seed)
    if not start:
        _load_weights(policy, folder / POLICY)
    elif _started_from(folder) != weights_digest(portable(policy)):
        raise DataError(
            f"the weights that '{rundir.path}' started from have changed since: there is no start to compare it with",
            "put the policy's checkpoint back to what it was, or name a --base",
        )
    return policy.eval()


def _started_from(folder: Path) -> str:
    engine = load_untrusted(folder / ENGINE)
    return str(engine.get("starting", "")) if isinstance(engine, dict) else ""


def portable(module: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers as independent tensors on the CPU; tied ones are stored twice."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in module.state_dict().items()}


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_whole(path: Path, stamp: Any) -> bool:
    """True if a file is as `DONE` says. Its size comes first: what is a pipe, or far too large, is not read."""
    found = path.stat()
    if not (stat.S_ISREG(found.st_mode) and isinstance(stamp, dict) and stamp.get("bytes") == found.st_size):
        return False
    with path.open("rb") as file:
        return bool(stamp.get("sha256") == hashlib.file_digest(file, "sha256").hexdigest())


def _verify(folder: Path) -> None:
    stamps = read_object(folder / DONE, _other(folder))
    if stamps.keys() != _FILES:
        raise DataError(f"checkpoint '{folder}' is damaged: {DONE} does not list its files", _other(folder))
    try:
        damaged = [file for file in sorted(_FILES) if not _is_whole(folder / file, stamps[file])]
    except OSError as error:
        raise DataError(f"checkpoint '{folder}' is damaged: {error}", _other(folder)) from error
    if damaged:
        raise DataError(
            f"checkpoint '{folder}' is damaged: {', '.join(damaged)} is not as it was written", _other(folder)
        )


def _other(folder: Path) -> str:
    others = [path.parent.name for _, path in steps_in(folder.parent, f"[0-9]*/{DONE}") if path.parent != folder]
    return f"delete it to go on from {others[-1]}" if others else "start the run again; there is no other checkpoint"


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler checks little: a damaged file fails in any way that Python knows
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataError(f"cannot read '{path}': {reason}", _other(path.parent)) from error


def _load_weights(policy: Policy, path: Path) -> None:
    try:
        policy.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"'{path}' does not fit the policy: {reason}", "was it made with other policy options?"
        ) from error
