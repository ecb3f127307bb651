"""A scorer behind a URL."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Thread

import httpx

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.errors import ConfigError, DataError
from rlzoo_remote import HTTPOptions
from rlzoo_remote.wire import MAX_ANSWER_BYTES, Answer, answer, joined, pieces, request

RETRIED = frozenset({429, 500, 502, 503, 504})
_LONGEST_PAUSE = 60.0


class HTTPReward(Reward[HTTPOptions]):
    """Scores come in requests of `batch` rows. Raises DataError if an answer cannot be had; it never guesses."""

    def __init__(self, options: HTTPOptions) -> None:
        super().__init__(options)
        self.sample_rate, self.version = options.sample_rate, options.scorer_version
        # What is packed could unpack to any size.
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if options.token_env:
            token = os.environ.get(options.token_env)
            if not token:
                raise ConfigError(f"the environment variable '{options.token_env}' is not set", "it holds the token")
            if not (token.isascii() and token.isprintable()):
                raise ConfigError(
                    f"the token in the environment variable '{options.token_env}' has a character that no HTTP header "
                    "takes",
                    "use printable ASCII characters only",
                )
            self._headers["Authorization"] = f"Bearer {token}"
        self._who = f"the scorer at {options.url}"
        self._client = self._connected()

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """N samples and prompts -> (N,). Not differentiable."""
        answers = []
        for number, rows in enumerate(pieces(len(samples), self.options.batch)):
            piece = samples[rows]
            answers.append(self._ask(request(piece, prompts[rows], self._who, number), len(piece), number))
        return joined(answers, samples.data.device, self._who)

    def _ask(self, body: str, rows: int, number: int) -> Answer:
        reason = ""
        for attempt in range(self.options.retries + 1):
            if attempt:
                time.sleep(min(self.options.backoff_seconds * 2 ** (attempt - 1), _LONGEST_PAUSE))
            try:
                status, content = self._post(body)
            except httpx.RequestError as error:
                reason = f"{type(error).__name__}: {error}"
                if isinstance(error, httpx.DecodingError):
                    break
                continue
            if status == 200:
                return answer(content, rows, self._who, number)
            reason = f"{status} {httpx.codes.get_reason_phrase(status)}: {content[:200].decode('utf-8', 'replace')}"
            if status not in RETRIED:
                break
        raise DataError(
            f"{self._who} gave no scores after {attempt + 1} attempts ({reason})",
            "start the scorer or correct `url`; timeout_seconds and retries say how long to wait",
        )

    def _post(self, body: str) -> tuple[int, bytes]:
        """Status and content, within `timeout_seconds` in all: httpx's own limits are for one read each, and a server
        that sends a byte now and then would never reach them. RequestError, DataError for an answer without an end."""
        client, done = self._client, Future[tuple[int, bytes]]()
        deadline = time.monotonic() + self.options.timeout_seconds

        def exchange() -> None:
            try:
                done.set_result(self._exchange(client, body, deadline))
            except BaseException as error:
                done.set_exception(error)

        Thread(target=exchange, name="rlzoo-http", daemon=True).start()
        try:
            return done.result(self.options.timeout_seconds + 0.05)
        except TimeoutError as error:
            client.close()
            self._client = self._connected()
            raise _too_late() from error

    def _exchange(self, client: httpx.Client, body: str, deadline: float) -> tuple[int, bytes]:
        content = bytearray()
        with client.stream("POST", str(self.options.url), content=body) as response:
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise DataError(
                        f"{self._who} answered more than {MAX_ANSWER_BYTES >> 20} MiB", "is this the right `url`?"
                    )
                if time.monotonic() > deadline:
                    raise _too_late()
            return response.status_code, bytes(content)

    def _connected(self) -> httpx.Client:
        return httpx.Client(timeout=self.options.timeout_seconds, headers=self._headers)


def _too_late() -> httpx.ReadTimeout:
    return httpx.ReadTimeout("the answer was not there in time")
