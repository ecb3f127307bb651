"""Find the policy of a path or a name. Light: only the header of a weight file is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlzoo.config import DEFAULT_POLICY
from rlzoo.config.registry import Registry
from rlzoo.config.resolve import Choice, choose
from rlzoo.errors import ConfigError, DataError


def policy_source(
    checkpoint: Path | None, policy: str, options: Mapping[str, Any], registry: Registry
) -> Path | Choice[Any]:
    """A run's directory (or one checkpoint in it) as it is; a weight file or a name as a policy with its options.

    DataError for a path that does not exist, ConfigError for wrong options or for options beside a run.
    """
    if checkpoint is not None and checkpoint.is_dir():
        if policy or options:
            raise ConfigError(f"'{checkpoint}' is a run, which names its policy itself", "leave out --policy and --set")
        return checkpoint
    values = dict(options)
    if checkpoint is not None:
        if not checkpoint.exists():
            raise DataError(f"checkpoint '{checkpoint}' does not exist", "check the path")
        values["checkpoint"] = str(checkpoint)
    name = policy or (policy_of(checkpoint) if checkpoint else DEFAULT_POLICY)
    return choose("policy", name, registry, values)


def policy_of(checkpoint: Path) -> str:
    """The policy that the header of a voice file names; the default policy where it names none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(checkpoint, framework="np") as file:
            mark = (file.metadata() or {}).get("format", "")
    except (SafetensorError, OSError):  # the policy itself says what is wrong with it
        mark = ""
    return mark.removeprefix("rlzoo-") if mark.startswith("rlzoo-") else DEFAULT_POLICY
