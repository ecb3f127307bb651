"""Recordings as clean states, conditioned on their own phones and durations; see `rlzoo.corpus`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rlzoo.api import Batch, Prompt, Samples
from rlzoo.audio import resample_samples
from rlzoo.corpus import SpeechCorpus, check_planned, find_times, timed
from rlzoo.text import VOWELS
from rlzoo_wavegrad2.data import corpus_gain, to_utterance

if TYPE_CHECKING:
    from rlzoo_wavegrad2.policy import WaveGrad2Policy

LISTENED = 500
"""A corpus' gain is found on about so many of its recordings: enough for a percentile, and seconds to read."""


def supervise(policy: WaveGrad2Policy, prompts: Sequence[Prompt], recordings: Samples) -> tuple[Tensor, Batch]:
    """See `Policy.supervise`; states are scaled as pretraining scales recordings, and end with their last whole frame.

    Raises:
        DataError: no phone times and not what the voice plans; times that do not fit; phones it never learnt.
    """
    recordings = resample_samples(recordings, policy.config.sample_rate)
    trim = bool(policy.card.get("options", {}).get("trim_silence", False))
    # The voice's own list; a public checkpoint has none, and learnt vowels with their stress only.
    phones = policy.card.get("phones")

    def learnt(phone: str) -> bool:
        return phone in phones if phones else not (policy.frontend.stress and phone in VOWELS)

    rows, waves = [], []
    for index, prompt in enumerate(prompts):
        wave = recordings.row(index).detach()
        if found := find_times(prompt, trim_silence=trim):
            corpus, item = found
            wave = item.cut(wave, policy.config.sample_rate) if trim else wave
            gain = _gain(corpus) if policy.card.get("gain") is not None else None
            with timed(prompt, corpus, item, learnt):
                utterance = to_utterance(item, wave, policy.config, gain)
            row, wave = policy.encode(utterance.ids, utterance.frames), utterance.wave
        else:
            row = policy.encode(policy.ids(prompt))
            check_planned(prompt, len(wave), len(row["hidden"]) * policy.config.hop)
        rows.append(row)
        waves.append(wave.to(policy.device))
    return pad_sequence(waves, batch_first=True), policy.batch(rows)


@lru_cache(maxsize=8)
def _gain(corpus: SpeechCorpus) -> float:
    """Gain of a corpus, as pretraining would choose it."""
    return corpus_gain(corpus[:: -(-len(corpus) // LISTENED)])
