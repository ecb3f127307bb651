"""Results of checks, and running checks one after the other. Light."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from rlzoo.core.fault import describe_fault

S = TypeVar("S")


@dataclass(frozen=True)
class Result:
    """One check of one plugin. `detail` says what is wrong and what is likely to have caused it."""

    check: str
    outcome: Literal["passed", "failed", "expected", "skipped"]
    """`expected`: it fails, and the plugin's record says why it must. `skipped`: it could not be made here."""
    detail: str = ""


class Broken(AssertionError):
    """A check that failed."""


class Skipped(Exception):
    """A check that cannot be made here, such as one that needs weights that are not on this machine."""


def run_checks(
    checks: Sequence[Callable[[S], None]], subject: S, expected_failures: Mapping[str, str] | None = None
) -> Iterator[Result]:
    """Run checks one by one; what a check raises becomes its result. Any other exception is a failure of the plugin."""
    seen: dict[str, str] = {}
    for check in checks:
        name = check.__name__
        reason = (expected_failures or {}).get(name, "")
        try:
            check(subject)
        except Skipped as skipped:
            yield Result(name, "skipped", str(skipped))
        except Exception as error:
            said = str(error) if isinstance(error, Broken) else describe_fault(error)
            said, seen = (f"as {seen[said]}", seen) if said in seen else (said, {**seen, said: name})
            yield Result(name, "expected", f"{said} (expected: {reason})") if reason else Result(name, "failed", said)
        else:
            unexpected = f"passes, although the record expects it to fail: {reason}" if reason else ""
            yield Result(name, "failed" if unexpected else "passed", unexpected)
