"""Connections that keep the server waiting: closed after a while, and at once when others need their place."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_WAITING = 200
"""Connections on whose client the server waits; beyond, those that have waited longest make room."""
REQUEST_SECONDS = 10.0
"""Seconds that a client may take for a whole request; those of our page are one packet each."""
RESPONSE_SECONDS = 120.0
"""Seconds that a client may take to fetch an answer."""


class Connection(H11Protocol):
    """uvicorn's, which itself waits for ever for a request that never comes, or comes byte by byte."""

    since = 0.0
    """When the server began to wait for this client, by the loop's clock."""
    served = False
    """True if it has had an answer; a browser keeps such connections for its next request."""
    watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for it."""
        super().connection_made(transport)
        self.since = self.loop.time()
        self._look()
        waiting = [one for one in _ours(self.connections) if one.is_waiting()]
        waiting.sort(key=lambda one: (one.served, one.since))
        for one in waiting[: max(0, len(waiting) - MOST_WAITING)]:
            one.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        if self.watch is not None:
            self.watch.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """It is the client's turn again."""
        self.since, self.served = self.loop.time(), True
        super().on_response_complete()

    def is_waiting(self) -> bool:
        """True if it is the client's turn: no request has come, or only a part of one."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _look(self) -> None:
        waited = self.loop.time() - self.since
        if waited > (REQUEST_SECONDS if self.is_waiting() and not self.served else RESPONSE_SECONDS):
            self.transport.abort()
        else:
            self.watch = self.loop.call_later(1.0, self._look)


def _ours(connections: Iterable[Any]) -> list[Connection]:
    return [one for one in connections if isinstance(one, Connection)]
