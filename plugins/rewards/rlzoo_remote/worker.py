"""`python -m rlzoo_remote.worker REWARD OPTIONS`: a registered reward that answers lines of JSON."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import numpy as np
import torch

from rlzoo.api import Prompt, Reward
from rlzoo.audio import resample_samples, to_samples
from rlzoo.errors import RlzooError
from rlzoo.rewards import build_reward


def serve(line: str, reward: Reward[Any], device: str) -> dict[str, Any]:
    """One request -> the answer, in plain values."""
    asked = json.loads(line)
    rows = asked["rows"]
    waves = [torch.from_numpy(np.frombuffer(base64.b64decode(row["audio"]), "<f4").copy()) for row in rows]
    prompts = [Prompt(row["id"], row["text"], row["attributes"]) for row in rows]
    samples = to_samples(waves, asked["sample_rate"]).to(device)
    samples = resample_samples(samples, reward.sample_rate)  # the reward knows its rate, the caller need not
    with torch.no_grad():
        scores = reward.score(samples, prompts)
    parts = {name: part.tolist() for name, part in scores.parts.items()}
    return {"id": asked["id"], "scores": scores.values.tolist(), "parts": parts}


def main() -> None:
    """Answer until standard input ends. Whatever a library prints goes to standard error, not between the answers."""
    answers, sys.stdout = sys.stdout, sys.stderr
    name, options = sys.argv[1], json.loads(sys.argv[2])
    try:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        reward = build_reward(name, options).to(device)
        for line in sys.stdin:
            answers.write(json.dumps(serve(line, reward, device)) + "\n")
            answers.flush()
    except RlzooError as error:
        answers.write(json.dumps({"error": str(error)}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
