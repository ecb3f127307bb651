"""rlzoo from Python: start a run, look at its results, speak with the tuned policy, evaluate it.

`import rlzoo` offers these names; torch is imported when a function is called.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlzoo.config import toml
from rlzoo.config.layers import override
from rlzoo.config.registry import discover
from rlzoo.engine import start as engine
from rlzoo.engine.progress import ConsoleReporter, summary
from rlzoo.engine.results import result_of
from rlzoo.engine.start import Reporter
from rlzoo.errors import ConfigError, DataError
from rlzoo.files.rundir import RunDirectory

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from rlzoo.config.resolve import ResolvedRun
    from rlzoo.core.policy import Policy
    from rlzoo.core.reward import RewardFunction
    from rlzoo.engine.events import RunResult

Names = str | Sequence[str]
Overrides = Mapping[str, Any]
"""`{"train.learning_rate": 0.01}`: what `--set` is on the command line."""


def run(
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    algo: str = "",
    reward: str | RewardFunction | Sequence[str | RewardFunction] = (),
    policy: str = "",
    prompts: str = "",
    observe: Names = (),
    steps: int | None = None,
    seed: int | None = None,
    device: str = "",
    preset: str = "",
    overrides: Overrides | None = None,
    out: str | Path | None = None,
    strict: bool = False,
    plugins: Iterable[str | Path] = (),
    progress: bool = True,
) -> Run:
    """Fine-tune a policy with reinforcement learning, as `rlzoo run` does, and return the finished run.

    `config` is a run file's path or its content; the other arguments override it. `reward` is one name or several,
    whose scores are added; instead of a name, a function (samples, prompts) -> one number per sample, which must stand
    at the top of a module or script, so that a resumed run finds it again. `observe` names observers, such as
    `tensorboard`. `overrides` sets any value, such as `{"algorithm.clip": 0.1}`. `out` is the directory to
    make; default: a new one under `runs/`. `strict` refuses the fallback of a reward whose weights are unavailable.

    Raises ConfigError for a wrong name or value, PluginError for a broken plugin, DataError for unavailable weights or
    a full disk, Diverged if a loss stops being finite, and Interrupted after Ctrl-C, when all is saved.
    """
    prepared = engine.prepare(
        Path(config) if isinstance(config, str) else config,
        algo=algo,
        rewards=[_reward(one) for one in ([reward] if isinstance(reward, str) or callable(reward) else reward)],
        policy=policy,
        prompts=prompts,
        observers=[observe] if isinstance(observe, str) else list(observe),
        seed=seed,
        device=device,
        steps=steps,
        preset=preset,
        overrides=_assignments(overrides),
        plugins=[Path(path) for path in plugins],
    )
    where = None if out is None else Path(out)
    result = engine.start(prepared, where, strict=strict, command="from Python", reporter=_reporter(progress))
    return Run(result.directory)


def resume(
    path: str | Path, *, steps: int | None = None, device: str = "", trust: bool = False, progress: bool = True
) -> Run:
    """Continue an interrupted run, or train a finished one further with a larger number of `steps`.

    `trust` runs the plugins and programs that it names although somebody else has made it.
    Raises DataError if `path` is not a run, and what `run` raises.
    """
    result = engine.resume(Path(path), steps=steps, device=device, trust=trust, reporter=_reporter(progress))
    return Run(result.directory)


def load(
    source: str | Path = "",
    *,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    start: bool = False,
    trust: bool = False,
) -> Voice:
    """A policy to speak with: of a run directory, of one checkpoint in it, of a weight file, or by name.

    `""` is the default policy with the voice that ships. `options` are the policy's own, for a weight file or a name.
    `start` gives what a run started from. `trust` loads the plugins that somebody else's run names.

    Raises DataError for a path that does not exist or is damaged, ConfigError
    for an unknown policy or option, or one that does not make audio.
    """
    from rlzoo.engine import speak
    from rlzoo.engine.source import policy_source

    registry = discover()
    # A folder or a file of that name comes first; `nobody` without one is a wrong name rather than a wrong path.
    named = source == "" or (isinstance(source, str) and source.isidentifier() and not Path(source).exists())
    found = policy_source(None if named else Path(source), str(source) if named else "", options or {}, registry)
    return Voice(speak.load(found, device, start=start, trust=trust))


def evaluate(
    target: str | Path | Run,
    *,
    judges: Names = (),
    base: str | Path | None = None,
    prompts: str = "heldout",
    count: int = 0,
    samples_per_prompt: int = 2,
    num_steps: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    overrides: Overrides | None = None,
    plugins: Iterable[str | Path] = (),
    trust: bool = False,
) -> Evaluation:
    """Judge a run, a checkpoint, a weight file or a folder of recordings, and compare it with its base.

    `judges` are rewards that only judge; a run's own always judge too. `base` is what to compare with; default: what
    the run started from. Base and tuned speak the same prompts with the same noise. `count` limits the prompts; 0
    takes all. `trust` runs what somebody else's run names.

    Raises ConfigError, PluginError and DataError as `rlzoo eval` does.
    """
    from rlzoo.engine.scorecache import open_cache
    from rlzoo.evaluation.judge import judge
    from rlzoo.evaluation.targets import Request, find_subjects, plan_evaluation

    tables: dict[str, Any] = {}
    for item in _assignments(overrides):
        tables = override(tables, item)
    asked = Request(
        judges=[judges] if isinstance(judges, str) else list(judges),
        prompts=prompts,
        policy="",
        tables=tables,
        registry=discover(files=[Path(path) for path in plugins]),
        count=count,
        samples_per_prompt=samples_per_prompt,
        num_steps=num_steps,
        seed=seed,
        device=device,
        trust=trust,
    )
    path = target.directory if isinstance(target, Run) else Path(target)
    (subject,) = find_subjects([path], asked)
    plan = plan_evaluation(subject, None if base is None else Path(base), asked)
    return Evaluation(judge(plan, asked, open_cache(), lambda label, done, total: None))


class Run:
    """A run on disk: its configuration, metrics, held-out scores, and the policy it has trained.

    `Run(path)` opens one that was made before. DataError if `path` is not a run directory.
    """

    def __init__(self, path: str | Path) -> None:
        self._folder = RunDirectory.open(Path(path))

    @property
    def directory(self) -> Path:
        """Directory of the run."""
        return self._folder.path

    @property
    def config(self) -> dict[str, Any]:
        """Every value of the run, as in `config.json`."""
        return self._folder.config()

    @property
    def status(self) -> str:
        """`running`, `done`, `failed` or `interrupted`."""
        return str(self._folder.status().get("state", ""))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One dictionary per optimisation step."""
        return self._folder.metrics()

    @property
    def scores(self) -> Mapping[str, Mapping[str, float]]:
        """Held-out scores after the newest evaluation: `mean`, `std`, and against the base `gain`, `gain_error`."""
        return self._result().scores

    @property
    def gain(self) -> float:
        """By how much the held-out reward has risen over the base: the mean over prompts, in the reward's units."""
        gains = self._result().scores["total"]
        if "gain" not in gains:
            raise DataError(f"'{self.directory}' has no evaluation after its first step", "let it run, or resume it")
        return float(gains["gain"])

    @property
    def report(self) -> Path | None:
        """The HTML report, once the run is done."""
        return self._result().report

    @cached_property
    def policy(self) -> Voice:
        """The tuned policy, from the newest checkpoint."""
        return load(self.directory)

    @cached_property
    def base(self) -> Voice:
        """The policy that the run started from."""
        return load(self.directory, start=True)

    def resume(self, *, steps: int | None = None, device: str = "", progress: bool = True) -> Run:
        """Continue this run; see `rlzoo.resume`."""
        return resume(self.directory, steps=steps, device=device, progress=progress)

    def evaluate(self, **options: Any) -> Evaluation:
        """Judge this run against its base; options as of `rlzoo.evaluate`."""
        return evaluate(self, **options)

    def __repr__(self) -> str:
        return f"Run({str(self.directory)!r})"

    def __str__(self) -> str:
        return summary(self._resolved(), self._result()).strip()

    def _resolved(self) -> ResolvedRun:
        from rlzoo.config.opening import open_run

        return open_run(self._folder, uses=())

    def _result(self) -> RunResult:
        return result_of(self._folder)


class Voice:
    """A policy that speaks. `module` is the policy itself, a torch module in eval mode."""

    def __init__(self, module: Policy) -> None:
        if module.media.kind != "audio" or module.media.sample_rate is None:
            raise ConfigError(f"this policy makes {module.media.kind}, not audio", "name a policy that speaks")
        self.module = module

    @property
    def sample_rate(self) -> int:
        """Sampling rate of its audio in Hz."""
        assert self.module.media.sample_rate is not None
        return self.module.media.sample_rate

    def speak(self, text: str, *, seed: int = 0, num_steps: int | None = None) -> Speech:
        """Speak a text as one utterance. The same seed gives the same audio, as with `rlzoo synth`.

        `num_steps` is the number of denoising steps; default: the policy's. Raises ConfigError for an empty text or a
        number of steps that the policy cannot do, and DataError for text that it cannot pronounce.
        """
        from rlzoo.core.types import Prompt
        from rlzoo.engine.speak import speak

        if not text.strip():
            raise ConfigError("the text is empty", "give something to say")
        samples = speak(self.module, [Prompt("synth", text)], [seed], num_steps)
        return Speech(samples.row(0).cpu(), self.sample_rate, text)


@dataclass(frozen=True, eq=False)
class Speech:
    """One utterance: `wave` (L,) float32 in [-1, 1]. A notebook shows it with a player."""

    wave: Tensor
    sample_rate: int
    text: str = ""

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.wave) / self.sample_rate

    def numpy(self) -> np.ndarray:
        """(L,) float32."""
        array: np.ndarray = self.wave.numpy()
        return array

    def save(self, path: str | Path) -> Path:
        """Write a 16-bit mono WAV. DataError for a file that cannot be written."""
        from rlzoo.speech.audio import write_audio

        return write_audio(path, self.wave, self.sample_rate)

    def __repr__(self) -> str:
        return f"Speech({self.seconds:.2f} s at {self.sample_rate} Hz, {self.text!r})"

    def _repr_html_(self) -> str:
        """A player with the audio inside, for notebooks."""
        import soundfile

        content = io.BytesIO()
        soundfile.write(content, self.numpy(), self.sample_rate, format="WAV", subtype="PCM_16")
        data = base64.b64encode(content.getvalue()).decode("ascii")
        return f'<audio controls src="data:audio/wav;base64,{data}"></audio>'


class Evaluation:
    """Scores of a policy or of recordings, against a base if there is one. `print` shows the tables.

    `document` holds everything, as `rlzoo eval --json` prints it.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    @property
    def scores(self) -> dict[str, float]:
        """Mean of each score over prompts."""
        return {name: one["mean"] for name, one in self.document["scores"].items()}

    @property
    def gains(self) -> dict[str, float]:
        """Mean change of each score against the base; empty without a base."""
        return {name: one["gain"] for name, one in (self.document["paired"] or {}).items()}

    @property
    def hacked(self) -> bool | None:
        """True if the training reward has risen while an independent judge has fallen; None if nothing can tell."""
        verdict = self.document["hacking"]
        return None if verdict is None else bool(verdict["hacked"])

    def __repr__(self) -> str:
        return f"Evaluation({self.document['target']!r}, {self.scores})"

    def __str__(self) -> str:
        from rlzoo.evaluation.tables import as_text

        return as_text(self.document)


def _reward(asked: str | RewardFunction) -> str | dict[str, Any]:
    """The value of `--reward`; for a function, the module or the script that defines it."""
    if isinstance(asked, str):
        return asked
    name, module = getattr(asked, "__qualname__", ""), getattr(asked, "__module__", "")
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(
            f"the reward {name or asked!r} cannot be found again by its name",
            "define it with `def` at the top of a module, of a script or of a notebook",
        )
    script = getattr(sys.modules.get(module), "__file__", None) if module == "__main__" else None
    return {"name": "function", "function": f"{script or module}:{name}"}


def _reporter(progress: bool) -> Reporter:
    return ConsoleReporter(summarise=False) if progress else engine.Silent()


def _assignments(overrides: Overrides | None) -> list[str]:
    return [f"{key}={toml.value(value)}" for key, value in (overrides or {}).items()]


__all__ = ["Evaluation", "Run", "Speech", "Voice", "evaluate", "load", "resume", "run"]
