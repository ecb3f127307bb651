"""`rlzoo listen`: blind listening tests in a browser. `rlzoo listen A B` is short for `rlzoo listen serve A B`."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from rlzoo.engine.console import columns, err, out
from rlzoo.errors import ConfigError, DataError
from rlzoo.files.writing import write_text

if TYPE_CHECKING:
    import socket

    from rlzoo.listen.study import Study


class _ServeByDefault(TyperGroup):
    """Whatever does not begin with a command's name is meant for `serve`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["serve", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ServeByDefault,
    no_args_is_help=True,
    help="Blind listening tests: `rlzoo listen RUN_A RUN_B` serves one, `report` counts, `export` writes pairs.",
)

Folder = Annotated[Path, typer.Argument(help="Folder of the test, as `rlzoo listen` printed it.", metavar="TEST")]
MinAnchors = Annotated[
    float,
    typer.Option("--min-anchors", help="Leave out raters who found a smaller share of the noisy anchors, e.g. 0.75."),
]


@app.command()
def serve(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Two runs, two folders of recordings with equal names, or one run (against its base).",
            metavar="RUN_A [RUN_B]",
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the test; an existing test is continued. Default: listening/A-vs-B."),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on. Without it only this machine can take part; 0.0.0.0: everybody."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8765,
    pairs: Annotated[int, typer.Option(min=1, max=10_000, help="Pairs per rater.")] = 20,
    repeats: Annotated[int, typer.Option(min=0, max=10_000, help="Pairs that are repeated with sides swapped.")] = 2,
    anchors: Annotated[int, typer.Option(min=0, max=12, help="Extra pairs in which one side has noise added.")] = 2,
    anchor_snr: Annotated[
        float, typer.Option(min=-20, max=40, help="Level of the noise below the speech, in dB.")
    ] = 5.0,
    raters: Annotated[int, typer.Option(min=1, max=10_000, help="Largest number of raters.")] = 100,
    question: Annotated[str, typer.Option(help="The question to raters.")] = "Which one sounds more natural?",
    text: Annotated[bool, typer.Option("--text/--no-text", help="Show the text.")] = True,
    level: Annotated[bool, typer.Option("--match-level/--own-level", help="Play everything equally loud.")] = True,
    step_a: Annotated[int | None, typer.Option(min=0, help="Step of RUN_A; default: its last evaluation.")] = None,
    step_b: Annotated[int | None, typer.Option(min=0, help="Step of RUN_B; default: its last evaluation.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order and the sides for every rater.")] = 0,
) -> None:
    """Serve a test until Ctrl-C. The same command continues the same test with all its answers."""
    from rlzoo.listen import serve as server
    from rlzoo.listen.prepare import prepare
    from rlzoo.listen.sources import match, open_sources, unequal_rates
    from rlzoo.listen.study import Settings

    if not question.strip():
        raise ConfigError("the question is empty", "leave out --question for the usual one")
    a, b = open_sources(sources, step_a, step_b)
    for note in dict.fromkeys((*a.notes, *b.notes)):
        err.print(f"note: {note}")
    settings = Settings(pairs, repeats, anchors, anchor_snr, raters, seed, question, text, level)
    listening = server.bind(host, port)
    try:
        with closing(prepare(folder or Path("listening") / _name(a.label, b.label), a, b, settings)) as study:
            if note := unequal_rates(match(a, b)):
                err.print(f"note: {note}")
            server.serve(study, listening, lambda: _started(study, listening))
            out.print(f"{len(study.answers())} answers; rlzoo listen report {study.folder}")
    finally:
        listening.close()


@app.command()
def report(
    folder: Folder,
    min_anchors: MinAnchors = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    out_file: Annotated[Path | None, typer.Option("--out", help="Write the JSON to this file as well.")] = None,
) -> None:
    """Report the preference with its interval and test, agreement and consistency. Works during the test."""
    from rlzoo.listen.report import report as count
    from rlzoo.listen.study import Study

    with closing(Study.open(folder)) as study:
        found = count(study, min_anchors)
    document = json.dumps(found, indent=2, ensure_ascii=False)
    if out_file is not None:
        write_text(out_file, document + "\n", refused="choose another --out")
    if as_json:
        typer.echo(document)
    else:
        out.print(_tables(found))


@app.command()
def export(
    folder: Folder,
    out_file: Annotated[Path, typer.Option("--out", help="JSON-lines file to write; `-`: standard output.")],
    min_anchors: MinAnchors = 0.0,
    ties: Annotated[bool, typer.Option("--ties/--no-ties", help="With or without answers 'about the same'.")] = True,
) -> None:
    """Pairs for `rlzoo reward train-preference` and `algorithm.preferences` of dpo, one JSON object per answer."""
    from rlzoo.listen.export import pairs, write
    from rlzoo.listen.report import unreliable
    from rlzoo.listen.study import Study

    with closing(Study.open(folder)) as study:
        rows = pairs(study, unreliable(study.answers(), min_anchors), ties=ties)
    if not rows:
        hint = "let people answer first" + ("" if ties else ", or leave out --no-ties")
        raise DataError(f"'{folder}' has no pairs to write", hint)
    if str(out_file) == "-":
        for row in rows:
            typer.echo(json.dumps(row, ensure_ascii=False))
        return
    write(out_file, rows)
    err.print(f"{len(rows)} pairs in '{out_file}'")


def _name(a: str, b: str) -> str:
    def short(label: str) -> str:
        step = re.search(r" \(step (\d+)\)$", label)
        path = Path(label[: step.start()] if step else label).resolve()
        return re.sub(r"[^A-Za-z0-9._-]+", "-", path.name) + (f"-{step[1]}" if step else "")

    return f"{short(a)}-vs-{short(b)}"


def _started(study: Study, listening: socket.socket) -> None:
    from rlzoo.listen.serve import addresses, is_loopback

    settings = study.settings
    out.print(f"a     {study.labels[0]}")
    out.print(f"b     {study.labels[1]}")
    out.print(f"test  {study.folder} ({len(study.prompts)} prompts, {len(study.answers())} answers so far)")
    for address in addresses(listening):
        out.print(f"link  {address}/join/{study.join_key}")
    if is_loopback(listening.getsockname()[0]):
        out.print("Only this machine can open the link; for others name an address: --host 0.0.0.0")
    else:
        out.print(f"Everybody who has the link and reaches this machine can take part (at most {settings.max_raters}).")
    out.print("Ctrl-C stops; the same command goes on.")
    out.file.flush()


def _tables(found: dict[str, Any]) -> str:
    counts = found["preference"]
    rows = [("", "a", "b", "tied", "prefer b", "95 % interval", "p")]
    for name, place, share in (
        ("answers, ties left out", counts, counts["ties_excluded"]),
        ("answers, ties split", counts, counts["ties_split"]),
        ("majority per prompt", found["over_prompts"], found["over_prompts"]),
        ("majority per rater", found["over_raters"], found["over_raters"]),
    ):
        tied = place["ties"] if "ties" in place else place["even"]
        rows.append((name, str(place["a"]), str(place["b"]), str(tied), *_share(share)))
    checks, alpha = found["consistency"], found["agreement"]
    anchors, repeats, first = checks["anchors"], checks["repeats"], checks["heard_first"]
    raters = [("rater", "name", "a", "b", "tied", "anchors", "repeats", "")]
    raters += [
        (
            str(rater["id"]),
            rater["name"],
            str(rater["a"]),
            str(rater["b"]),
            str(rater["ties"]),
            f"{rater['anchors']['found']}/{rater['anchors']['heard']}",
            f"{rater['repeats']['equal']}/{rater['repeats']['heard']}",
            "left out" if rater["excluded"] else "",
        )
        for rater in found["by_rater"]
    ]
    agreed = f"{alpha['alpha']:.2f}" if alpha["alpha"] is not None else f"none ({alpha['reason']})"
    lines = [
        f"{found['question']} {found['answers']} answers, {found['raters']} raters, {found['prompts']} prompts",
        f"a: {found['a']}",
        f"b: {found['b']}",
        "",
        columns(rows),
        "",
        f"agreement between raters (Krippendorff's alpha, ordinal): {agreed}",
        f"anchors: noise recognised in {anchors['found']} of {anchors['heard']}",
        f"repeats: answered as before in {repeats['equal']} of {repeats['heard']}, the other way round in "
        f"{repeats['reversed']}",
        f"left side: chosen in {first['chosen']} of {first['count']} decided answers",
        "",
        columns(raters),
    ]
    return "\n".join(lines)


def _share(share: dict[str, Any]) -> tuple[str, str, str]:
    if share["share"] is None:
        return "-", "-", "-"
    return f"{share['share']:.1%}", f"{share['low']:.1%} to {share['high']:.1%}", f"{share['p']:.4f}"
