"""The head of a request, bounded in bytes and in time, and with one name for the host."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sandboxd.server.bodies import CUT
from sandboxd.server.cutting import cut

if TYPE_CHECKING:
    import asyncio

MOST_BYTES = 64 * 1024
"""What a request line and its headers may take together; a browser's seldom take a tenth of it."""
PATIENCE_S = 30.0
"""How long a head may take to arrive, the first one from the moment of connecting."""
LINGER_S = 2.0
"""How long a caller that was refused may go on speaking."""
MOST_UNHEARD_BYTES = 256 * 1024 * 1024
"""How much of a body is let pass after the answer to it was given; then its sender is cut off."""

_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
_SENTENCE = f"the request's head is larger than the {MOST_BYTES} bytes allowed".encode()
_TOO_LARGE = b"\r\n".join(
    (
        b"HTTP/1.1 431 Request Header Fields Too Large",
        b"content-type: text/plain; charset=utf-8",
        b"content-length: %d" % len(_SENTENCE),
        b"connection: close",
        b"",
        _SENTENCE,
    )
)


class BoundedHeads(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it; a head that is too long gets 431, one that does not come is hung up on."""

    _awaits_head = True
    _head_bytes = 0
    _unheard_bytes = 0
    _refused = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(PATIENCE_S, cut, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_waiting()
        super().connection_lost(exc)

    def stop_waiting(self) -> None:
        """Let the connection be quiet from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head that has not come whole."""
        if self._refused:
            return  # a caller that is cut off while it speaks does not hear why
        self._head_bytes += len(data)
        super().data_received(data)
        if self._unheard_bytes > MOST_UNHEARD_BYTES:
            cut(self.transport)
        if self._awaits_head and self._head_bytes > MOST_BYTES and not self.transport.is_closing():
            self._refused = True
            self.transport.write(_TOO_LARGE)
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.stop_waiting()
            self._timer = self.loop.call_later(LINGER_S, cut, self.transport)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._awaits_head, self._unheard_bytes = True, 0
        self.scope[CUT] = partial(cut, self.transport)  # type: ignore[literal-required] # ASGI lets servers add keys
        if self._timer is None:
            self._timer = self.loop.call_later(PATIENCE_S, cut, self.transport)

    def on_headers_complete(self) -> None:
        self._awaits_head, self._head_bytes = False, 0
        self.stop_waiting()
        absolute = _ABSOLUTE.match(self.url)
        if absolute:
            self._name_host(absolute[1], self.url[absolute.end() :])
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if self.cycle is not None and self.cycle.response_complete:
            self._unheard_bytes += len(body)

    def handle_websocket_upgrade(self) -> None:
        """Change the protocol, unless an answer is still on its way in the old one."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.send_400_response("A WebSocket was asked for before the last answer was given.")
            return
        super().handle_websocket_upgrade()

    def _name_host(self, authority: bytes, rest: bytes) -> None:
        """Take the host from a target that names one: what stands in `Host` then means nothing."""
        self.headers[:] = [(b"host", authority), *((name, value) for name, value in self.headers if name != b"host")]
        self.url = rest if rest.startswith(b"/") else b"/" + rest

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._head_bytes = 0
