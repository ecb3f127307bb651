"""A plain Python function as a reward: `--reward mymodule:function`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from rlzoo.plugin import Options, RewardSpec, hookimpl

_NAMED = re.compile(r"(?P<where>[^:]+):(?P<name>[A-Za-z_][A-Za-z0-9_.]*)")


def _absolute(text: str) -> str:
    """With the absolute path of a file: a run may be resumed from another folder."""
    found = _NAMED.fullmatch(text)
    if found is None:
        raise ValueError("write package.module:function, or path/to/file.py:function")
    where = found["where"]
    return f"{Path(where).expanduser().absolute()}:{found['name']}" if where.endswith(".py") else text


class FunctionOptions(Options):
    """The function, and the sample rate of the audio that it gets."""

    function: Annotated[str, AfterValidator(_absolute)]
    """`package.module:function` or `path/to/file.py:function`; called as `function(samples, prompts)`, it
    returns one number per sample."""
    sample_rate: Annotated[int, Field(ge=1_000, le=192_000)] | None = None
    """Rate in Hz to which audio is resampled; unset: the policy's rate."""


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    yield RewardSpec(
        name="function",
        summary="a plain Python function of yours",
        target="rlzoo_function.reward:NamedFunction",
        options=FunctionOptions,
        accepts=frozenset({"audio", "vector", "image"}),
        acts="import a module and call a function of it",
    )
