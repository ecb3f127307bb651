"""Fine-tune the voice that ships with rlzoo, and listen to what has changed.

    python examples/first_run.py [--steps 14] [--out runs/first]

Takes about three minutes on two CPU cores. `utmos` downloads its weights once; if they are unavailable, rlzoo warns and
uses the reward's fallback.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import rlzoo


def main() -> None:
    """Run, then speak one sentence with the base and with the tuned policy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--reward", default="utmos")
    parser.add_argument("--out", type=Path, help="run directory; default: a new one under runs/")
    options = parser.parse_args()

    run = rlzoo.run(algo="dlpo", reward=options.reward, steps=options.steps, out=options.out)
    print(run)

    sentence = "The weather was fine, and the birds were singing."
    for name, voice in (("base", run.base), ("tuned", run.policy)):
        print(voice.speak(sentence).save(run.directory / f"{name}.wav"))


if __name__ == "__main__":
    main()
