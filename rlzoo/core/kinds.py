"""The kinds of plugins. Light."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Kind = Literal["algorithm", "policy", "reward", "prompts", "observer"]
KINDS: tuple[Kind, ...] = ("algorithm", "policy", "reward", "prompts", "observer")
NOUN: Mapping[Kind, str] = {
    "algorithm": "algorithm",
    "policy": "policy",
    "reward": "reward",
    "prompts": "prompt set",
    "observer": "observer",
}
