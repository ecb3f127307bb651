"""Generated pages: the plugin table, the reference pages, the dump of the public interface. `make docs` writes them.

`tests/test_docs.py` and `tests/test_api.py` compare the files with what this would write.
"""

from __future__ import annotations

import importlib
import inspect
import re
import statistics
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import typer.main
from pydantic import BaseModel

from rlzoo import api, errors, plugin
from rlzoo.bench.collect import published
from rlzoo.cli import app
from rlzoo.cli.plugins import option_type
from rlzoo.config import resolve
from rlzoo.config.layers import presets
from rlzoo.config.registry import HOOK, Registry, discover
from rlzoo.config.schema import CORE_TABLES
from rlzoo.core import types
from rlzoo.core.kinds import NOUN

ROOT = Path(__file__).resolve().parent.parent
PUBLIC = str.split(
    "runs plugin api functional audio text corpus voices pretraining.options pretraining.loop pretraining.panel "
    "preferences parallel wav2vec2 rewards signals assets errors safepickle writing testing"
)
"""Public modules of `rlzoo`; nothing else is promised."""

ALGORITHMS = sorted(
    path.name.removeprefix("rlzoo_").replace("_", "-") for path in (ROOT / "plugins/algorithms").glob("rlzoo_*")
)
"""Algorithms of this repository."""

NOTE = "<!-- Written by `make docs`; do not edit. -->\n"


def pages() -> dict[Path, Callable[[], str]]:
    """Every generated file and what makes its content."""
    return {
        ROOT / "README.md": readme_page,
        ROOT / "plugins/README.md": plugins_page,
        ROOT / "docs/gallery.md": gallery_page,
        **algorithm_pages(),
        ROOT / "docs/reference/cli.md": cli_page,
        ROOT / "docs/reference/config.md": config_page,
        ROOT / "docs/reference/errors.md": errors_page,
        ROOT / "docs/reference/hooks.md": hooks_page,
        ROOT / "docs/reference/api.md": api_page,
        ROOT / "docs/images/floors.svg": floors_picture,
        ROOT / "tests/api.txt": api_dump,
    }


# --- architecture


FLOOR_TEXT = {
    "cli": "command line",
    "runs": "Python API",
    "evaluation": "judge and compare",
    "bench": "grids, sweeps, statistics",
    "pretraining": "from recordings",
    "testing": "conformance kit",
    "listen": "listening tests",
    "engine": "start, loop, rollout, scoring, context, checkpoints, report",
    "functional": "shared maths",
    "config": "registry, layers, schema",
    "speech": "audio, text, corpora",
    "stats": "intervals, comparison",
    "core": "types, policy, algorithm, reward, plugin records",
    "files": "run folders, assets, voices",
    "errors": "",
    "version": "",
}
"""Content of each folder or file of `rlzoo`, for the picture of the architecture."""


def floors_picture() -> str:
    """The floors of `rlzoo` as SVG: one row per layer of the import contract, the highest first."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    width, height, gap = 760, 46, 10
    parts = []
    top = gap
    for layer in contract["layers"]:
        names = layer.split(" | ")
        texts = [(name, FLOOR_TEXT.get(name, "")) for name in names]
        if "plugin" in names:  # too many to draw one by one
            texts = [("public modules", ", ".join(names))]
        size = (width - gap * (len(texts) + 1)) / len(texts)
        for place, (name, text) in enumerate(texts):
            left = gap + place * (size + gap)
            fill = "#dbe7ff" if name == "public modules" else "#f2f4f8"
            parts.append(
                f'<rect x="{left:.0f}" y="{top}" width="{size:.0f}" height="{height}" rx="6" fill="{fill}" '
                f'stroke="#8a94a6"/>'
                f'<text x="{left + size / 2:.0f}" y="{top + 19}" font-weight="600">{name}</text>'
                f'<text x="{left + size / 2:.0f}" y="{top + 36}" font-size="11">{text}</text>'
            )
        top += height + gap
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" font-family="sans-serif" font-size="14" '
        f'text-anchor="middle" fill="#1c2430">\n<rect width="{width}" height="{top}" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


# --- algorithms


METRICS: Mapping[str, str] = {
    "policy/clip_fraction": "Share of transitions whose ratio is clipped. Near 0: small updates; above 0.3: too large.",
    "policy/ratio_max": "Largest ratio of the trained to the sampling policy. It is 1 with a single update per step.",
    "policy/diffusion_loss": "Denoising loss on the step's samples. It rises if the model forgets how to denoise.",
    "policy/kl": "KL to the starting policy of one denoising step, per element, in nats.",
    "policy/kl_loss": "The KL penalty as it enters the loss.",
    "policy/kl_trajectory": "KL to the starting policy along whole trajectories, as it enters the reward.",
    "policy/nft_loss": "The contrastive loss of the implicit good and bad policy.",
    "policy/prediction_shift": "Squared distance between the predictions of the policy and of its reference.",
    "policy/margin": "By how much the preferred side has gained over the rejected one. It rises while dpo learns.",
    "reward/chosen": "Mean score of the samples that are trained on.",
    "train/effective_fraction": "Effective share of the samples, from their weights. Near 0: a few samples decide all.",
    "train/value_error": "Mean squared error of the learned value.",
    "train/old_decay": "How slowly the old policy follows: 0 copies it each step.",
    "train/pairs": "Pairs in this step; prompts whose samples score alike give none.",
    "train/grad_steps": "Denoising steps that the gradient went through.",
    "policy/matching_loss": "Regression error of the steps against the adjoint. It falls towards the optimum.",
    "policy/group_weight": "Mean weight of a group. It falls when the group's preference is met by the policy.",
}
"""Meaning of each logged metric of an algorithm."""


BLOCK = re.compile(r"<!-- generated -->\n.*?<!-- /generated -->\n", re.DOTALL)
"""The generated part of an algorithm's README."""


def algorithm_pages() -> dict[Path, Callable[[], str]]:
    """READMEs of the algorithms, each with a generated part, and their learning curves."""
    found: dict[Path, Callable[[], str]] = {}
    for name in ALGORITHMS:
        readme = ROOT / "plugins/algorithms" / f"rlzoo_{name.replace('-', '_')}" / "README.md"
        found[readme] = partial(algorithm_readme, name, readme)
    for document in results().values():
        for reward in document["suite"]["rewards"]:
            for name in systems(document):
                found[curve_file(document, reward, name)] = partial(curve_picture, document, reward, name)
    return found


def algorithm_readme(name: str, readme: Path) -> str:
    """The README with its generated part written again: results, metrics, presets, options."""
    spec = first_party().algorithm(name)
    source = "".join(path.read_text(encoding="utf-8") for path in readme.parent.glob("*.py"))
    source += (ROOT / "rlzoo/functional.py").read_text(encoding="utf-8") if "RatioMeter" in source else ""
    logged = sorted(set(re.findall(r'"((?:policy|train|reward)/[a-z_]+)"', source)) - {"reward/total"})
    rows = [(f"`{metric}`", METRICS[metric]) for metric in logged]
    needs = ", ".join(f"`{need}`" for need in sorted(spec.needs)) or "nothing special"
    named = ", ".join(f"`--preset {one}`" for one in presets(spec))
    scale = spec.learning_rate_scale
    rate = "" if scale == 1 else f" Its learning rate is {scale:g} of the policy's, unless the run states one."
    block = (
        f"<!-- generated -->\n{algorithm_results(name)}"
        "## Logged metrics\n\n"
        + (table(("Metric", "How to read it"), rows) + "\n" if rows else "")
        + "Every run also logs the metrics of the [run directory](../../../docs/reference/run-directory.md).\n"
        + options_section("Options of `[algorithm]`", spec.options)
        + f"\nPresets: {named}. It needs {needs} (see [capabilities](../../../docs/write-a-plugin.md)).{rate}\n"
        "<!-- /generated -->\n"
    )
    return BLOCK.sub(lambda _: block, readme.read_text(encoding="utf-8"))


def algorithm_results(name: str) -> str:
    """Learning curves and gains of one algorithm in the published results, and the command that makes them."""
    lines = []
    for suite, document in results().items():
        if name not in systems(document):
            continue
        for reward in document["suite"]["rewards"]:
            gains = gains_of(document, reward, name)
            picture = curve_file(document, reward, name).relative_to(ROOT)
            lines.append(
                f"Suite `{suite}`, reward `{reward['label']}`: median gain {statistics.median(gains):+.3f} over "
                f"{len(gains)} seeds ({min(gains):+.3f} to {max(gains):+.3f}). To reproduce it:\n\n"
                f"```sh\nrlzoo bench run {suite} --only {name} && rlzoo bench report {suite}\n```\n\n"
                f"![Held-out reward of {name} on {suite}](../../../{picture})\n\n"
            )
    if not lines:
        lines.append(
            "There are no published results yet. To measure it on the toy:\n\n"
            f"```sh\nrlzoo bench run toy --only {name} && rlzoo bench report toy\n```\n\n"
        )
    return "## Results\n\n" + "".join(lines) + "[All results](../../../docs/results.md) compare the algorithms.\n\n"


@cache
def results() -> dict[str, Any]:
    """The published benchmark documents by suite."""
    return {document["suite"]["name"]: document for document in published(ROOT / "benchmarks/results").values()}


def systems(document: Any) -> list[str]:
    """Systems of a benchmark that are an algorithm with its default options."""
    return [entry["label"] for entry in document["suite"]["algorithms"] if entry["label"] in ALGORITHMS]


def cells(document: Any, reward: Any, name: str) -> list[Any]:
    """The runs of one system."""
    return [run for run in document["cells"] if (run["algorithm"], run["reward"]) == (name, reward["label"])]


def readme_page() -> str:
    """The project's README with its table of results written again."""
    readme = ROOT / "README.md"
    toy, voice = results()["toy"], results()["zoo"]
    rows = []
    for name in systems(toy):
        spec = first_party().algorithm(name)
        link = f"[`{name}`](plugins/{folder_of(spec.target.split('.')[0])}/README.md)"
        gains = [spread(voice, name, "distillmos"), spread(voice, name, "nisqa"), spread(toy, name, "total")]
        rows.append((*gains, link, spec.summary))
    rows.sort(key=lambda row: -row[0].middle)
    lines = [(link, idea, *map(str, gains)) for *gains, link, idea in rows]
    head = ("algorithm", "idea", "voice: Distill-MOS", "voice: NISQA, not trained", "toy: reward")
    block = f"<!-- generated -->\n{table(head, lines)}<!-- /generated -->\n"
    return BLOCK.sub(lambda _: block, readme.read_text(encoding="utf-8"))


class Spread(NamedTuple):
    """Median and range of a system's gains over its seeds."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def spread(document: Any, name: str, score: str) -> Spread:
    """Gains of a held-out score of a system in the first reward's runs."""
    gains = gains_of(document, document["suite"]["rewards"][0], name, score)
    return Spread(statistics.median(gains), min(gains), max(gains))


def gains_of(document: Any, reward: Any, name: str, score: str = "total") -> list[float]:
    """Gain of a held-out score, by default the reward, of each run of a system."""
    runs = cells(document, reward, name)
    return [run["curve"][run["counted"]]["scores"][score] - run["curve"][0]["scores"][score] for run in runs]


def curve_file(document: Any, reward: Any, name: str) -> Path:
    """Path of the learning curve of a system."""
    several = f"-{reward['label']}" if len(document["suite"]["rewards"]) > 1 else ""
    return ROOT / f"docs/images/curves/{document['suite']['name']}{several}-{name}.svg"


def curve_picture(document: Any, reward: Any, name: str) -> str:
    """Held-out reward against samples as SVG: median and range of the seeds, base and optimum as lines."""
    runs = [run["curve"] for run in cells(document, reward, name)]
    points = [
        (step[0]["used"]["samples"], [point["scores"]["total"] for point in step]) for step in zip(*runs, strict=False)
    ]
    base = statistics.fmean(points[0][1])
    shown = sorted({base, *(score for _, scores in points for score in scores)})
    optimum = reward.get("optimum")
    low, high = max(shown[0], base - 3 * (shown[-1] - base + 0.01)), shown[-1] if optimum is None else optimum
    pad = 0.06 * (high - low)
    low, high = low - pad, high + pad

    def place(samples: float, score: float) -> str:
        return f"{56 + 250 * samples / points[-1][0]:.1f},{12 + 130 * (high - score) / (high - low):.1f}"

    def line(score: float, colour: str, label: str) -> str:
        y = place(0, score).split(",")[1]
        return (
            f'<path d="M56 {y}H306" stroke="{colour}" stroke-dasharray="4 3"/>'
            f'<text x="310" y="{float(y) + 3.5:.1f}">{label}</text>'
        )

    band = " ".join(
        [place(x, max(scores)) for x, scores in points] + [place(x, min(scores)) for x, scores in reversed(points)]
    )
    middle = " ".join(place(x, statistics.median(scores)) for x, scores in points)
    ticks = "".join(
        f'<text x="50" y="{float(place(0, score).split(",")[1]) + 3.5:.1f}" text-anchor="end">{score:.2f}</text>'
        for score in (low + pad, (low + high) / 2, high - pad)
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 370 178" width="370" font-family="sans-serif" '
        'font-size="11" fill="#1c2430">\n<rect width="370" height="178" fill="white"/>\n'
        '<clipPath id="axes"><path d="M56 12H306V142H56z"/></clipPath>\n<g clip-path="url(#axes)">\n'
        f'<polygon points="{band}" fill="#4477aa" fill-opacity="0.2"/>\n'
        f'<polyline points="{middle}" fill="none" stroke="#4477aa" stroke-width="2"/>\n</g>\n'
        '<path d="M56 12V142H306" fill="none" stroke="#8a94a6"/>\n'
        + line(base, "#9aa5b1", "base")
        + ("" if optimum is None else line(optimum, "#2f7d5b", "optimum"))
        + f'\n{ticks}\n<text x="56" y="157" text-anchor="middle">0</text>'
        f'<text x="306" y="157" text-anchor="middle">{points[-1][0]:.0f}</text>'
        f'<text x="181" y="157" text-anchor="middle">samples</text>'
        f'<text x="181" y="173" text-anchor="middle">{name}: median and range of {len(runs)} seeds</text>\n</svg>\n'
    )


# --- gallery


def gallery_page() -> str:
    """Audio of base and tuned policy, from docs/gallery/clips.toml."""
    clips = tomllib.loads((ROOT / "docs/gallery/clips.toml").read_text(encoding="utf-8")).get("clips", [])
    parts = [
        NOTE + "# Gallery\n\n"
        "Each row has the same sentence and the same noise before and after training. The clips are listed in\n"
        "`docs/gallery/clips.toml`; `make docs` writes this page.\n"
    ]
    for title, command in dict.fromkeys((clip["title"], clip["command"]) for clip in clips):
        rows = [
            (clip["text"], player(clip["base"]), player(clip["tuned"]), clip.get("scores", ""))
            for clip in clips
            if clip["title"] == title
        ]
        head = ("Sentence", "Base", "Tuned", "Scores")
        parts.append(f"## {title}\n\n```sh\n{command}\n```\n\n{table(head, rows)}")
    return "\n".join(parts)


def player(file: str) -> str:
    """A player where HTML may have one, and a link elsewhere."""
    return f'<audio controls preload="none" src="gallery/{file}"></audio> [{file}](gallery/{file})'


# --- plugins


@cache
def first_party() -> Registry:
    """Only the plugins of this repository."""
    registry = discover({"RLZOO_STRICT_PLUGINS": "1"})
    ours = {name for p in registry.providers if p.distribution == "rlzoo-speech" for name in p.provides}
    for kind, found in registry.specs.items():
        registry.specs[kind] = {name: spec for name, spec in found.items() if (kind, name) in ours}
    return registry


def folder_of(package: str) -> str:
    """`algorithms/rlzoo_dlpo`, relative to `plugins/`."""
    return str(next((ROOT / "plugins").glob(f"*/{package}")).relative_to(ROOT / "plugins"))


def plugins_page() -> str:
    """Table of the plugins in this repository."""
    registry = first_party()
    rows = []
    for kind, found in registry.specs.items():
        for name, spec in sorted(found.items()):
            folder = folder_of(spec.target.split(".")[0].split(":")[0])
            rows.append((f"[`{name}`]({folder})", NOUN[kind], spec.tier, papers(spec.reference), spec.summary))
    intro = (
        "# Plugins in this repository\n\n"
        "Each folder is an import package. It uses only the public modules of `rlzoo`. A package has a light\n"
        "`__init__.py` with hooks and options, its heavy modules, and a README.\n"
        "[How to write one](../docs/write-a-plugin.md).\n\n"
    )
    return NOTE + intro + table(("Name", "Kind", "Tier", "Paper", "Summary"), rows)


def papers(reference: str) -> str:
    """arXiv numbers as links."""
    return re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", reference) or "-"


# --- command line


def cli_page() -> str:
    """Every command and every flag."""
    root = typer.main.get_command(app)
    parts = [
        NOTE + "# Command line\n",
        "Exit codes: [errors](errors.md). `--debug`, anywhere on the line, shows tracebacks.\n",
    ]
    parts += [command_section(path, command) for path, command in commands(root, ("rlzoo",))]
    return "\n".join(parts)


def commands(command: Any, path: tuple[str, ...]) -> Iterable[tuple[tuple[str, ...], Any]]:
    """Depth first, groups left out."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, child in command.commands.items():
        yield from commands(child, (*path, name))


def command_section(path: tuple[str, ...], command: Any) -> str:
    """One command: what it does, its arguments and flags."""
    rows = []
    for parameter in command.params:
        names = ", ".join(f"`{name}`" for name in parameter.opts if name != "--help")
        if not names or "-h" in parameter.opts:
            continue
        if parameter.param_type_name == "argument":
            names = f"`{parameter.name.upper()}`"
        about = " ".join((parameter.help or "").split())
        rows.append((names, about + (" Required." if parameter.required else "")))
    text = " ".join(line.strip() for line in (command.help or "").strip().splitlines())
    return f"## `{' '.join(path)}`\n\n{text}\n\n" + (table(("Flag", "Meaning"), rows) if rows else "")


# --- run file


def config_page() -> str:
    """Every table and key of core, and where a plugin's keys are found."""
    intro = (
        "# Run file\n\n"
        "A run file is TOML. `rlzoo config new` writes one with every option. `rlzoo config show` prints the\n"
        "values that a run would use. There are several layers, and later ones win: built-in choices, values that\n"
        "suit the policy, the preset of the algorithm (`default` if none is named), the file, flags, `--set`.\n"
        "Unknown keys are errors. Paths are relative to the folder in which the command runs.\n\n"
        "```toml\n"
        "seed = 0\n\n"
        "[policy]\n"
        'name = "wavegrad2"      # picks the plugin; every other key is one of its options\n\n'
        "[[rewards]]             # one table per term of the sum\n"
        'name = "dnsmos"\n'
        "weight = 1.0\n\n"
        "[algorithm]\n"
        'name = "dlpo"\n\n'
        "[prompts]\n"
        'name = "short"\n\n'
        "[[observers]]           # none by default; each logs the run, and cannot change it\n"
        'name = "tensorboard"\n\n'
        "[train]\n"
        "steps = 20\n"
        "```\n\n"
        "In `--set key.path=value` the value is TOML, and a bare word is a string. Lists are indexed from 0\n"
        "(`--set rewards.0.weight=2`). `--set 'algorithm={name=\"dlpo\"}'` replaces a whole table.\n"
        "Options of plugins: `rlzoo plugins show NAME`.\n"
    )
    tables: list[tuple[str, type[BaseModel]]] = [
        ("top level", resolve.SeedTable),
        ("[[rewards]], besides the reward's options", resolve.RewardTable),
        *((f"[{name}]", model) for name, model in CORE_TABLES.items()),
    ]
    return NOTE + intro + "".join(options_section(title, model) for title, model in tables)


def options_section(title: str, model: type[BaseModel], path: str = "") -> str:
    """One table's keys with type, default and meaning; nested tables after it."""
    rows, nested = [], ""
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            nested += options_section(f"[{title.strip('[]')}.{name}]", field.annotation)
            continue
        about = properties[name]
        default = "required" if field.is_required() else f"`{about.get('default')!r}`".replace("None", "unset")
        rows.append((f"`{name}`", option_type(about), default, " ".join(about.get("description", "").split())))
    return f"\n## {title}\n\n" + table(("Key", "Type", "Default", "Meaning"), rows) + nested


# --- errors, hooks, interface


def errors_page() -> str:
    """The exception tree and its exit codes."""
    found = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.RlzooError)]
    found.sort(key=lambda cls: (cls.exit_code, cls.__name__))
    rows = [(f"`{cls.__name__}`", f"`{cls.__mro__[1].__name__}`", str(cls.exit_code), doc(cls)) for cls in found]
    intro = (
        "# Errors and exit codes\n\n"
        "Every expected failure is one of these. The command line prints `error:` with the problem, and `hint:` with\n"
        "a way to solve it. `--debug` adds the traceback. Any other exception is a bug. It keeps its traceback and\n"
        "exits with 1. A misspelt flag exits with 2 too.\n\n"
    )
    return NOTE + intro + table(("Class in `rlzoo.errors`", "Base", "Exit code", "Meaning"), rows)


def hooks_page() -> str:
    """The hooks and the records they announce."""
    hooks = [(f"`{HOOK[kind]}`", doc(getattr(plugin.Hooks, HOOK[kind]))) for kind in plugin.KINDS]
    parts = [
        NOTE + "# Hooks and records\n",
        "A plugin package announces itself in the entry-point group `rlzoo`. Its `__init__.py` implements one or\n"
        "more of these hooks with `@hookimpl` and imports nothing heavy. The hooks only announce.\n",
        table(("Hook", "Meaning"), hooks),
    ]
    for cls in (
        plugin.Spec,
        plugin.AlgorithmSpec,
        plugin.PolicySpec,
        plugin.RewardSpec,
        plugin.PromptSpec,
        plugin.ObserverSpec,
    ):
        meanings = attribute_docs(cls)
        rows = [(f"`{f.name}`", f"`{f.type}`", meanings.get(f.name, "")) for f in fields(cls) if f.name in vars_of(cls)]
        parts.append(
            f"## `{cls.__name__}`\n\n{doc(cls)}\n\n" + (table(("Field", "Type", "Meaning"), rows) if rows else "")
        )
    parts.append(
        "## Environment\n\n"
        + table(
            ("Variable", "Meaning"),
            [
                ("`RLZOO_DISABLE_PLUGINS`", "Entry points not to load, separated by commas, or `all`."),
                ("`RLZOO_STRICT_PLUGINS`", "`1`: the first plugin that fails to load is an error, as in our tests."),
                ("`RLZOO_CACHE`", "Folder for downloaded weights."),
                ("`RLZOO_OFFLINE`", "`1`: download nothing."),
            ],
        )
    )
    return "\n".join(parts)


def api_page() -> str:
    """Public names, with the first line of what they say of themselves."""
    parts = [
        NOTE + "# Public interface\n",
        "The public interface is everything that these modules export, and nothing else.\n"
        "`tests/api.txt` has the signatures.\n",
    ]
    for name in PUBLIC:
        module = importlib.import_module(f"rlzoo.{name}")
        rows = [(f"`{item}`", doc(getattr(module, item))) for item in exported(module)]
        parts.append(f"## `rlzoo.{name}`\n\n{doc(module)}\n\n" + table(("Name", "Meaning"), rows))
    return "\n".join([*parts, *data_fields()])


def data_fields() -> Iterable[str]:
    """Fields of what `rlzoo.api` moves around, with shapes. Letters: see the docstring of `rlzoo.core.types`."""
    yield "## Fields\n"
    yield " ".join((inspect.getdoc(types) or "").split("\n\n")[1].split()) + "\n"
    for name in exported(api):
        cls = getattr(api, name)
        if not is_dataclass(cls):
            continue
        meanings = attribute_docs(cls)
        rows = [(f"`{f.name}`", f"`{f.type}`", meanings.get(f.name, "")) for f in fields(cls)]
        yield f"### `{name}`\n\n{doc(cls)}\n\n" + table(("Field", "Type", "Meaning"), rows)


def api_dump() -> str:
    """Signatures of the public interface, one line each."""
    lines: list[str] = []
    for name in PUBLIC:
        module = importlib.import_module(f"rlzoo.{name}")
        for item in exported(module):
            lines += dump(f"rlzoo.{name}.{item}", getattr(module, item))
    return "\n".join(lines) + "\n"


def dump(path: str, value: Any) -> Iterable[str]:
    """Lines for one public object: its signature, and for a class its fields and methods."""
    if not inspect.isclass(value):
        yield f"{path}{signature(value)}" if inspect.isfunction(value) else f"{path}: {type(value).__name__}"
        return
    bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
    yield f"class {path}({bases})"
    for name, annotation in sorted(vars_of(value).items()):
        if not name.startswith("_"):
            yield f"{path}.{name}: {annotation}"
    for name, member in sorted(vars(value).items()):
        if name.startswith("_") and name != "__init__":
            continue
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if isinstance(function, property):
            yield f"{path}.{name} -> {inspect.signature(function.fget).return_annotation}"
        elif inspect.isfunction(function) and not (name == "__init__" and is_dataclass(value)):
            yield f"{path}.{name}{signature(function)}"


def signature(function: Any) -> str:
    """As written, without the quotes of postponed annotations."""
    return re.sub(r"'([^']*)'", r"\1", str(inspect.signature(function)))


def exported(module: Any) -> list[str]:
    """Names in `__all__`; where there is none, public names that the module defines itself."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return sorted(n for n, v in vars(module).items() if not n.startswith("_") and own(module, v))


def own(module: Any, value: Any) -> bool:
    """True if a module defines a value, and did not import it."""
    return getattr(value, "__module__", "") == module.__name__


def vars_of(cls: type) -> Mapping[str, Any]:
    """Annotations of the class itself."""
    return inspect.get_annotations(cls)


def attribute_docs(cls: type) -> dict[str, str]:
    """The string below each field, as pydantic reads it; dataclasses keep it in the source only."""
    found = re.findall(r"^    (\w+): [^\n]*\n    \"\"\"(.*?)\"\"\"", inspect.getsource(cls), re.DOTALL | re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def doc(value: Any) -> str:
    """First sentence or line of a docstring; nothing for plain values."""
    if not (inspect.ismodule(value) or inspect.isclass(value) or inspect.isfunction(value)):
        return ""
    return (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ")


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def main() -> None:
    """Write every page that differs."""
    for path, make in pages().items():
        content = make()
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            sys.stdout.write(f"written: {path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
