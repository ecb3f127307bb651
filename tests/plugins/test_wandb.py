"""`rlzoo_wandb`, in the offline mode of the real package: the run is read back from its file."""

from __future__ import annotations

import json
import struct
import time
import warnings

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("wandb", reason="needs wandb (the extra of that name)")

from rlzoo_wandb import WandbOptions

from rlzoo.api import AudioSample, RunInfo

BLOCK, WHOLE, LAST = 1 << 15, 1, 4


def told(folder, first_step=0, last=2):
    from rlzoo_wandb.observer import WandbObserver

    logger = WandbObserver(WandbOptions(mode="offline", project="voices", audio=1))
    logger.start(RunInfo(folder, {"seed": 7, "train": {"steps": last}}, first_step, last))
    for step in range(first_step, last + 1):
        if step > first_step:
            logger.step(step, {"step": step, "reward/total": step / 2})
        logger.evaluation(step, {"total": {"mean": float(step), "std": 1.0, **({"gain": step - 1.0} if step else {})}})
        for index in range(2):
            wave = torch.sin(torch.arange(800) * 0.1)
            logger.audio(step, AudioSample(f"p-{index}", "A text.", wave, 8000, {"total": 1.0}))
    logger.end("done")
    return logger


def records(path):
    """Every record of an offline run's file: LevelDB's log format behind 7 bytes. The package itself has no reader."""
    from wandb.proto import wandb_internal_pb2

    content, place, data = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if (left := BLOCK - place % BLOCK) < 7:  # a header does not fit: the next piece begins in the next block
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", content, place)
        data += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (WHOLE, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            yield record
            data = b""


def row_of(items):
    """{key: value} of a step; what belongs to an audio clip has keys below its own, which some versions write apart."""
    row = {}
    for item in items:
        *above, last = item.nested_key or [item.key]
        inside = row.setdefault(above[0], {}) if above else row
        inside[last] = json.loads(item.value_json)
    return row


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_offline_run_holds_the_run_and_a_resumed_one_has_its_id(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    told(tmp_path)
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    end = time.monotonic() + 60
    while not (found := list(records(path))) or not any(record.HasField("exit") for record in found):
        assert time.monotonic() < end, "the file is not finished"  # another process of wandb writes it
        time.sleep(0.1)
    (run,) = [record.run for record in found if record.HasField("run")]
    assert (run.project, run.display_name, run.run_id) == (
        "voices",
        tmp_path.name,
        (tmp_path / "wandb/id.txt").read_text(),
    )
    assert {item.key: json.loads(item.value_json) for item in run.config.update}["seed"] == 7
    rows = [row_of(record.history.item) for record in found if record.HasField("history")]
    assert [row["_step"] for row in rows] == [0, 1, 2]
    assert [row.get("reward/total") for row in rows] == [None, 0.5, 1.0]
    assert [row["heldout/total"] for row in rows] == [0.0, 1.0, 2.0]
    assert [row.get("heldout_gain/total") for row in rows] == [None, 0.0, 1.0]
    audio = [row["heldout/p-0"] for row in rows]
    assert all(one["_type"] == "audio-file" and one["caption"] == "A text." for one in audio)
    assert not any("heldout/p-1" in row for row in rows)
    told(tmp_path, first_step=1, last=3)
    assert len({p.name for p in tmp_path.glob("wandb/offline-run-*/run-*.wandb")}) == 1
