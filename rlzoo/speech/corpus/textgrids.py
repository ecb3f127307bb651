"""Praat TextGrids: phone times as the Montreal Forced Aligner writes them (long, short and JSON forms), and ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlzoo.errors import DataError, PluginError
from rlzoo.files.reading import read_bytes

MAX_TEXTGRID_BYTES = 64 << 20


def find_textgrids(folder: Path) -> dict[str, Path]:
    """Folder (searched with its subfolders) -> {id: file}.

    Raises:
        DataError: no folder, no TextGrid in it, or two of the same name.
    """
    if not folder.is_dir():
        raise DataError(f"no folder '{folder}' with TextGrids", hint="give the aligner's output folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.TextGrid")):
        if path.stem in found:
            raise DataError(f"two TextGrids named '{path.stem}': '{found[path.stem]}' and '{path}'", hint="remove one")
        found[path.stem] = path
    if not found:
        raise DataError(f"no *.TextGrid in '{folder}'", hint="give the aligner's output folder")
    return found


def read_textgrid(path: Path, tier: str = "phones") -> tuple[list[str], list[float]]:
    """One TextGrid -> phones and their end times in seconds, from 0 without gaps; an unlabelled interval is "sil".

    `tier` may stand behind a speaker's name, as in 'LJSpeech - phones'.

    Raises:
        DataError: unreadable, no such tier or several, or intervals out of order.
        PluginError: the package `praatio` is missing.
    """
    try:
        from praatio import textgrid
        from praatio.data_classes.interval_tier import IntervalTier
    except ImportError as error:
        raise PluginError("reading TextGrids needs praatio", hint="pip install 'rlzoo-speech[corpus]'") from error
    read_bytes(path, "align the recording again", MAX_TEXTGRID_BYTES)  # what is too large, or no file, is told here
    try:
        grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=True, reportingMode="error")
    except Exception as error:  # praatio has errors of its own, and Python's where a line is not what it expects
        # What an empty or cut file does to praatio is an index out of range, which says nothing.
        why = "it is empty or cut off" if isinstance(error, LookupError) else str(error)
        raise DataError(f"cannot read the TextGrid '{path}': {why}", hint="align the recording again") from error
    names = [name for name in grid.tierNames if name == tier or name.endswith(f" - {tier}")]
    if len(names) != 1:
        found = ", ".join(f"'{name}'" for name in grid.tierNames) or "none"
        raise DataError(f"'{path}': expected one tier '{tier}', found {found}", hint="name the tier of the phones")
    intervals = grid.getTier(names[0])
    if not isinstance(intervals, IntervalTier) or not intervals.entries:
        raise DataError(f"'{path}': tier '{names[0]}' holds no intervals", hint="align the recording again")
    phones: list[str] = []
    ends: list[float] = []
    for entry in intervals.entries:
        phones.append(entry.label.strip() or "sil")
        ends.append(float(entry.end))
    return phones, ends


def write_textgrid(path: Path, phones: Sequence[str], ends: Sequence[float]) -> None:
    """Phones and their end times in seconds -> one TextGrid with a tier "phones", as `read_textgrid` reads it.

    Raises:
        DataError: the file cannot be written.
        PluginError: the package `praatio` is missing.
    """
    try:
        from praatio.textgrid import IntervalTier, Textgrid
    except ImportError as error:
        raise PluginError("writing TextGrids needs praatio", hint="pip install 'rlzoo-speech[corpus]'") from error
    spans = zip([0.0, *ends], ends, phones, strict=False)
    grid = Textgrid()
    grid.addTier(IntervalTier("phones", [span for span in spans if span[0] < span[1]], 0.0, ends[-1]))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        grid.save(str(path), format="long_textgrid", includeBlankSpaces=True)
    except OSError as error:
        raise DataError(f"cannot write '{path}': {error.strerror}", hint="check free space and permissions") from error
