"""F5-TTS trained on recordings: what is masked and told, the loss, a tiny training that resumes and speaks."""

from __future__ import annotations

import json

import pytest
import torch
from rlzoo_f5tts import PretrainOptions
from rlzoo_f5tts.checkpoint import read_model, read_tensors
from rlzoo_f5tts.pretrain import InfillingTask, masked_stretch, pretrain, read_recordings, told
from torch import nn

from rlzoo.audio import write_audio
from rlzoo.errors import DataError
from rlzoo.functional import length_mask

SMALL = PretrainOptions(
    steps=4, dim=64, depth=1, heads=1, text_dim=16, text_blocks=1, utterances_per_step=2, validation_utterances=1,
    validation_steps=2, validate_every=100, save_every=2, log_every=1, warmup_steps=1, device="cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six recordings of half a second, without phone times."""
    root, generator = tmp_path_factory.mktemp("corpus"), torch.Generator().manual_seed(0)
    texts = ["Good evening.", "Come in, please.", "What is that?", "It is late.", "Go home now.", "Sit down here."]
    for row, _ in enumerate(texts):
        write_audio(root / f"wavs/u{row}.wav", 0.05 * torch.randn(8000 + 600 * row, generator=generator), 16_000)
    (root / "metadata.csv").write_text("".join(f"u{row}|{text}\n" for row, text in enumerate(texts)))
    return root


def test_a_stretch_of_seventy_percent_or_more_lies_anywhere_in_a_row():
    frames = torch.tensor([10, 100, 57, 1]).repeat(500)
    stretch = masked_stretch(frames, 100, torch.Generator().manual_seed(0))
    size = stretch.sum(1)
    assert bool((size >= (0.7 * frames).long().clamp(min=1)).all())
    assert bool((size <= frames).all())
    assert not (stretch & ~length_mask(frames, 100)).any(), "padding is not learned"
    assert bool((stretch.int().diff(dim=1).abs().sum(1) <= 2).all()), "one run"
    assert float((size[1::4] / 100.0).mean()) == pytest.approx(0.85, abs=0.01)
    first = stretch[1::4].int().argmax(1)
    assert int(first.min()) == 0
    assert int(first.max()) > 20


def test_rows_are_told_as_often_as_in_the_paper():
    audio, text = told(20_000, torch.Generator().manual_seed(0))
    assert float(text.float().mean()) == pytest.approx(0.8, abs=0.01)
    assert float(audio.float().mean()) == pytest.approx(0.7 * 0.8, abs=0.01)
    assert not (audio & ~text).any()


class Watched(nn.Module):
    """Answers with a velocity of zero and keeps what it was shown."""

    def forward(self, x, reference, text, t, mask, drop_text):
        self.seen = x, reference, text, t, mask, drop_text
        return torch.zeros_like(x)


def test_the_loss_is_that_of_the_velocity_in_the_stretch_alone(corpus):
    task = InfillingTask(corpus, SMALL)
    task.network = watched = Watched()
    chosen = task.recordings[:3]
    loss = task.loss(chosen, torch.Generator().manual_seed(5), torch.Generator().manual_seed(6))
    x_t, reference, _, t, own, drop = watched.seen
    generator = torch.Generator().manual_seed(5)
    frames = own.sum(1)
    stretch = masked_stretch(frames, own.shape[1], generator)
    told_audio, told_text = told(3, generator)
    assert torch.equal(drop, ~told_text)
    assert frames.tolist() == [len(task.spectrum(recording)) for recording in chosen]
    start = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(6))
    expected = []
    for row, recording in enumerate(chosen):
        mel, hidden = task.spectrum(recording), stretch[row, : frames[row]]
        noisy = (1 - t[row]) * start[row, : len(mel)] + t[row] * mel
        torch.testing.assert_close(x_t[row, : len(mel)], noisy)
        around = mel * (~hidden & told_audio[row])[:, None]
        assert torch.equal(reference[row, : len(mel)], around), "what is learned is not shown"
        expected.append((mel - start[row, : len(mel)])[hidden].square().flatten())
    assert float(loss) == pytest.approx(float(torch.cat(expected).mean()), rel=1e-5)


def test_a_training_resumes_to_the_last_bit_and_its_voice_speaks(corpus, tmp_path):
    rows = []
    half = SMALL.model_copy(update={"steps": 2, "final_learning_rate": SMALL.learning_rate})
    constant = SMALL.model_copy(update={"final_learning_rate": SMALL.learning_rate})
    voice = pretrain(corpus, tmp_path / "one", constant, on_step=rows.append)
    pretrain(corpus, tmp_path / "two", half)
    resumed = pretrain(corpus, tmp_path / "two", constant, resume=True)
    one, _ = read_tensors(voice)
    two, _ = read_tensors(resumed)
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert {"flow", "grad_norm"} < rows[0].keys()
    assert rows[-1]["validation/flow"] > 0
    assert len(list((tmp_path / "one/validation/0000004").glob("u5-*.wav"))) == 2, "sample and recording"
    assert (voice.with_name("vocab.txt").read_text().split("\n")[0]) == " "
    assert int(read_tensors(voice)[0]["step"]) == 4
    assert json.loads(read_tensors(voice)[1]["config"])["card"]["sentences"] == 4


def test_it_learns_and_goes_on_from_a_published_file(corpus, tmp_path):
    """The same few recordings over and over: the loss falls far below its first value, which is that of v = 0."""
    long = SMALL.model_copy(update={"steps": 60, "learning_rate": 5e-3, "log_every": 20, "save_every": 1000})
    rows = []
    voice = pretrain(corpus, tmp_path / "first", long, on_step=rows.append)
    losses = [row["flow"] for row in rows if "flow" in row]
    assert losses[-1] < 0.6 * losses[0]
    more = long.model_copy(update={"init": voice, "steps": 1, "learning_rate": 1e-6, "dim": 512})
    again = read_model(pretrain(corpus, tmp_path / "second", more))
    assert again.config.dim == 64, "the file brings its size"
    before = read_model(voice).state_dict()
    assert all(torch.allclose(value, before[name], atol=1e-4) for name, value in again.state_dict().items())


def test_what_is_wrong_with_a_corpus_is_said(corpus, tmp_path):
    with pytest.raises(DataError, match="no folder wavs"):
        (tmp_path / "metadata.csv").write_text("a|Hm.\n")
        read_recordings(tmp_path)
    (tmp_path / "wavs").mkdir()
    with pytest.raises(DataError, match="lacks 1 recordings"):
        read_recordings(tmp_path)
    with pytest.raises(DataError, match="6 recordings"):
        InfillingTask(corpus, SMALL.model_copy(update={"validation_utterances": 5}))
    (tmp_path / "vocab.txt").write_text(" \na\n")
    whole = pretrain(corpus, tmp_path / "run", SMALL.model_copy(update={"steps": 1}))
    with pytest.raises(DataError, match="its vocabulary has 2"):
        InfillingTask(corpus, SMALL.model_copy(update={"init": whole, "vocabulary": tmp_path / "vocab.txt"}))
