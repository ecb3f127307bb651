"""Recordings as clean states, conditioned on their own phones, durations and pitch; see `rlzoo.corpus`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rlzoo.api import Batch, Prompt, Samples
from rlzoo.audio import resample_samples
from rlzoo.corpus import check_planned, find_times, timed
from rlzoo_gradtts.data import to_utterance
from rlzoo_gradtts.phones import ROWS

if TYPE_CHECKING:
    from rlzoo_gradtts.policy import GradTTSPolicy


def supervise(policy: GradTTSPolicy, prompts: Sequence[Prompt], recordings: Samples) -> tuple[Tensor, Batch]:
    """See `Policy.supervise`: what is left of a recording's log-mel spectrum when the mean spectrum is taken away.

    Raises:
        DataError: no phone times and not what the voice plans; times that do not fit; phones it never learnt.
        PluginError: pyworld, which measures the pitch of recordings with phone times, is missing.
    """
    recordings = resample_samples(recordings, policy.config.sample_rate)
    # A voice whose card lists no phones may have learnt all.
    learnt = policy.card.get("phones", ROWS)
    rows, states = [], []
    for index, prompt in enumerate(prompts):
        wave = recordings.row(index).detach().to(policy.device)
        if found := find_times(prompt):
            corpus, item = found
            with timed(prompt, corpus, item, learnt.__contains__):
                utterance = to_utterance(item, wave, policy.config, policy.mel)
            row, mel = policy.encode(utterance.ids, utterance.frames, utterance.contour), utterance.mel
        else:
            row = policy.encode(policy.ids(prompt))
            check_planned(prompt, len(wave), (row["features"].shape[1] - 1) * policy.config.hop)
            mel = policy.mel(wave)
        rows.append(row)
        states.append(policy.to_state(mel, row))
    padded = pad_sequence([state.t() for state in states], batch_first=True).transpose(1, 2)
    return padded.contiguous(), policy.batch(rows)
