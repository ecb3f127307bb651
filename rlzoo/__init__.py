"""Reinforcement learning for speech models that denoise: algorithms, policies and rewards as plugins.

    import rlzoo

    run = rlzoo.run(algo="dlpo", reward="utmos", steps=14)
    print(run.gain)
    run.policy.speak("Hello.").save("hello.wav")

Importing this package imports nothing: what it offers is looked up when it is first used. Plugins use `rlzoo.plugin`,
`rlzoo.api`, `rlzoo.functional` and `rlzoo.testing`.
"""

TYPE_CHECKING = False  # as type checkers read it; importing `typing` would double the time of this import
if TYPE_CHECKING:
    from rlzoo.api import reward_from
    from rlzoo.runs import Evaluation, Run, Speech, Voice, evaluate, load, resume, run
    from rlzoo.version import __version__

__all__ = ["Evaluation", "Run", "Speech", "Voice", "__version__", "evaluate", "load", "resume", "reward_from", "run"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'rlzoo' has no attribute '{name}'")
    if name == "__version__":
        import rlzoo.version

        return rlzoo.version.__version__
    if name == "reward_from":
        import rlzoo.api

        return rlzoo.api.reward_from
    import rlzoo.runs

    return getattr(rlzoo.runs, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
