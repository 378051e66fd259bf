"""The WebSocket protocol as uvicorn speaks it, with an eye on peers that are gone and on those that only are slow."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from sandboxd.server.cutting import cut

if TYPE_CHECKING:
    import asyncio

RESTARTING = 1012
LINGER_S = 2.0
"""How long the other side may take to answer a close before it is cut off."""
_HEAD_REFUSED = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
_SENTENCE = b"this is no WebSocket handshake"
_MOST_UNANSWERED = 4
"""Retransmissions and probes in a row that a living machine leaves unanswered; the fifth comes after six seconds."""


class Upgraded(WebSocketsSansIOProtocol):
    """Closes with 1012 at the end of the server, and takes silence for death only where the other side could speak."""

    async def send(self, message: Any) -> None:
        """Send what ASGI says; what comes after a close is dropped."""
        await self.writable.wait()
        if self._has_ended():
            return
        await super().send(message)
        if self._has_ended():
            self.handshake_complete = True  # uvicorn forgets it where the handshake ended in a refusal
        if self.close_timer is not None:
            self._linger()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_complete:
            self._refuse_head()

    def shutdown(self) -> None:
        """Tell the other side that the server ends, and its handler that nothing more comes."""
        if not self.handshake_complete or self.close_sent:
            super().shutdown()
            return
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": RESTARTING})
        self.conn.send_close(RESTARTING, "the server is stopping")
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.writable.set()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self._linger()

    def keepalive_timeout(self) -> None:
        """Cut off a peer that did not answer in time, unless its answer could not reach us and its machine is alive."""
        clogged = self.read_paused or not self.writable.is_set()
        if clogged and self.ping_timeout is not None and _answers(self.transport):
            self.pong_timer = self.loop.call_later(self.ping_timeout, self.keepalive_timeout)
            return
        super().keepalive_timeout()
        cut(self.transport)

    def _has_ended(self) -> bool:
        return self.close_sent

    def _linger(self) -> None:
        """Wait for the other side to answer the close, not for it to read all that was sent."""
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(LINGER_S, cut, self.transport)

    def _refuse_head(self) -> None:
        self.handshake_complete = self.close_sent = True
        answer = b"".join(self.conn.data_to_send())
        if not answer:
            answer = b"%scontent-length: %d\r\n\r\n%s" % (_HEAD_REFUSED, len(_SENTENCE), _SENTENCE)
        self.transport.write(answer)
        self.transport.close()


def _answers(transport: asyncio.Transport) -> bool:
    """Return whether the machine at the other end acknowledges what it is sent, as far as is known."""
    connection = transport.get_extra_info("socket")
    try:
        state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
    except OSError:
        return False
    retransmits, probes = state[2], state[3]
    return bool(retransmits + probes <= _MOST_UNANSWERED)
