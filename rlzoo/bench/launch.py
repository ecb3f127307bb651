"""Launchers: processes of this machine, a Ray cluster, SLURM. All of them call `jobs.execute`. Light."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rlzoo.bench import worker
from rlzoo.bench.jobs import Attempt, Job, Outcome, execute, spawned
from rlzoo.errors import ConfigError, DataError, PluginError

RETRIES = 5
"""Number of times that Ray gives a run to another node when its own dies."""


@dataclass(frozen=True)
class Place:
    """Resources of a launcher."""

    jobs: int = 1
    """Runs at once; 0 leaves it to the cluster."""
    gpus: float = 0.0
    """GPUs of each run, where a scheduler has to know."""
    address: str = ""
    """Address of the Ray cluster; empty: one on this machine."""
    slurm: Mapping[str, str] = field(default_factory=dict)
    """Parameters of submitit, e.g. timeout_min, slurm_partition."""


Launcher = Callable[[Sequence[Job], Place], Iterator[Outcome]]


def local(jobs: Sequence[Job], place: Place) -> Iterator[Outcome]:
    """Up to `place.jobs` processes of this machine, forked from one that has torch loaded (that takes longer than a toy
    run); in fresh interpreters where the system cannot fork."""
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    with ThreadPoolExecutor(max(1, place.jobs)) as pool:
        run = partial(execute, attempt=_forking(jobs[0].threads) if forks and jobs else spawned)
        futures = [pool.submit(run, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            # Ctrl-C reaches the runs as well, and they save; what has not begun is left for the next time.
            for future in futures:
                future.cancel()
            raise


def _forking(threads: int) -> Attempt:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rlzoo.bench.worker", "rlzoo.engine.loop"])
    # The server inherits this once, when it starts, and OpenMP reads it once, when torch is loaded.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)

    def attempt(job: Job) -> int:
        process = context.Process(target=worker.forked, args=(job,), name=job.key)
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    return attempt


def ray(jobs: Sequence[Job], place: Place) -> Iterator[Outcome]:
    """A Ray task per run. The suite's folder must be on a file system that all nodes share.

    A task whose node dies is given to another, which continues the run from its last checkpoint.
    """
    engine = _extra("ray", "ray")
    if place.address:
        _answers(place.address)
        options: dict[str, Any] = {"address": place.address}
    else:
        options = {"num_cpus": max(1, place.jobs) * (jobs[0].threads if jobs else 1), "include_dashboard": False}
    try:
        engine.init(ignore_reinit_error=True, log_to_driver=False, **options)
    except Exception as error:  # Ray has no class for this: ConnectionError, RuntimeError, or Exception itself
        hint = "is the cluster up?" if place.address else "is this machine overloaded? --launcher local needs no Ray"
        raise DataError(f"Ray cannot be started: {error}", hint) from error
    needs: dict[str, Any] = {"num_gpus": place.gpus} if place.gpus else {}
    task = engine.remote(max_retries=RETRIES, **needs)(execute)
    waiting = {task.options(num_cpus=job.threads, name=job.key).remote(job): job for job in jobs}
    try:
        while waiting:
            ready, _ = engine.wait(list(waiting), num_returns=1)
            job = waiting.pop(ready[0])
            try:
                yield engine.get(ready[0])
            except engine.exceptions.RayError as error:
                raise DataError(f"run '{job.key}' was given up: {error}", "run the suite again to continue") from error
    finally:
        if not place.address:
            engine.shutdown()


def _answers(address: str) -> None:
    """DataError if nobody listens at HOST:PORT; Ray itself tries for minutes. Other forms, such as `auto`, pass."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise DataError(f"no Ray cluster answers at '{address}': {error}", "start one: ray start --head") from error


def slurm(jobs: Sequence[Job], place: Place) -> Iterator[Outcome]:
    """A SLURM job array through submitit, from a login node that sees the suite's folder.

    `place.slurm` goes to submitit under its own names (`timeout_min`, `slurm_partition` ...); the key `cluster` chooses
    `slurm` (default), or `local` to try the same path without a cluster.
    """
    submitit = _extra("submitit", "slurm")
    if not jobs:
        return
    given = dict(place.slurm)
    executor = submitit.AutoExecutor(folder=jobs[0].folder / "slurm", cluster=given.pop("cluster", "slurm"))
    parameters: dict[str, Any] = {key: int(text) if text.isdecimal() else text for key, text in given.items()}
    if place.gpus:
        parameters["gpus_per_node"] = int(place.gpus)
    if place.jobs:
        parameters["slurm_array_parallelism"] = place.jobs
    try:
        executor.update_parameters(name="rlzoo-bench", cpus_per_task=jobs[0].threads, **parameters)
    except (NameError, TypeError, AssertionError) as error:
        raise ConfigError(f"submitit does not take these parameters: {error}", "correct --slurm KEY=VALUE") from error
    waiting = dict(zip(executor.map_array(execute, jobs), jobs, strict=True))
    while waiting:
        for handle in [handle for handle in waiting if handle.done()]:
            job = waiting.pop(handle)
            failure = handle.exception()
            if failure is not None:
                raise DataError(f"run '{job.key}' was given up: {failure}", f"see {handle.paths.folder}") from failure
            yield handle.result()
        time.sleep(0.5)


def _extra(module: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PluginError(f"the launcher needs {module}: {error}", f"pip install 'rlzoo-speech[{extra}]'") from error


LAUNCHERS: Mapping[str, Launcher] = {"local": local, "ray": ray, "slurm": slurm}

__all__ = ["LAUNCHERS", "Launcher", "Place", "local", "ray", "slurm"]
