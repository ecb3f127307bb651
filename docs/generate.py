"""Generated pages: the plugin table, the reference pages, the dump of the public interface. `make docs` writes them.

`tests/test_docs.py` and `tests/test_api.py` compare the files with what this would write.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel

from rlzoo import errors, plugin
from rlzoo.cli import app
from rlzoo.cli.plugins import option_type
from rlzoo.config import resolve
from rlzoo.config.layers import presets
from rlzoo.config.registry import HOOK, NOUN, Registry, discover
from rlzoo.config.schema import CORE_TABLES

ROOT = Path(__file__).resolve().parent.parent
PUBLIC = str.split(
    "runs plugin api functional audio text corpus voices pretraining.options pretraining.loop pretraining.panel "
    "preferences parallel wav2vec2 rewards signals assets errors safepickle testing"
)
"""Public modules of `rlzoo`; nothing else is promised."""

NOTE = "<!-- Written by `make docs`; do not edit. -->\n"


def pages() -> dict[Path, Callable[[], str]]:
    """Every generated file and what makes its content."""
    return {
        ROOT / "plugins/README.md": plugins_page,
        ROOT / "docs/reference/algorithms.md": algorithms_page,
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
"""What each folder or file of `rlzoo` holds, for the picture of the architecture."""


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


WHEN: Mapping[str, str] = {
    "dlpo": "The default: a policy gradient that keeps the model a good denoiser. Try it first.",
    "ddpo": "The plain policy gradient, to compare with. It needs many samples per step.",
    "dpok": "A policy gradient with a learned baseline, if prompts differ much in difficulty.",
    "klinr": "To keep the distance to the starting policy small, with the KL as part of the reward.",
    "grpo": "Several samples per prompt, compared within their group; no value network.",
    "rwr": "Cheap and robust: good samples count more, and no trajectory is stored. Gains are small.",
    "bon": "The simplest check that a reward can be learnt: train on the best of N.",
    "awm": "Like a policy gradient, but at the price of the denoising loss; useful with few denoising steps.",
    "nft": "Learns from bad samples as well as good ones, without log-probabilities or trajectories.",
    "dpo": "Pairs: the best against the worst sample, or people's choices from a file.",
    "draft": "The fastest, if the reward is differentiable. It finds the reward's weaknesses fastest, too.",
    "onlydl": "A control without a reward: what the diffusion loss alone does.",
    "sft": "A control: supervised training with the same budget, on own samples or on recordings.",
}
"""When to use each algorithm, in one or two sentences."""

METRICS: Mapping[str, str] = {
    "policy/clip_fraction": "Share of transitions whose ratio is clipped. Near 0: small updates; above 0.3: too large.",
    "policy/ratio_max": "Largest |ratio - 1|. It is 0 before the first update of a step.",
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
}
"""What each logged metric of an algorithm means and how to read it."""


def algorithms_page() -> str:
    """One section per algorithm: when to use it, the command, its metrics, presets and options."""
    registry = first_party()
    intro = (
        "# Algorithms, one by one\n\n"
        "Every algorithm runs with the same command. Equations and deviations are in the linked READMEs;\n"
        "[this table](../algorithms.md) compares them. Every run also logs the metrics of the\n"
        "[run directory](run-directory.md), and plots reward and KL in `reward.png` and `report.html`.\n"
    )
    return NOTE + intro + "".join(algorithm_section(registry, name) for name in registry.names("algorithm"))


def algorithm_section(registry: Registry, name: str) -> str:
    """What a user of one algorithm needs to know."""
    spec = registry.algorithm(name)
    folder = f"plugins/{folder_of(spec.target.split('.')[0])}"
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / folder).glob("*.py"))
    source += (ROOT / "rlzoo/functional.py").read_text(encoding="utf-8") if "RatioMeter" in source else ""
    logged = sorted(set(re.findall(r'"((?:policy|train|reward)/[a-z_]+)"', source)) - {"reward/total"})
    needs = ", ".join(f"`{need}`" for need in sorted(spec.needs)) or "nothing special"
    named = ", ".join(f"`--preset {one}`" for one in presets(spec)) or "none"
    reward = "utmos" if "reward-grad" not in spec.needs else "dnsmos"
    return (
        f"\n## `{name}`\n\n{spec.summary[:1].upper()}{spec.summary[1:]} ({papers(spec.reference)}).\n\n"
        f"**When to use it.** {WHEN.get(name, 'See its README.')}\n\n"
        f"```sh\nrlzoo run --algo {name} --reward {reward}\n```\n\n"
        f"It needs {needs}. Presets: {named}. [Equations, deviations, tests](../../{folder}/README.md).\n\n"
        + (
            table(
                ("Logged metric", "How to read it"),
                [(f"`{one}`", METRICS.get(one, "See the README.")) for one in logged],
            )
            if logged
            else ""
        )
        + options_section("Options of `[algorithm]`", spec.options).replace("\n## ", "\n### ")
    )


# --- plugins


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
        "Each folder is an import package of its own; it uses only the public modules of `rlzoo`. A package has\n"
        "`__init__.py` (hooks and options, light), its heavy modules, and a README.\n"
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
        "A run file is TOML. `rlzoo config new` writes one with every option, `rlzoo config show` prints what a run\n"
        "would use. Layers, later ones win: built-in choices, what suits the policy, the algorithm's preset\n"
        "(`default` where none is named), the file, flags, `--set`. Unknown keys are errors. Relative paths are\n"
        "relative to where the command runs.\n\n"
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
        "[train]\n"
        "steps = 20\n"
        "```\n\n"
        "`--set key.path=value`: the value is TOML, a bare word is a string; lists are indexed from 0\n"
        "(`--set rewards.0.weight=2`); `--set 'algorithm={name=\"dlpo\"}'` replaces a whole table.\n"
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
        "Every expected failure is one of these. The command line prints `error:` with what happened to what, and\n"
        "`hint:` with what to do; the traceback comes with `--debug`. Anything else is a bug: it keeps its traceback\n"
        "and exits with 1. Exit code 2 is also that of a misspelt flag.\n\n"
    )
    return NOTE + intro + table(("Class in `rlzoo.errors`", "Base", "Exit code", "Meaning"), rows)


def hooks_page() -> str:
    """The hooks and the records they announce."""
    hooks = [(f"`{HOOK[kind]}`", doc(getattr(plugin.Hooks, HOOK[kind]))) for kind in plugin.KINDS]
    parts = [
        NOTE + "# Hooks and records\n",
        "A plugin package announces itself in the entry-point group `rlzoo`; its `__init__.py` implements one or\n"
        "more of these with `@hookimpl` and imports nothing heavy. All of them only announce.\n",
        table(("Hook", "Meaning"), hooks),
    ]
    for cls in (plugin.Spec, plugin.AlgorithmSpec, plugin.PolicySpec, plugin.RewardSpec, plugin.PromptSpec):
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
        "Everything that these modules export, and nothing else, is promised. `tests/api.txt` has the signatures.\n",
    ]
    for name in PUBLIC:
        module = importlib.import_module(f"rlzoo.{name}")
        rows = [(f"`{item}`", doc(getattr(module, item))) for item in exported(module)]
        parts.append(f"## `rlzoo.{name}`\n\n{doc(module)}\n\n" + table(("Name", "Meaning"), rows))
    return "\n".join(parts)


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
    """Whether a module defines a value, and did not import it."""
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
