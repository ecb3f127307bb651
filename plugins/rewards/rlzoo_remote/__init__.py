"""Rewards that are computed elsewhere: behind a URL, or in worker processes with an environment of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, HttpUrl

from rlzoo.plugin import Options, RewardSpec, hookimpl


class SharedOptions(Options):
    """Options of both."""

    sample_rate: Annotated[int, Field(ge=1_000, le=192_000)] | None = None
    """Rate in Hz at which the scorer wants audio; none: as it comes, the rate is in the request."""
    batch: Annotated[int, Field(ge=1, le=4096)] = 16
    """Rows per request."""
    scorer_version: str = "1"
    """Part of the score cache's key: change it when the scorer's numbers change."""


class HTTPOptions(SharedOptions):
    """Address of the scorer, and its timeout."""

    url: HttpUrl
    """Takes a POST of JSON; see the README of this plugin."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """For one answer."""
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    """After a lost connection, a timeout, or the status 429, 500, 502, 503 or 504."""
    backoff_seconds: Annotated[float, Field(ge=0, le=60)] = 0.5
    """Pause before the first retry, doubled each time."""
    token_env: str = ""
    """Environment variable with a bearer token, so that no secret stands in a run file."""


class ProcessOptions(SharedOptions):
    """Program to start, number of processes, and environment."""

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    """Program and arguments that answer one line of JSON with one line; see the README of this plugin. For a registered
    reward in another environment: ["/env/bin/python", "-m", "rlzoo_remote.worker", "REWARD", "{options as JSON}"]."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes."""
    env: Annotated[dict[str, str], Field(default_factory=dict)]
    """Variables added to the environment of the processes, e.g. CUDA_VISIBLE_DEVICES."""
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    """For one answer, the first of which includes loading."""


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    yield RewardSpec(
        name="http",
        summary="scores from a service behind a URL, batched, with retries",
        target="rlzoo_remote.http:HTTPReward",
        options=HTTPOptions,
        acts="send audio and texts to an address",
    )
    yield RewardSpec(
        name="process",
        summary="scores from worker processes with an environment of their own",
        target="rlzoo_remote.process:ProcessReward",
        options=ProcessOptions,
        acts="start a program",
    )
