"""Recordings that a run learns from, with the phone times of the corpus they belong to: for `Policy.supervise`.

A prompt's attribute "audio" names CORPUS/wavs/ID.wav, and CORPUS/phones.jsonl has the times, as `rlzoo corpus speak`
and `rlzoo corpus align` write them. A voice's own samples need none: their durations are the ones it plans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rlzoo.core.types import Prompt
from rlzoo.errors import DataError
from rlzoo.speech.corpus.speech import SpeechCorpus, SpeechItem


def recording_of(prompt: Prompt) -> Path:
    """The file that `prompt` names; an empty path where it names none."""
    return Path(str(prompt.attributes.get("audio", "")))


def find_times(prompt: Prompt, *, trim_silence: bool = False) -> tuple[SpeechCorpus, SpeechItem] | None:
    """The corpus around the prompt's recording and its utterance; None if no corpus with phones.jsonl is.

    DataError if metadata.csv does not name the recording.
    """
    path = recording_of(prompt)
    corpus = SpeechCorpus.around(path, trim_silence=trim_silence)
    return None if corpus is None else (corpus, corpus.item(path.stem))


@contextmanager
def timed(prompt: Prompt, corpus: SpeechCorpus, item: SpeechItem, learnt: Callable[[str], bool]) -> Iterator[None]:
    """Around the use of `item`'s times: errors name prompt and recording. DataError for a phone that is not learnt."""
    strange = [phone for phone in item.phones if not learnt(phone)]
    if strange:
        raise DataError(
            f"'{corpus.folder / 'phones.jsonl'}': '{item.id}' has the phone '{strange[0]}', which this voice never "
            "learnt",
            f"train it on this corpus first: rlzoo pretrain --data {corpus.folder} --set init=VOICE",
        )
    try:
        yield
    except DataError as error:
        hint = f"make the phone times again: rlzoo corpus align {corpus.folder} --overwrite"
        raise DataError(f"prompt '{prompt.id}', recording '{item.wav}': {error.message}", hint) from error


def check_planned(prompt: Prompt, found: int, planned: int) -> None:
    """A recording without times must be as long as what the voice plans, in samples. DataError if it is not."""
    if found == planned:
        return
    path = recording_of(prompt)
    what = f"prompt '{prompt.id}': the voice plans {planned} samples, its recording has {found}, and "
    if path.parent.name == "wavs":
        folder = path.parent.parent
        raise DataError(what + f"'{folder / 'phones.jsonl'}' does not exist", f"make it: rlzoo corpus align {folder}")
    raise DataError(
        what + (f"'{path}' belongs to no corpus with phone times" if path.name else "it names no file"),
        "use recordings of a corpus (metadata.csv, wavs/) with phone times: rlzoo corpus align DIR",
    )
