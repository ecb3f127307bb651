"""Options that make a policy or a reward small, with random weights; for tests that take every plugin by its name."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import f5_tiny
import pytest
import torch

from rlzoo.config.registry import import_target, weights_at_hand
from rlzoo.plugin import PolicySpec, RewardSpec

Maker = Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]


def module_of(tests: str) -> Any:
    """The module `plugins/test_TESTS.py`, which knows how to make weights of its plugin's kind."""
    name = f"small_{tests}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"plugins/test_{tests}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def f5tts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    names = ("checkpoint", "vocoder", "voice", "voice_text", "num_steps")
    return f5_tiny.make(folder, trim_silence=False).model_dump(include={*names, "trim_silence"})


def gradtts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"checkpoint": module_of("gradtts_policy").untrained(folder / "gradtts.safetensors", 3)}


def wavegrad2(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    known = module_of("wavegrad2_policy")
    return {"checkpoint": known.wavegrad2_voice(folder, known.TINY)}


def nisqa(arguments: str) -> Maker:
    def make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        known = module_of("nisqa")
        return {"checkpoint": known.random_checkpoint(getattr(known, arguments), folder / "nisqa.tar")}

    return make


def dnsmos_pro(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"checkpoint": module_of("dnsmos_pro").scripted(folder / "pro.pt")}


def utmos(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Untrained, of one layer instead of twelve."""
    import torchaudio.models
    from rlzoo_utmos import reward
    from rlzoo_utmos.network import StrongLearner

    make = torchaudio.models.wav2vec2_model
    monkeypatch.setattr(
        torchaudio.models, "wav2vec2_model", lambda **sizes: make(**(sizes | {"encoder_num_layers": 1}))
    )
    torch.manual_seed(0)
    network = StrongLearner().eval().requires_grad_(False)
    monkeypatch.setattr(reward, "load", lambda path: network)
    (folder / "utmos.pt").touch()
    return {"checkpoint": folder / "utmos.pt"}


def similarity(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    weights = module_of("similarity").weights
    torch.save(weights._get_wrapped_function()(), folder / "ecapa.ckpt")
    return {"checkpoint": folder / "ecapa.ckpt"}  # compared with each prompt's own recording


def preference(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    from rlzoo_preference import TrainPreferenceOptions
    from rlzoo_preference.train import train

    known = module_of("preference")
    monkeypatch.setattr(known, "PROMPTS", 12)
    pairs = known.answers(folder, known.less_noise)
    train(pairs, folder / "preference.safetensors", TrainPreferenceOptions(), lambda line: None)
    return {"checkpoint": folder / "preference.safetensors"}


def process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"command": [sys.executable, "-m", "rlzoo_remote.worker", "guard", "{}"]}


def function(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    file = folder / "power.py"
    file.write_text("def power(samples, prompts):\n    return samples.data.square().sum(1) / samples.lengths\n")
    return {"function": f"{file}:power"}


def composite(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"parts": [{"name": "dnsmos"}, {"name": "guard", "floor": -1.0}]}


MAKERS: dict[str, Maker] = {
    "composite": composite,
    "dnsmos-pro": dnsmos_pro,
    "f5tts": f5tts,
    "function": function,
    "gradtts": gradtts,
    "nisqa": nisqa("V2_ARGS"),
    "nisqa-tts": nisqa("TTS_ARGS"),
    "preference": preference,
    "process": process,
    "similarity": similarity,
    "utmos": utmos,
    "wavegrad2": wavegrad2,
}
"""By plugin: options, and files in a folder that they name. Plugins without an entry are made from their defaults."""


def small(spec: PolicySpec | RewardSpec, folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Any:
    """Options of this plugin. Skips the test if the plugin's extra is missing, fails it if an entry is."""
    if spec.extra and not _is_installed(spec):
        pytest.skip(f"extra '{spec.extra}' is not installed")
    required = any(field.is_required() for field in spec.options.model_fields.values())
    if spec.name not in MAKERS and (required or not weights_at_hand(spec, spec.options())):
        pytest.fail(f"tests/small_plugins.py: say in MAKERS how to make random weights for '{spec.name}'")
    made = MAKERS[spec.name](folder, monkeypatch) if spec.name in MAKERS else {}
    return spec.options.model_validate({**made, **more})


def _is_installed(spec: PolicySpec | RewardSpec) -> bool:
    try:
        import_target(spec.target, spec.name, spec.extra)(spec.options())
    except Exception as error:
        return f"[{spec.extra}]" not in str(getattr(error, "hint", ""))
    return True
