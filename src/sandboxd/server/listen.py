"""uvicorn as this server runs it: bound before it is announced, stopped by signals without hurting any sandbox."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import uvicorn

from sandboxd.core.errors import Unavailable
from sandboxd.core.spec import MIB
from sandboxd.server.cutting import cut
from sandboxd.server.heads import BoundedHeads
from sandboxd.server.preface import telling_apart
from sandboxd.server.upgraded import Upgraded

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sandboxd.server.preface import PassOn

FAREWELL_S = 10.0
"""How long calls that were cut off at the end of the grace may take to clean up."""
KEEP_ALIVE_S = 75
"""Idle connections are kept longer than clients keep them, so that no request meets a closing connection."""
PING_S = 25.0
"""A WebSocket is asked whether it is still there so long after it last answered."""
PONG_S = 25.0
"""How long it may take to answer."""
BACKLOG = 2048
"""Connections that may wait to be accepted."""


class Stoppable(Protocol):
    """What can be asked to end."""

    def stop(self) -> None:
        """Begin to end; asked twice, hurry."""


class Listener(uvicorn.Server):
    """A uvicorn server that leaves signals alone, tells when it listens, and waits for calls that it cut off."""

    def __init__(self, config: uvicorn.Config, *, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.server_state.tasks:
            await asyncio.wait(set(self.server_state.tasks), timeout=FAREWELL_S)
        for connection in self.server_state.connections:
            cut(connection.transport)

    def stop(self) -> None:
        """End calls within the grace, then `serve` returns; asked twice, without the grace."""
        self.force_exit = self.should_exit
        self.should_exit = True


def listener(
    application: Any,
    *,
    listening: Callable[[], None],
    grace_s: float,
    most_message_bytes: int = 16 * MIB,
    http2: PassOn | None = None,
    tls: ssl.SSLContext | None = None,
) -> Listener:
    """Return a server for an ASGI application; `serve(sockets=[…])` runs it until `stop`.

    `grace_s` is how long calls that run at `stop` may take before they are cut off; WebSockets are closed at once. A
    WebSocket that sends a message larger than `most_message_bytes` is closed with 1009. Connections that begin as
    HTTP/2 does are given to `http2`.
    """
    config = uvicorn.Config(
        application,
        loop="none",
        http=BoundedHeads if http2 is None else telling_apart(http2),
        ws=Upgraded,
        ws_max_size=most_message_bytes,
        ws_ping_interval=PING_S,
        ws_ping_timeout=PONG_S,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=grace_s,  # type: ignore[arg-type] # it is given to wait_for, which takes fractions
        ssl_context_factory=None if tls is None else lambda *_: tls,
    )
    return Listener(config, listening=listening)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address, not listening yet.

    Raises:
        Unavailable: the address is taken or not ours.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Unavailable(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        hint = "choose another port" if port else ""
        raise Unavailable(f"cannot listen on {host}, port {port}: {error.strerror}", hint=hint) from error
    return bound


def url(bound: socket.socket, *, scheme: str = "http") -> str:
    """Return the address of a bound socket as a URL."""
    host, port = bound.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


@contextmanager
def stopped_by_signals(server: Stoppable) -> Iterator[None]:
    """Let SIGTERM and SIGINT stop a server while the block runs. Only in the main thread."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, server.stop)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
