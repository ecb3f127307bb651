"""The reward `loudness`. N samples of at most L points."""

from __future__ import annotations

from collections.abc import Sequence

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.audio import active_power
from rlzoo_loudness import LoudnessOptions


class LoudnessReward(Reward[LoudnessOptions]):
    """Minus the distance between active speech level and target, in dB."""

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """(N, L) audio -> (N,)."""
        # Silence has no level; -90 dBFS keeps its score finite.
        level_N = 10 * active_power(samples).clamp(min=1e-9).log10()
        return Scores(-(level_N - self.options.target_dbfs).abs(), {"level_dbfs": level_N})
