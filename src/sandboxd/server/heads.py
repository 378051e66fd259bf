"""The head of a request, bounded in bytes and in time: what follows it is bounded elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

MOST_BYTES = 64 * 1024
"""What a request line and its headers may take together; a browser's seldom take a tenth of it."""
PATIENCE_S = 30.0
"""How long a head may take to arrive, the first one from the moment of connecting."""
LINGER_S = 2.0
"""How long a caller that was refused may go on speaking."""

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
    _refused = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(PATIENCE_S, transport.abort)

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
        if self._awaits_head and self._head_bytes > MOST_BYTES and not self.transport.is_closing():
            self._refused = True
            self.transport.write(_TOO_LARGE)
            self.transport.write_eof()
            self.stop_waiting()
            self._timer = self.loop.call_later(LINGER_S, self.transport.abort)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._awaits_head = True
        if self._timer is None:
            self._timer = self.loop.call_later(PATIENCE_S, self.transport.abort)

    def on_headers_complete(self) -> None:
        self._awaits_head, self._head_bytes = False, 0
        self.stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._head_bytes = 0
