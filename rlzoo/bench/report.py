"""The report of a benchmark: one self-contained HTML page, and the table as Markdown, CSV and LaTeX.

Everything is made from the document of `collect` alone, so that a stored document gives the same bytes as the run
directories it came from.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rlzoo.bench import figures
from rlzoo.bench.collect import Document, dumps
from rlzoo.bench.summary import COLLAPSE, Column, Row, Section, Summary
from rlzoo.files.writing import write_text
from rlzoo.stats.statistics import RESAMPLES, Estimate

RESULTS, PAGE = "results.json", "report.html"


def write(document: Document, folder: Path) -> list[Path]:
    """Write results.json, report.html, table.md, table.csv and table.tex; returns their paths. DataError."""
    summary = Summary(document)
    contents = {
        RESULTS: dumps(document),
        PAGE: page(summary),
        "table.md": table(summary, "md"),
        "table.csv": rows_csv(summary),
        "table.tex": table(summary, "tex"),
    }
    for name, content in contents.items():
        write_text(folder / name, content, refused="choose another --to")
    return [folder / name for name in contents]


def page(summary: Summary) -> str:
    """The HTML page."""
    sections = [
        {
            "section": section,
            "gains": Markup(figures.gains(summary, section)),
            "curves": [(s, Markup(svg)) for s, svg in figures.curves(summary, section)],
            "frontier": Markup(figures.frontier(summary, section)),
            "improvement": section.improvement(),
            "audio": _ranked(summary.document["audio"].get(section.label), section),
            "findings": findings(section),
        }
        for section in summary.sections
    ]
    return (
        _environment(autoescape=True)
        .get_template("report.html.j2")
        .render(
            summary=summary,
            document=summary.document,
            suite=summary.document["suite"],
            sections=sections,
            profile=Markup(figures.profile(summary)),
            overall=summary.overall(),
            unit=figures.UNITS[summary.limit],
            resamples=RESAMPLES,
        )
        + "\n"
    )


def _ranked(audio: Document | None, section: Section) -> Document | None:
    """Clips in the order of the table."""
    if audio is None:
        return None
    order = [row.system for row in section.rows]
    prompts = [{**p, "clips": sorted(p["clips"], key=lambda c: order.index(c["system"]))} for p in audio["prompts"]]
    return {**audio, "prompts": prompts}


def table(summary: Summary, kind: str) -> str:
    """The paper's table, one per reward: `md` or `tex`."""
    return _environment(autoescape=False).get_template(f"table.{kind}.j2").render(summary=summary, **_shared(summary))


def rows_csv(summary: Summary) -> str:
    """One line per reward, system and score, unrounded."""
    stream = io.StringIO()
    out = csv.writer(stream, lineterminator="\n")
    fields = ["reward", "system", "runs", "diverged", "score", "trained", "iqm", "low", "high"]
    out.writerow([*fields, "hacking", "wall_seconds", "memory_mb", "gpu_memory_mb", *figures.UNITS])
    for section in summary.sections:
        for row in section.rows:
            for column in section.columns:
                estimate = row.scores[column.name]
                numbers = [estimate.value, estimate.low, estimate.high]
                hacked = "" if row.hacking is None else str(row.hacking.hacked).lower()
                cost = [row.wall_seconds, row.memory_mb, row.gpu_memory_mb, *(row.used.get(u) for u in figures.UNITS)]
                head = [section.label, row.system, row.runs, row.diverged, column.name, str(column.trained).lower()]
                out.writerow([*head, *map(_plain, numbers), hacked, *map(_plain, cost)])
    return stream.getvalue()


def results_page(documents: Mapping[str, Document]) -> str:
    """`docs/results.md`: the tables of all published documents, by file name."""
    summaries = {name: Summary(document) for name, document in sorted(documents.items())}
    template = _environment(autoescape=False).get_template("results.md.j2")
    tables = {name: table(summary, "md") for name, summary in summaries.items()}
    findings_of = {name: [(s.label, findings(s)) for s in summary.sections] for name, summary in summaries.items()}
    return template.render(summaries=summaries, tables=tables, findings=findings_of).rstrip() + "\n"


def findings(section: Section) -> list[str]:
    """Findings that the intervals support, in plain words; what they do not separate comes first."""
    rows = [row for row in section.rows if row.beats_base is not None]
    better = [row.system for row in rows if row.gain.low is not None and row.gain.low > 0]
    worse = [row.system for row in rows if row.gain.high is not None and row.gain.high < 0]
    open_ = [row.system for row in rows if row.system not in (*better, *worse)]
    found = [f"Neither above nor below the base: {', '.join(open_)}."] if open_ else []
    tied = [row.system for row in rows[1:] if _overlap(row.gain, rows[0].gain)]
    if tied:
        highest = f"the highest, {rows[0].system}"
        found.append(f"Not separable from {highest} (intervals of the gain overlap): {', '.join(tied)}.")
    found.append(f"Highest {section.headline if section.headline != 'total' else 'reward'}: {rows[0].system}.")
    for text, systems in (("Above the base", better), ("Below the base", worse)):
        if systems:
            found.append(f"{text}: {', '.join(systems)}.")
    diverged = [f"{row.system} ({row.diverged} of {row.runs})" for row in rows if row.diverged]
    if diverged:
        found.append(f"Diverged: {', '.join(diverged)}.")
    collapsed = [f"{row.system} ({row.collapsed} of {row.runs})" for row in rows if row.collapsed]
    if collapsed:
        found.append(f"Collapsed, more than {COLLAPSE:g} standard deviations below the base: {', '.join(collapsed)}.")
    hacked = [
        f"{row.system} (worse by {', '.join(row.hacking.worse)})" for row in rows if row.hacking and row.hacking.hacked
    ]
    if hacked:
        found.append(f"Reward hacking: {', '.join(hacked)}.")
    return found


def _overlap(a: Estimate, b: Estimate) -> bool:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return True
    return bool(a.low <= b.high and b.low <= a.high)


def _shared(summary: Summary) -> dict[str, Any]:
    return {"suite": summary.document["suite"], "document": summary.document, "unit": figures.UNITS[summary.limit]}


def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("rlzoo.bench"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "number": number,
        "signed": lambda x: ("+" if x > 0 else "") + number(x),
        "p": lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}",
        "interval": interval,
        "percent": lambda x: f"{100 * x:.0f} %",
        "best": best,
        "quantity": quantity,
        "mebibytes": lambda size: f"{quantity(size)} MiB" if size else "–",
        "tex": tex,
        "md": md,
        "tint": figures.colour,
        "mix": lambda p: f"{abs(2 * p - 1) * 70:.0f}%",
        "seconds": lambda s: "–" if s is None else f"{s:.0f} s" if s < 120 else f"{s / 60:.0f} min",
    }
    environment.filters.update(filters)
    return environment


def number(x: float | None) -> str:
    """Three decimals, one from 10 on; a true minus."""
    if x is None:
        return "–"
    return (f"{x:.1f}" if abs(x) >= 10 else f"{x:.3f}").replace("-", "−")


def interval(estimate: Estimate) -> str:
    """`[low, high]`, or nothing for one run."""
    return "" if estimate.low is None else f"[{number(estimate.low)}, {number(estimate.high)}]"


def quantity(x: float | None) -> str:
    """`12 800`, `3.1`."""
    if x is None:
        return "–"
    return f"{x:,.0f}".replace(",", " ") if abs(x) >= 100 else f"{x:.3g}"


def best(rows: list[Row], column: Column) -> str:
    """The system with the best interquartile mean in a column."""
    return max(rows, key=lambda row: row.scores[column.name].value).system


def tex(text: str) -> str:
    """Text for LaTeX."""
    for character in "\\&%$#_{}":
        text = text.replace(character, "\\" + character if character != "\\" else r"\textbackslash ")
    return text.replace("−", "$-$")


def md(text: str) -> str:
    """Text for a cell of a Markdown table: on one line, and nothing in it is markup."""
    line = " ".join(text.split())
    for character in "\\`*_[]<>|":
        line = line.replace(character, "\\" + character)
    return line


def _plain(x: float | None) -> str:
    return "" if x is None else f"{x:.6g}"


__all__ = ["PAGE", "RESULTS", "page", "results_page", "rows_csv", "table", "write"]
