"""The server of a listening test: one process, this machine only unless another address is named."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable

from rlzoo.errors import ConfigError
from rlzoo.listen.study import Study

LOOPBACK = "127.0.0.1"


def is_loopback(host: str) -> bool:
    """True if only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def bind(host: str | None, port: int) -> socket.socket:
    """A socket that listens. Without a host it is 127.0.0.1; ConfigError if it cannot be had."""
    address = (host or LOOPBACK).strip("[]")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen on {address}:{port}: {error.strerror or error}",
            "choose another --port (0: any free one), and an address of this machine as --host",
        ) from error
    return listening


def addresses(listening: socket.socket) -> list[str]:
    """`http://host:port` under which raters reach it."""
    host, port = listening.getsockname()[:2]
    hosts = [host]
    if ipaddress.ip_address(host).is_unspecified:
        # Every interface: name those that this machine knows itself by.
        hosts = _own_addresses() or [socket.gethostname()]
    return [f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}" for name in hosts]


def _own_addresses() -> list[str]:
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror:
        return []  # a machine that cannot resolve its own name: the name itself is shown
    return sorted({str(info[4][0]) for info in found})


def serve(study: Study, listening: socket.socket, started: Callable[[], None] = lambda: None) -> None:
    """Serve until it is interrupted. ConfigError if the extra `listen` is not installed."""
    try:
        import uvicorn

        from rlzoo.listen.connections import Connection
        from rlzoo.listen.web import create_app
    except ImportError as error:
        raise ConfigError(
            f"listening tests need a web server, which is not installed: {error}",
            "pip install 'rlzoo-speech[listen]'",
        ) from error
    config = uvicorn.Config(
        create_app(study),
        log_level="warning",
        access_log=False,  # it would hold session tokens
        server_header=False,
        proxy_headers=False,  # the rate limit counts real peers, not what a client claims
        ws="none",
        http=Connection,
        lifespan="off",
        limit_concurrency=500,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=16 * 1024,
    )
    started()
    with contextlib.suppress(KeyboardInterrupt):  # how the server says that it was asked to stop, after it has stopped
        uvicorn.Server(config).run(sockets=[listening])
