"""Writing TOML (the standard library only reads it): plain values, tables, arrays of tables. Light."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def dumps(data: Mapping[str, Any]) -> str:
    """A nested mapping of TOML values as text that `tomllib` reads back equal; None is left out."""
    return "\n".join(_table(data, ())).strip() + "\n"


def value(x: Any) -> str:
    """One value in TOML, on one line."""
    if isinstance(x, bool):
        return "true" if x else "false"
    if isinstance(x, int):
        return str(x)
    if isinstance(x, float):
        return repr(x)  # TOML writes nan, inf and exponents as Python does
    if isinstance(x, str):
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped.
        return json.dumps(x, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(x, Mapping):
        return "{" + ", ".join(f"{key(k)} = {value(v)}" for k, v in x.items() if v is not None) + "}"
    if isinstance(x, Sequence):
        return "[" + ", ".join(value(v) for v in x) + "]"
    raise TypeError(f"TOML has no {type(x).__name__}")


def key(name: str) -> str:
    """One key, quoted where needed."""
    return name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _is_tables(x: Any) -> bool:
    return isinstance(x, list | tuple) and bool(x) and all(isinstance(item, Mapping) for item in x)


def _table(data: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    # Plain values first: after a sub-table's header they would belong to the sub-table.
    tables = {k: v for k, v in data.items() if isinstance(v, Mapping) or _is_tables(v)}
    lines = [f"{key(k)} = {value(v)}" for k, v in data.items() if k not in tables and v is not None]
    for k, v in tables.items():
        header = ".".join(key(part) for part in (*path, k))
        if isinstance(v, Mapping):
            lines += ["", f"[{header}]", *_table(v, (*path, k))]
            continue
        for item in v:
            lines += ["", f"[[{header}]]", *_table(item, (*path, k))]
    return lines
