"""`rlzoo plugins new`: an installable package from `rlzoo/templates`."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from rlzoo.errors import ConfigError, DataError
from rlzoo.version import __version__

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def write(kind: str, name: str, where: Path, family: str = "") -> Path:
    """Make `where/rlzoo-<name>`; files of the family replace those of the kind.

    ConfigError for a bad name, DataError if the folder exists or cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"'{name}' cannot be a plugin's name", "use lower-case letters, digits and single hyphens")
    folder = where / f"rlzoo-{name}"
    values = {
        "kind": kind,
        "name": name,
        "package": f"rlzoo_{name.replace('-', '_')}",
        "Class": "".join(part.capitalize() for part in name.split("-")),
        "rlzoo": ".".join(__version__.split(".")[:2]),
    }
    try:
        folder.mkdir(parents=True)
        templates = files("rlzoo") / "templates"
        for source in ("common", kind, *(["flow"] if family == "flow" else [])):
            _copy(templates / source, folder, values)
    except FileExistsError as error:
        raise DataError(f"'{folder}' exists already", "choose another name or --out") from error
    except OSError as error:
        raise DataError(f"cannot write '{folder}': {error.strerror}", "choose another --out") from error
    return folder


def _copy(source: Traversable, target: Path, values: dict[str, str]) -> None:
    for item in source.iterdir():
        # The suffix keeps tools from taking a template for code.
        name = Template(item.name).substitute(values).removesuffix(".in")
        if item.is_dir():
            (target / name).mkdir(exist_ok=True)
            _copy(item, target / name, values)
        else:
            (target / name).write_text(Template(item.read_text(encoding="utf-8")).substitute(values), encoding="utf-8")
