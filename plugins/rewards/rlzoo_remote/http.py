"""A scorer behind a URL."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import httpx

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.errors import ConfigError, DataError
from rlzoo_remote import HTTPOptions
from rlzoo_remote.wire import Answer, answer, joined, pieces, request

RETRIED = frozenset({429, 500, 502, 503, 504})


class HTTPReward(Reward[HTTPOptions]):
    """Scores come in requests of `batch` rows. Raises DataError where an answer cannot be had; it never guesses."""

    def __init__(self, options: HTTPOptions) -> None:
        super().__init__(options)
        self.sample_rate, self.version = options.sample_rate, options.scorer_version
        headers = {"Content-Type": "application/json"}
        if options.token_env:
            token = os.environ.get(options.token_env)
            if not token:
                raise ConfigError(f"the environment variable '{options.token_env}' is not set", "it holds the token")
            headers["Authorization"] = f"Bearer {token}"
        self._who = f"the scorer at {options.url}"
        self._client = httpx.Client(timeout=options.timeout_seconds, headers=headers)

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """N samples and prompts -> (N,). Not differentiable."""
        answers = []
        for rows in pieces(len(samples), self.options.batch):
            piece = samples[rows]
            answers.append(self._ask(request(piece, prompts[rows], self._who), len(piece)))
        return joined(answers, samples.data.device, self._who)

    def _ask(self, body: str, rows: int) -> Answer:
        reason = ""
        for attempt in range(self.options.retries + 1):
            if attempt:
                time.sleep(self.options.backoff_seconds * 2 ** (attempt - 1))
            try:
                response = self._client.post(str(self.options.url), content=body)
            except httpx.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            if response.status_code == 200:
                return answer(response.content, rows, self._who)
            reason = f"{response.status_code} {response.reason_phrase}: {response.text[:200]}"
            if response.status_code not in RETRIED:
                break
        raise DataError(
            f"{self._who} gave no scores after {attempt + 1} attempts ({reason})",
            "start the scorer or correct `url`; timeout_seconds and retries say how long to wait",
        )
