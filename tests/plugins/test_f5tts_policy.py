"""F5-TTS as a policy: the published sampler's trajectory, the contract, what a prompt brings, bad input."""

from __future__ import annotations

import pytest
import torch
from f5_reference import f5_tts
from f5_tiny import CONFIG, VOICE_TEXT, make, randomise, reference
from rlzoo_f5tts.checkpoint import read_model
from rlzoo_f5tts.mel import HOP
from rlzoo_f5tts.policy import SPACED, F5TTSPolicy
from rlzoo_f5tts.text import as_reference
from rlzoo_f5tts.voice import trimmed

from rlzoo.api import Batch, Prompt, Schedule
from rlzoo.audio import read_audio, to_samples, write_audio
from rlzoo.errors import ConfigError, DataError
from rlzoo.testing.policies import CHECKS, PROMPTS, PolicySubject
from rlzoo.testing.results import Skipped


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return make(tmp_path_factory.mktemp("f5"))


@pytest.fixture(scope="module")
def policy(options):
    return F5TTSPolicy(options)


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check, options):
    lora = check.__name__ in ("copies_are_independent", "gradient_reaches_parameters")
    chosen = options.model_copy(update={"trainable": "lora"} if lora else {})
    try:
        check(PolicySubject(lambda: F5TTSPolicy(chosen), prompts=PROMPTS[:2]))
    except Skipped as reason:
        pytest.skip(str(reason))


def ode(policy, cond, noise, steps):
    """Every step without noise."""
    schedule = policy.schedule(steps)
    schedule = Schedule(schedule.times, torch.zeros_like(schedule.stochastic))
    x = noise
    for k in range(steps):
        x = policy.transition(x, torch.full((len(x),), k), cond, schedule).mode
    return x


@pytest.mark.parametrize(("steps", "guidance", "sway"), [(6, 2.0, -1.0), (8, 0.0, 0.4)])
def test_the_ode_is_the_packages_sampler(options, steps, guidance, sway):
    package = f5_tts()
    mine = F5TTSPolicy(options.model_copy(update={"guidance": guidance, "sway": sway}))
    randomise(mine.network, spread=0.1)
    transformer = package.DiT(
        dim=64, depth=2, heads=1, dim_head=64, ff_mult=1.5, text_dim=16, conv_layers=1, mel_dim=100,
        text_num_embeds=CONFIG.vocabulary,
    )  # fmt: skip
    transformer.load_state_dict(mine.network.state_dict())
    cfm = package.CFM(transformer=transformer, vocab_char_map=mine.vocabulary).eval()
    prompt = Prompt("a", "Come in, please.")
    cond = mine.condition([prompt])
    frames, known = int(cond.get("frames")), int(cond.get("known"))
    torch.manual_seed(3)
    noise = torch.randn(frames, 100)
    given = cond.get("reference")[:, :, :known].transpose(1, 2)
    tokens = package.utils.convert_char_to_pinyin([as_reference(VOICE_TEXT) + prompt.text])
    expected, path = cfm.sample(
        given, tokens, frames, steps=steps, cfg_strength=guidance, sway_sampling_coef=sway, seed=3
    )
    with torch.no_grad():
        found = ode(mine, cond, noise.t()[None], steps)
    assert torch.equal(path[0][0], noise)
    assert float((found.transpose(1, 2) - expected).abs().max()) < 1e-4


def test_as_long_as_the_package_makes_it(policy):
    """Frames from samples and bytes, as `infer_batch_process` counts them."""
    wave, _ = read_audio(policy.options.voice)
    for text in ("Go on.", "It is late, and we should go home now."):
        cond = policy.condition([Prompt("a", text)])
        known = len(trimmed(wave, 24_000)) // HOP
        speed = 0.3 if len(text) < 10 else 1.0
        expected = known + int(known / len(as_reference(VOICE_TEXT)) * len(text) / speed)
        assert int(cond.get("frames")) == expected
        assert (
            int(policy.decode(torch.zeros(1, *policy.state_shape(cond)), cond).lengths) == (expected - known - 1) * HOP
        )


def test_times_are_the_published_ones(policy):
    for steps, spaced in SPACED.items():
        u = torch.tensor(spaced, dtype=torch.float64) / 32
        swayed = u - (torch.cos(torch.pi / 2 * u) - 1 + u)
        assert float((policy.schedule(steps).times - (1 - swayed)).abs().max()) < 1e-12
    assert len(policy.schedule(9)) == 9


def test_the_reference_is_kept_and_gets_no_noise(policy):
    cond, schedule = policy.condition(PROMPTS[:2]), policy.schedule()
    known = int(cond.get("known")[0])
    x = torch.randn(2, *policy.state_shape(cond), generator=torch.Generator().manual_seed(0))
    first, last = (torch.full((2,), k) for k in (0, len(schedule) - 1))
    with torch.no_grad():
        step = policy.transition(x, first, cond, schedule)
        drawn = step.rsample(torch.ones_like(x)) - step.mode
        end = policy.transition(x, last, cond, schedule).mode
    assert not drawn[..., :known].any()
    assert bool((drawn[0, :, known : int(cond.get("frames")[0])] > 0).all())
    assert torch.equal(end[..., :known], cond.get("reference")[..., :known])
    # Neither density nor loss looks at the reference.
    other = x.clone()
    other[..., :known] += 1
    assert torch.equal(step.log_prob(other), step.log_prob(x))
    assert torch.equal(policy.error(other, x, cond), torch.zeros(2))


def test_on_the_line_the_reference_goes_straight_to_the_recording(options):
    policy = F5TTSPolicy(options.model_copy(update={"reference_path": "line", "guidance": 0.0}))
    cond, schedule = policy.condition(PROMPTS[:1]), policy.schedule()
    known = int(cond.get("known"))
    noise = torch.randn(1, *policy.state_shape(cond), generator=torch.Generator().manual_seed(0))
    x = noise
    with torch.no_grad():
        for k in range(2):
            x = policy.transition(x, torch.tensor([k]), cond, schedule).rsample(torch.ones_like(x))
    t = float(schedule.times[2])
    expected = (1 - t) * cond.get("reference") + t * noise
    assert float((x - expected)[..., :known].abs().max()) < 1e-5


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_cps_exchanges_a_share_of_the_noise_on_new_frames(options, guidance):
    """Flow-CPS (arXiv:2509.05952) in float64: (1 - s) clean + s (cos(a pi / 2) noise + sin(a pi / 2) fresh noise)."""
    policy = F5TTSPolicy(options.model_copy(update={"noise_form": "cps", "noise_level": 0.8, "guidance": guidance}))
    cond, schedule = policy.condition(PROMPTS[:2]), policy.schedule()
    new = policy.mask(cond)
    x = torch.randn(2, *policy.state_shape(cond), generator=torch.Generator().manual_seed(0))
    untold = Batch({**cond.tensors, "told": torch.zeros(2, dtype=torch.bool)})
    share = torch.tensor(0.8 * torch.pi / 2, dtype=torch.float64)
    for k in range(len(schedule)):
        t, s = schedule.times[k], schedule.times[k + 1]
        with torch.no_grad():
            step = policy.transition(x, torch.full((2,), k), cond, schedule)
            told, not_told = (policy.predict(x, t.float().expand(2), c).double() for c in (cond, untold))
        v = told + guidance * (told - not_told)
        last = k == len(schedule) - 1
        kept = torch.ones(()) if last else share.cos()
        expected = (1 - s) * (x - t * v) + s * kept * (x + (1 - t) * v)
        assert float(((step.mean - expected) * new).abs().max()) < 1e-4
        assert float(step.std[0]) == pytest.approx(0.0 if last else float(s * share.sin()), abs=1e-6)
        drawn = step.rsample(torch.ones_like(x)) - step.mode
        assert not drawn[~new].any(), "what is known gets no noise"


def test_guidance_moves_away_from_what_is_told_nothing(options, policy):
    plain = F5TTSPolicy(options.model_copy(update={"guidance": 0.0}))
    cond, schedule = policy.condition(PROMPTS[:1]), policy.schedule()
    x, k = torch.randn(1, *policy.state_shape(cond), generator=torch.Generator().manual_seed(0)), torch.tensor([1])
    untold = Batch({**cond.tensors, "told": torch.zeros(1, dtype=torch.bool)})
    with torch.no_grad():
        t = schedule.times[k].float()
        told, not_told = policy.predict(x, t, cond), policy.predict(x, t, untold)
        guided = policy.transition(x, k, cond, schedule).mean
        expected = plain.transition(x, k, cond, schedule, told + 2 * (told - not_told)).mean
    assert float((told - not_told).abs().max()) > 0.01
    assert float((guided - expected).abs().max()) < 1e-5


def test_a_prompts_voice_counts_before_the_options(policy, tmp_path):
    other = reference(tmp_path / "other.wav", 0.9)
    prompt = Prompt("a", "Come in, please.", {"voice": str(other), "voice_text": "Another voice.", "speed": 2.0})
    own, theirs = (policy.condition([p]) for p in (Prompt("a", prompt.text), prompt))
    assert int(theirs.get("known")) > int(own.get("known"))
    made = [int(cond.get("frames") - cond.get("known")) for cond in (own, theirs)]
    assert made[1] == pytest.approx(made[0] * (0.9 / 0.6) * len(VOICE_TEXT) / len("Another voice.") / 2, rel=0.15)


def test_quiet_references_are_raised_and_what_is_made_lowered(policy, tmp_path):
    wave, rate = read_audio(policy.options.voice)
    quiet = write_audio(tmp_path / "quiet.wav", 0.25 * wave, rate)
    prompts = [Prompt("a", "Come in, please.", {"voice": str(p), "voice_text": "Good."}) for p in
               (policy.options.voice, quiet)]  # fmt: skip
    cond = policy.condition(prompts)
    assert float(cond.get("gain")[0]) == pytest.approx(4 * float(cond.get("gain")[1]), rel=0.01)
    a, b = cond.get("reference")
    assert float((a - b).abs().mean()) < 0.02


def test_recordings_become_states_behind_the_reference(policy):
    wave = 0.05 * torch.randn(12_000, generator=torch.Generator().manual_seed(1))
    prompt = Prompt("a", "Come in, please.")
    states, cond = policy.supervise([prompt], to_samples([wave], 24_000))
    known = int(cond.get("known"))
    gain = float(cond.get("gain"))
    assert states.shape == (1, 100, known + 12_000 // HOP + 1) == (1, *policy.state_shape(cond))
    assert torch.equal(states[..., :known], cond.get("reference")[..., :known])
    assert float((states[0, :, known:] - policy.mel(wave / gain)).abs().max()) < 1e-5


def test_what_is_written_is_read_by_the_policy_again(options, tmp_path):
    policy = F5TTSPolicy(options.model_copy(update={"trainable": "lora"}))
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02)
    policy.export(tmp_path / "tuned.safetensors")
    files = {"checkpoint": tmp_path / "tuned.safetensors", "vocabulary": options.checkpoint.with_name("vocab.txt")}
    again = F5TTSPolicy(options.model_copy(update=files))
    cond = policy.condition(PROMPTS[:1])
    x, t = torch.randn(1, *policy.state_shape(cond), generator=torch.Generator().manual_seed(0)), torch.tensor([0.5])
    with torch.no_grad():
        assert float((again.predict(x, t, cond) - policy.predict(x, t, cond)).abs().max()) < 1e-5
        plain = F5TTSPolicy(options).predict(x, t, cond)
    assert float((again.predict(x, t, cond).detach() - plain).abs().max()) > 1e-3
    assert read_model(tmp_path / "tuned.safetensors").config == CONFIG


def test_bad_prompts_and_recordings_are_refused(options, policy, tmp_path):
    text = "Come in, please."
    with pytest.raises(ConfigError, match="brings none"):
        F5TTSPolicy(options.model_copy(update={"voice": None})).condition([Prompt("a", text)])
    voice = {"voice": str(options.voice)}
    with pytest.raises(ConfigError, match="text of the reference"):
        policy.condition([Prompt("a", text, voice)])
    with pytest.raises(ConfigError, match="speed"):
        policy.condition([Prompt("a", text, {**voice, "voice_text": "Hm.", "speed": 0.0})])
    with pytest.raises(ConfigError, match="nothing of"):
        policy.condition([Prompt("a", "\x01", {**voice, "voice_text": "\x02"})])
    with pytest.raises(DataError, match="would last"):
        policy.condition([Prompt("a", text * 2000)])
    long = write_audio(tmp_path / "long.wav", 0.1 * torch.ones(24_000 * 13), 24_000)
    silent = write_audio(tmp_path / "silent.wav", torch.zeros(24_000), 24_000)
    short = write_audio(tmp_path / "short.wav", 0.1 * torch.ones(400), 24_000)
    cases = ((long, "more than 12 s"), (silent, "is silent"), (tmp_path / "none.wav", "none.wav"))
    for path, message in cases:
        with pytest.raises(DataError, match=message):
            policy.condition([Prompt("a", text, {"voice": str(path), "voice_text": "Hm."})])
    untrimmed = F5TTSPolicy(options.model_copy(update={"trim_silence": False}))
    with pytest.raises(DataError, match="a few seconds"):
        untrimmed.condition([Prompt("a", text, {"voice": str(short), "voice_text": "Hm."})])


def test_a_vocabulary_of_another_size_is_refused(options, tmp_path):
    (tmp_path / "vocab.txt").write_text(" \na\n")
    with pytest.raises(DataError, match="has 2 entries"):
        F5TTSPolicy(options.model_copy(update={"vocabulary": tmp_path / "vocab.txt"}))


def test_without_weights_griffin_lim_is_heard(options):
    policy = F5TTSPolicy(options.model_copy(update={"vocoder": "griffin-lim"}))
    cond = policy.condition(PROMPTS[:1])
    x = cond.get("reference").clone()
    known = int(cond.get("known"))
    x[..., known:] = x[..., :1]
    samples = policy.decode(x, cond)
    assert float(samples.row(0).abs().max()) > 0.01
