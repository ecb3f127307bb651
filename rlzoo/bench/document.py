"""What a document of results holds, for readers of one that may come from somewhere else. Light."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlzoo.files.reading import Shape

Count = Annotated[int, Field(ge=0, le=10**12)]
Number = Annotated[float, Field(ge=-1e100, le=1e100)]
"""A finite number whose square is one, too."""


class _Point(Shape):
    step: Count
    scores: dict[str, Number]
    used: dict[str, Number]
    kl: Number | None


class _Prompts(Shape):
    names: Annotated[list[str], Field(min_length=1)]
    base: dict[str, list[Number]]
    tuned: dict[str, list[Number]]

    @model_validator(mode="after")
    def _fit(self) -> Self:
        for scores in (*self.base.values(), *self.tuned.values()):
            if len(scores) != len(self.names):
                raise ValueError(f"{len(scores)} scores of {len(self.names)} prompts")
        if self.base.keys() != self.tuned.keys():
            raise ValueError("base and tuned have different scores")
        return self


class _Cell(Shape):
    algorithm: str
    reward: str
    seed: int
    state: Literal["done", "diverged"]
    steps: Count
    curve: Annotated[list[_Point], Field(min_length=1)]
    counted: Count
    prompts: _Prompts
    used: dict[str, Number]
    wall_seconds: Number | None
    memory_mb: Number | None
    gpu_memory_mb: Number | None
    spread: dict[str, Number]

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.counted >= len(self.curve):
            raise ValueError(f"evaluation {self.counted} counts, of {len(self.curve)}")
        names = self.prompts.base.keys()
        for place in (*(point.scores for point in self.curve), self.spread):
            if place.keys() != names:
                raise ValueError(f"scores {sorted(place)} beside scores {sorted(names)} of the prompts")
        return self


class _Term(Shape):
    name: str
    weight: Number


class _Reward(Shape):
    label: str
    terms: Annotated[list[_Term], Field(min_length=1)]
    optimum: Number | None


class _Algorithm(Shape):
    label: str
    name: str
    search_trials: Count


class _Suite(Shape):
    name: str
    summary: str
    seeds: list[int]
    headline: str
    budget: Annotated[dict[str, Number], Field(min_length=1)]
    threads: Count
    algorithms: list[_Algorithm]
    rewards: list[_Reward]


class _Origin(Shape):
    commits: list[str]
    machines: list[str]
    python: list[str]
    packages: dict[str, list[str]]


class _LeftOut(Shape):
    run: str
    reason: str


class _Named(Shape):
    name: str


class _Config(Shape):
    algorithm: _Named
    rewards: list[_Named]


class _Clip(Shape):
    system: str
    data: str


class _Heard(Shape):
    prompt: str
    text: str
    clips: list[_Clip]


class _Audio(Shape):
    seed: int
    prompts: list[_Heard]


class Results(Shape):
    """The whole document; what names something else in it names something that is there."""

    rlzoo: str
    suite: _Suite
    origin: _Origin
    configs: dict[str, _Config]
    cells: Annotated[list[_Cell], Field(min_length=1)]
    missing: list[str]
    left_out: list[_LeftOut]
    audio: dict[str, _Audio]

    @model_validator(mode="after")
    def _fit(self) -> Self:
        algorithms = {entry.label for entry in self.suite.algorithms}
        rewards = {entry.label for entry in self.suite.rewards}
        limits, used = self.suite.budget.keys(), self.cells[0].used.keys()
        for number, cell in enumerate(self.cells):
            where = f"cells.{number}"
            if cell.algorithm not in algorithms or cell.reward not in rewards:
                raise ValueError(f"{where} is {cell.algorithm} on {cell.reward}, which the suite lacks")
            if f"{cell.algorithm}--{cell.reward}" not in self.configs:
                raise ValueError(f"{where} has no entry in configs")
            spent = (cell.used, *(point.used for point in cell.curve))
            if not all(one.keys() == used >= limits for one in spent):
                raise ValueError(f"{where} does not tell how much of the budget it used, or not as the others do")
            if self.suite.headline not in cell.prompts.base:
                raise ValueError(f"{where} lacks the headline score '{self.suite.headline}'")
        return self


__all__ = ["Results"]
