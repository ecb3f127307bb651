"""Reinforcement learning for speech models that denoise: algorithms, policies and rewards as plugins.

    import rlzoo

    run = rlzoo.run(algo="dlpo", reward="utmos", steps=14)
    print(run.gain)
    run.policy.speak("Hello.").save("hello.wav")

Importing this package imports nothing heavy: `run`, `resume`, `load`, `evaluate` and `Run` are looked up when they are
first used. Plugins use `rlzoo.plugin`, `rlzoo.api`, `rlzoo.functional` and `rlzoo.testing`.
"""

from __future__ import annotations

from rlzoo.version import __version__

TYPE_CHECKING = False  # as type checkers read it; importing `typing` would double the time of this import
if TYPE_CHECKING:
    from rlzoo.api import reward_from
    from rlzoo.runs import Evaluation, Run, Speech, Voice, evaluate, load, resume, run

__all__ = ["Evaluation", "Run", "Speech", "Voice", "__version__", "evaluate", "load", "resume", "reward_from", "run"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'rlzoo' has no attribute '{name}'")
    if name == "reward_from":
        import rlzoo.api

        return rlzoo.api.reward_from
    import rlzoo.runs

    return getattr(rlzoo.runs, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
