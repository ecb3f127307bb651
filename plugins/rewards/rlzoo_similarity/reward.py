"""Speaker similarity as a reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.assets import obtain
from rlzoo.audio import full_precision, read_audio, recording, require_rate, to_samples, valid_mask
from rlzoo.errors import DataError
from rlzoo.wav2vec2 import in_pieces
from rlzoo_similarity import ECAPA, SimilarityOptions
from rlzoo_similarity.network import load
from rlzoo_similarity.resemblyzer import load_resemblyzer
from rlzoo_similarity.spectrum import RATE, features, mel_filters


class SimilarityReward(Reward[SimilarityOptions]):
    """Cosine between the embeddings of clip and reference, -1 to 1.

    SpeechBrain calls above 0.25 of ECAPA's the same speaker; of Resemblyzer's, which are never negative, about 0.75
    divides speakers. The reference is the option `reference`, else the prompt's voice, else its own recording
    (ConfigError if it has none). Clips shorter than 50 ms are lengthened with zeros; below about two seconds an
    embedding is unsteady.
    """

    sample_rate = RATE

    def __init__(self, options: SimilarityOptions) -> None:
        super().__init__(options)
        self.network: nn.Module
        if options.who == "ecapa":
            self.network = load(obtain(ECAPA, options.checkpoint))
        else:
            self.network = load_resemblyzer()
        self.filters = mel_filters()
        self.references: dict[str, Tensor] = {}
        self.reference = read_audio(options.reference, RATE, on_rate="resample")[0] if options.reference else None

    def to(self, device: torch.device | str) -> Self:
        """Move the network."""
        self.network.to(device)
        self.filters = self.filters.to(device)
        self.references = {name: vector.to(device) for name, vector in self.references.items()}
        return self

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """(N, L) at 16 kHz, N prompts -> (N,), differentiable in the waveform."""
        require_rate(samples, self.sample_rate, "similarity")
        if not bool((samples.lengths > 0).all()):
            raise DataError("'similarity' was given an empty clip", "the policy predicts no duration for a prompt")
        if self.reference is not None:
            wanted = self._known("", self.reference).expand(len(samples), -1)
        else:
            waves = [recording(prompt, RATE, "similarity", ("voice", "audio")) for prompt in prompts]
            names = [str(prompt.attributes.get("voice") or prompt.attributes["audio"]) for prompt in prompts]
            wanted = torch.cat([self._known(name, wave) for name, wave in zip(names, waves, strict=True)])
        return Scores(F.cosine_similarity(self.embed(samples), wanted))

    def _known(self, name: str, wave: Tensor) -> Tensor:
        """(1, E): computed once for each recording."""
        if name not in self.references:
            with torch.no_grad():
                self.references[name] = self.embed(to_samples([wave.to(self.filters.device)], RATE))
        return self.references[name]

    def embed(self, samples: Samples) -> Tensor:
        """(N, L) at 16 kHz -> (N, E): 192 numbers of ECAPA's, 256 of Resemblyzer's."""
        waves = samples.data * valid_mask(samples.lengths, samples.data.shape[-1])
        with full_precision(waves.device):
            return in_pieces(self._embed, waves, samples.lengths)

    def _embed(self, waves: Tensor, lengths: Tensor) -> Tensor:
        if self.options.who == "resemblyzer":
            embedding: Tensor = self.network(waves, lengths)
        else:
            embedding = self.network(*features(waves, lengths, self.filters))
        return embedding
