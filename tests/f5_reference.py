"""The published F5-TTS and Vocos code, to compare with. Its trainer's dependencies are stood in for: no test trains."""

from __future__ import annotations

import sys
import types
import warnings

import pytest

_TRAINING = ("accelerate", "accelerate.utils", "datasets", "ema_pytorch", "wandb", "jieba")
_UNUSED = ("f5_tts.model.trainer", "f5_tts.model.dataset")


class _Blank(types.ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def f5_tts() -> types.ModuleType:
    """`f5_tts.model`: DiT, CFM; the test is skipped where the package or what it imports is absent."""
    pytest.importorskip("f5_tts", reason="the reference package f5-tts is not installed (extra `references`)")
    blanks = [name for name in (*_TRAINING, *_UNUSED) if name not in sys.modules]
    sys.modules.update({name: _Blank(name) for name in blanks})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import f5_tts.model
    except ImportError as error:
        pytest.skip(f"the reference package f5-tts cannot be imported: {error}")
    finally:
        for name in blanks:
            del sys.modules[name]
    return f5_tts.model


def vocos() -> types.ModuleType:
    """`vocos`; the test is skipped where it is absent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("vocos", reason="the reference package vocos is not installed", exc_type=ImportError)
        import vocos.heads
        import vocos.models
    return vocos
