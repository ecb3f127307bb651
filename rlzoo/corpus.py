"""Reading speech corpora back: recordings, their splits, phone times."""

from rlzoo.speech.corpus.coverage import check_coverage
from rlzoo.speech.corpus.metadata import Metadata, read_metadata, read_text, recordings_in
from rlzoo.speech.corpus.speech import SpeechCorpus, SpeechItem, frame_durations
from rlzoo.speech.corpus.timed import check_planned, find_times, timed

__all__ = [
    "Metadata",
    "SpeechCorpus",
    "SpeechItem",
    "check_coverage",
    "check_planned",
    "find_times",
    "frame_durations",
    "read_metadata",
    "read_text",
    "recordings_in",
    "timed",
]
