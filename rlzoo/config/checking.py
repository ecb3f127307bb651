"""Tables against the options that they are meant for: everything that is wrong with them, in one error.

A problem is a message, which begins with the path of the key, and a hint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from rlzoo.config.registry import did_you_mean
from rlzoo.config.schema import CORE_TABLES
from rlzoo.core.specs import Options
from rlzoo.errors import ConfigError

T = TypeVar("T", bound=Options)


def check_options(model: type[T], values: Mapping[str, Any], where: str, *, missing: str = "") -> T:
    """Options from values. ConfigError with the path of the key, which starts with `where`; `missing` as `validate`."""
    problems: list[tuple[str, str]] = []
    options = validate(model, values, where, problems, missing=missing)
    raise_problems(problems)
    assert options is not None
    return absolute(options)


def change_options(table: T, changes: Mapping[str, Any], where: str) -> T:
    """A table with some values changed, checked again. ConfigError."""
    return check_options(type(table), {**table.model_dump(), **changes}, where)


def absolute(options: T) -> T:
    """Relative paths mean: relative to where the command ran. A run may be resumed from elsewhere."""
    paths = {k: v.expanduser().absolute() for k, v in options if isinstance(v, Path)}
    return options.model_copy(update=paths) if paths else options


def validate(
    model: type[T],
    table: Mapping[str, Any],
    where: str,
    problems: list[tuple[str, str]],
    also: type[Options] | None = None,
    defaults: Mapping[str, Any] | None = None,
    missing: str = "",
) -> T | None:
    """Validate one table and add each problem to `problems` as (message, hint).

    `defaults` replace the defaults of the model in hints, such as values that suit the policy of the run. `missing` is
    the hint for a value that is required, by default to give it with `--set`.
    """
    try:
        return model.model_validate(dict(table))
    except ValidationError as error:
        for problem in error.errors():
            text, hint = _explain(model, problem, where, also, defaults or {})
            problems.append((text, missing if missing and problem["type"] == "missing" else hint))
        return None


def _explain(
    model: type[Options], problem: Any, where: str, also: type[Options] | None, defaults: Mapping[str, Any]
) -> tuple[str, str]:
    loc = [str(part) for part in problem["loc"]]
    path = ".".join(([where] if where else []) + loc)
    if problem["type"] == "extra_forbidden":
        fields = [*_fields_at(model, loc[:-1]), *(also.model_fields if also else ())]
        return f"{path}: no such option", did_you_mean(loc[-1], fields) or _owner(loc[-1], fields)
    if problem["type"] == "missing":
        in_a_file = "'" in where  # of a suite: `--set` does not reach it
        return (
            f"{path}: a value is required",
            "write it into the file" if in_a_file else f"set it with --set {path}=...",
        )
    text = problem["msg"].removeprefix("Input ").removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    if not loc:  # about the table as a whole
        return f"{path}: {text}", ""
    field = _fields_at(model, loc[:-1]).get(loc[-1])
    default = defaults.get(loc[0]) if len(loc) == 1 else None
    if isinstance(problem["input"], float) and problem["input"] != problem["input"]:
        # NaN fails whichever bound is checked first, which says nothing of the cause.
        wanted = text if problem["type"] == "literal_error" else "should be a finite number"
        return f"{path}: {wanted}, and nan is not a number", _default(field, default)
    return f"{path}: {text}, not {_short(problem['input'])}", _default(field, default)


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a number of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _default(field: FieldInfo | None, instead: Any) -> str:
    if instead is not None:
        return f"the default is {instead!r}"
    if field is None or field.is_required() or field.default_factory is not None:
        return ""
    return "it may be left unset" if field.default is None else f"the default is {field.default!r}"


def _fields_at(model: type[BaseModel], loc: Sequence[str]) -> dict[str, FieldInfo]:
    for part in loc:
        inner = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return {}
        model = inner
    return model.model_fields


def _owner(key: str, fields: Sequence[str]) -> str:
    """Name the table of a misplaced key, or the keys allowed here."""
    for table, model in CORE_TABLES.items():
        if key in model.model_fields:
            return f"'{key}' belongs to [{table}]"
    return f"available: {', '.join(fields)}" if fields else "it takes no options"


def raise_problems(problems: list[tuple[str, str]]) -> None:
    """Raise ConfigError with all problems, (message, hint) each, if there are any."""
    if not problems:
        return
    if len(problems) == 1:
        raise ConfigError(f"invalid config: {problems[0][0]}", problems[0][1])
    lines = [f"  {text}" + (f"; {hint}" if hint else "") for text, hint in problems]
    raise ConfigError("invalid config:\n" + "\n".join(lines), "`rlzoo config schema NAME` lists what a plugin takes")
