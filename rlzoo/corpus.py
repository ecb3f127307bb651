"""Reading speech corpora back: recordings, their splits, phone times."""

from rlzoo.speech.corpus.speech import SpeechCorpus, SpeechItem, frame_durations
from rlzoo.speech.corpus.timed import check_planned, find_times, timed

__all__ = ["SpeechCorpus", "SpeechItem", "check_planned", "find_times", "frame_durations", "timed"]
