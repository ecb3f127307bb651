"""The JSON that both rewards speak; see the README of this plugin."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from rlzoo.api import Prompt, Samples, Scores
from rlzoo.audio import require_rate
from rlzoo.errors import ContractError, DataError

MAX_ANSWER_BYTES = 16 << 20
"""Largest answer in bytes; a longer one does not come from a scorer."""


class Answer(BaseModel):
    """Answer of a scorer for R rows: R scores and R of each part, or an error; `id` is the request's."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    id: int | None = None
    scores: list[float] = []
    parts: dict[str, list[float]] = {}
    error: str = ""


def request(samples: Samples, prompts: Sequence[Prompt], who: str, number: int) -> str:
    """R rows as one line of JSON; `number` is its `id`."""
    rate = require_rate(samples, None, who)
    data = samples.data.detach().to("cpu", torch.float32)
    rows = []
    for row, prompt in enumerate(prompts):
        wave = data[row, : int(samples.lengths[row])].numpy().astype("<f4")
        audio = base64.b64encode(wave.tobytes()).decode("ascii")
        rows.append({"id": prompt.id, "text": prompt.text, "attributes": dict(prompt.attributes), "audio": audio})
    return json.dumps({"id": number, "sample_rate": rate, "rows": rows})


def answer(text: bytes, rows: int, who: str, number: int) -> Answer:
    """Checked: DataError for an error of the scorer's own, ContractError for anything but `rows` finite numbers.

    The answer says which request it is to, so that one line too many is never taken for the next answer.
    """
    try:
        found = Answer.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ContractError(
            f"{who} answered something else than scores ({where}: {problem['msg']}): {text[:200]!r}",
            'the answer is {"id": ..., "scores": [...]}, one finite number per row',
        ) from error
    if found.error:
        raise DataError(f"{who} failed: {found.error}", "look at the scorer's own log")
    if found.id != number:
        said = "without an `id`" if found.id is None else f"to request {found.id}"
        raise ContractError(
            f"{who} gave an answer {said} to request {number}: {text[:200]!r}",
            'answer each request once, with its `id`: {"id": ..., "scores": [...]}',
        )
    for name, values in {"scores": found.scores, **found.parts}.items():
        if len(values) != rows:
            raise ContractError(
                f"{who} answered {len(values)} '{name}' for {rows} rows", "one number per row, in order"
            )
    return found


def joined(answers: Sequence[Answer], device: torch.device, who: str) -> Scores:
    """The answers to consecutive requests, as one."""
    names = [set(part.parts) for part in answers]
    if any(found != names[0] for found in names):
        raise ContractError(f"{who} answered different parts from request to request", "always answer the same parts")

    def column(values: list[list[float]]) -> torch.Tensor:
        return torch.tensor([value for piece in values for value in piece], dtype=torch.float32, device=device)

    parts = {name: column([part.parts[name] for part in answers]) for name in sorted(names[0])}
    return Scores(column([part.scores for part in answers]), parts)


def pieces(count: int, size: int) -> list[slice]:
    """Slices of at most `size` rows."""
    return [slice(start, start + size) for start in range(0, count, size)]
