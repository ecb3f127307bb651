"""`rlzoo synth`: speak a text."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from rlzoo.cli._shared import Device, PluginFiles, PolicyName, Seed, Sets, Trust, policy_options
from rlzoo.engine.console import err, out
from rlzoo.errors import ConfigError, DataError
from rlzoo.files.writing import replacing

Checkpoint = Annotated[
    Path | None, typer.Option("--checkpoint", help="A run directory, one checkpoint in it, or a policy's weight file.")
]
DenoisingSteps = Annotated[
    int | None, typer.Option("--num-steps", min=1, max=10_000, help="Denoising steps; unset: the policy's.")
]


def synth(
    text: Annotated[str, typer.Option("--text", help="Text to speak.")],
    out_file: Annotated[Path, typer.Option("--out", help="WAV file to write; -: standard output, for a player.")],
    checkpoint: Checkpoint = None,
    policy: PolicyName = "",
    voice_file: Annotated[
        Path | None, typer.Option("--voice", help="Recording of the voice to speak in, for policies that imitate one.")
    ] = None,
    voice_text: Annotated[str, typer.Option("--voice-text", help="Text spoken in --voice, word for word.")] = "",
    seed: Seed = None,
    num_steps: DenoisingSteps = None,
    device: Device = "auto",
    sets: Sets = [],  # noqa: B006
    plugin: PluginFiles = [],  # noqa: B006
    trust: Trust = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Sentence by sentence, each written while the next one is being made.")
    ] = False,
) -> None:
    """Speak a text into a WAV file.

    Without --stream the text is one utterance. With it every sentence is one, with seed SEED, SEED + 1, ... Intonation
    and pauses then ignore the sentences around, and memory and the time to the first sound do not grow with the text.
    You can play the file while it is written. If the command is stopped, the file keeps the complete sentences.

    rlzoo synth --stream --text "First. Second." --out - | play -t wav -

    rlzoo synth --policy f5tts --voice ref.wav --voice-text "What it says." --text "Something new." --out new.wav
    """
    from rlzoo.config.registry import discover
    from rlzoo.engine.source import policy_source

    if not text.strip():
        raise ConfigError("--text is empty", "give something to say")
    if (voice_file is None) != (not voice_text.strip()):
        raise ConfigError("--voice and --voice-text go together", "say what the recording says, word for word")
    if voice_file is not None and not voice_file.is_file():
        raise DataError(f"the recording '{voice_file}' does not exist", "check the path")
    to_player = str(out_file) == "-"
    if to_player and sys.stdout.isatty():
        raise ConfigError("standard output is a terminal", "pipe it into a player: --out - | play -t wav -")
    if not to_player and out_file.exists() and not force:
        raise DataError(f"'{out_file}' exists already", "choose another --out, or add --force")
    source = policy_source(checkpoint, policy, policy_options(sets), discover(files=plugin))
    from rlzoo.core.types import Prompt
    from rlzoo.engine.speak import load, speak
    from rlzoo.engine.stream import speak_sentences, write_wav
    from rlzoo.speech.audio import write_audio

    voice = load(source, device, seed=seed or 0, trust=trust)
    rate = voice.media.sample_rate
    if voice.media.kind != "audio" or rate is None:
        raise ConfigError(f"this policy makes {voice.media.kind}, not audio", "name a policy that speaks")
    if voice_file is not None and not voice.zero_shot:
        raise ConfigError("this policy speaks in its own voice, not in that of --voice", "leave it out, or use f5tts")
    whose = {} if voice_file is None else {"voice": str(voice_file), "voice_text": voice_text}
    started = time.monotonic()
    spoken = (
        speak_sentences(voice, text, seed or 0, num_steps, whose)
        if stream
        else iter([speak(voice, [Prompt("synth", text, whose)], [seed or 0], num_steps)])
    )
    first = next(spoken).row(0)  # before anything is written, for most mistakes show here
    early = f", the first sentence after {time.monotonic() - started:.2f} s" if stream else ""
    waves = itertools.chain([first], (samples.row(0) for samples in spoken))
    if to_player:
        size = write_wav(waves, rate, sys.stdout.buffer, finish=False)
    elif stream:
        with replacing(out_file) as temporary, temporary.open("wb") as file:
            size = write_wav(waves, rate, file, finish=True)
    else:
        write_audio(out_file, first, rate)
        size = len(first)
    (err if to_player else out).print(f"{out_file}: {size / rate:.2f} s at {rate} Hz{early}")
