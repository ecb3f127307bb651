"""Recordings as clean states, conditioned on their own phones and durations.

Phone times come from the corpus that a recording belongs to: a prompt's attribute "audio" names CORPUS/wavs/ID.wav, and
CORPUS/phones.jsonl has the times, as `rlzoo corpus flite` and `rlzoo corpus align` write them. The voice's own samples
need none: their durations are the ones it plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rlzoo.api import Batch, Prompt, Samples
from rlzoo.audio import resample_samples
from rlzoo.corpus.speech import SpeechCorpus, SpeechItem
from rlzoo.errors import DataError
from rlzoo.text import VOWELS
from rlzoo_wavegrad2.data import Utterance, corpus_gain, to_utterance

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
    rows, waves = [], []
    for index, prompt in enumerate(prompts):
        wave = recordings.row(index).detach()
        path = Path(str(prompt.attributes.get("audio", "")))
        if corpus := SpeechCorpus.around(path, trim_silence=trim):
            item = corpus.item(path.stem)
            wave = item.cut(wave, policy.config.sample_rate) if trim else wave
            utterance = _aligned(policy, prompt, corpus, item, wave)
            row, wave = policy.encode(utterance.ids, utterance.frames), utterance.wave
        else:
            row = policy.encode(policy.ids(prompt))
            _check_planned(prompt, path, len(wave), len(row["hidden"]) * policy.config.hop)
        rows.append(row)
        waves.append(wave.to(policy.device))
    return pad_sequence(waves, batch_first=True), policy.batch(rows)


def _aligned(
    policy: WaveGrad2Policy, prompt: Prompt, corpus: SpeechCorpus, item: SpeechItem, wave: Tensor
) -> Utterance:
    folder = corpus.folder
    # The voice's own list; a public checkpoint has none, and learnt vowels with their stress only.
    learnt = policy.card.get("phones")
    strange = [p for p in item.phones if (p not in learnt if learnt else policy.frontend.stress and p in VOWELS)]
    if strange:
        raise DataError(
            f"'{folder / 'phones.jsonl'}': '{item.id}' has the phone '{strange[0]}', which this voice never learnt",
            f"train it on this corpus first: rlzoo pretrain --data {folder} --set init=VOICE",
        )
    gain = _gain(corpus) if policy.card.get("gain") is not None else None
    try:
        return to_utterance(item, wave, policy.config, gain)
    except DataError as error:
        hint = f"make the phone times again: rlzoo corpus align {folder} --overwrite"
        raise DataError(f"prompt '{prompt.id}', recording '{item.wav}': {error.message}", hint) from error


@lru_cache(maxsize=8)
def _gain(corpus: SpeechCorpus) -> float:
    """Of a corpus, as pretraining would choose it."""
    return corpus_gain(corpus[:: -(-len(corpus) // LISTENED)])


def _check_planned(prompt: Prompt, path: Path, found: int, planned: int) -> None:
    if found == planned:
        return
    what = f"prompt '{prompt.id}': the voice plans {planned} samples, its recording has {found}, and "
    if path.parent.name == "wavs":
        folder = path.parent.parent
        raise DataError(what + f"'{folder / 'phones.jsonl'}' does not exist", f"make it: rlzoo corpus align {folder}")
    raise DataError(
        what + (f"'{path}' belongs to no corpus with phone times" if path.name else "it names no file"),
        "use recordings of a corpus (metadata.csv, wavs/) with phone times: rlzoo corpus align DIR",
    )
