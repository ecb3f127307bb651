"""`rlzoo synth --stream`: where sentences end, what each is, and that the first is out before the next is made."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path

import pytest
import soundfile
import torch
from rlzoo_wavegrad2 import WaveGrad2Options
from rlzoo_wavegrad2.policy import WaveGrad2Policy

from rlzoo import cli
from rlzoo.api import Prompt
from rlzoo.audio import read_audio, write_audio
from rlzoo.engine.speak import speak
from rlzoo.engine.stream import header, pcm, sentences, speak_sentences, write_wav

TEXT = "Go. Why? Now!"

SENTENCES = {
    "The light is green. Why did you go? Stop!": ["The light is green.", "Why did you go?", "Stop!"],
    "Dr. No met Mr. J. R. R. Bond, e.g. in the U.S. Army.": ["Dr. No met Mr. J. R. R. Bond, e.g. in the U.S. Army."],
    "See Fig. 3 and no. 5. I said no. He did not.": ["See Fig. 3 and no. 5.", "I said no.", "He did not."],
    "So did I. It cost 3.50 dollars at 5 p.m. The end.": ["So did I.", "It cost 3.50 dollars at 5 p.m.", "The end."],
    '"Really?" he said. (He was late.) "Yes!" She left.': [
        '"Really?" he said.',
        "(He was late.)",
        '"Yes!"',
        "She left.",
    ],
    "A heading\n\nA line\nthat goes on ... and ends…  ...\n": ["A heading", "A line\nthat goes on ... and ends…"],
    "no stop at all": ["no stop at all"],
    " ... ": [" ... "],
}


@pytest.mark.parametrize("text", SENTENCES)
def test_sentences_end_where_a_reader_would_say(text: str) -> None:
    assert sentences(text) == SENTENCES[text]
    missing = set(text) - set("".join(SENTENCES[text]))
    assert not any(char.isalnum() for char in missing)


@pytest.fixture(scope="module")
def voice() -> WaveGrad2Policy:
    return WaveGrad2Policy(WaveGrad2Options(pace=4.0))


def test_a_sentence_of_a_stream_is_the_sentence_alone(voice: WaveGrad2Policy) -> None:
    found = [samples.row(0) for samples in speak_sentences(voice, TEXT, 5)]
    for index, (wave, text) in enumerate(zip(found, ("Go.", "Why?", "Now!"), strict=True)):
        assert torch.equal(wave, speak(voice, [Prompt("other", text)], [5 + index]).row(0))


def test_the_first_sentence_is_out_before_the_second_is_made(voice: WaveGrad2Policy) -> None:
    waves = [torch.full((400,), 0.1), torch.full((300,), 0.2), torch.full((500,), -0.3)]
    heard = threading.Event()
    reader, writer = os.pipe()
    received = []

    def listen() -> None:
        with open(reader, "rb") as stream:
            received.append(stream.read(44 + 2 * 400))
            heard.set()
            received.append(stream.read())

    def make():
        yield waves[0]
        assert heard.wait(30), "the first sentence waits for the second"
        yield from waves[1:]

    thread = threading.Thread(target=listen)
    thread.start()
    with open(writer, "wb") as file:
        assert write_wav(make(), 8000, file, finish=False) == 1200
    thread.join()
    assert received[0] == header(8000) + pcm(waves[0], 8000)
    # A header without the length is read to the end.
    data, rate = soundfile.read(io.BytesIO(b"".join(received)), dtype="float32")
    assert rate == 8000
    torch.testing.assert_close(torch.from_numpy(data), torch.cat(waves), atol=1 / 32767, rtol=0)


def test_a_finished_file_is_one_written_at_once_and_a_broken_off_one_is_whole(tmp_path: Path) -> None:
    wave = 1.2 * torch.sin(torch.arange(5000) / 7)
    write_audio(tmp_path / "once.wav", wave, 16000)
    with (tmp_path / "parts.wav").open("wb") as file:
        write_wav(wave.split(1500), 16000, file, finish=True)
    assert (tmp_path / "parts.wav").read_bytes() == (tmp_path / "once.wav").read_bytes()

    def breaks():
        yield wave[:1500]
        raise RuntimeError("the second sentence fails")

    with (tmp_path / "broken.wav").open("wb") as file, pytest.raises(RuntimeError, match="second sentence"):
        write_wav(breaks(), 16000, file, finish=True)
    assert torch.equal(read_audio(tmp_path / "broken.wav")[0], read_audio(tmp_path / "once.wav")[0][:1500])


def test_a_reader_that_has_gone_ends_the_making() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    made = []

    def make():
        for index in range(1000):
            made.append(index)
            yield torch.zeros(4000)

    with open(writer, "wb", buffering=0) as file, pytest.raises(BrokenPipeError):
        write_wav(make(), 8000, file, finish=False)
    assert len(made) < 20


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    fast = ["--policy", "wavegrad2", "--set", "policy.pace=4.0", "--device", "cpu", "--seed", "5"]
    monkeypatch.setattr(sys, "argv", ["rlzoo", "synth", *arguments, *fast])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_the_command_writes_to_files_and_to_a_player(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
    voice: WaveGrad2Policy,
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = torch.cat([samples.row(0) for samples in speak_sentences(voice, TEXT, 5)])
    write_audio("expected.wav", expected, 8000)
    expected_bytes = Path("expected.wav").read_bytes()
    assert run(monkeypatch, "--text", TEXT, "--stream", "--out", "new/x.wav") == 0
    assert Path("new/x.wav").read_bytes() == expected_bytes
    assert b"the first sentence after" in capsysbinary.readouterr().out
    assert run(monkeypatch, "--text", TEXT, "--stream", "--out", "-") == 0
    captured = capsysbinary.readouterr()
    assert captured.out == header(8000) + expected_bytes[44:], "nothing but audio on standard output"
    assert b"at 8000 Hz" in captured.err
    assert run(monkeypatch, "--text", "Go.", "--out", "-") == 0
    assert capsysbinary.readouterr().out == header(8000) + pcm(speak(voice, [Prompt("", "Go.")], [5]).row(0), 8000)
    assert run(monkeypatch, "--text", TEXT, "--stream", "--out", "expected.wav/x.wav") == 4
    assert b"cannot write" in capsysbinary.readouterr().err
    assert run(monkeypatch, "--text", "...", "--stream", "--out", "y.wav") == 4
    assert not Path("y.wav").exists()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run(monkeypatch, "--text", TEXT, "--stream", "--out", "-") == 2
    assert b"pipe it into a player" in capsysbinary.readouterr().err
