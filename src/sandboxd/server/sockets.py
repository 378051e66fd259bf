"""WebSockets as their handlers see them, over ASGI."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sandboxd.core.errors import Bug
from sandboxd.ports.surface import Socket
from sandboxd.server.exchange import Call, head_of

if TYPE_CHECKING:
    from sandboxd.ports.surface import Answer

ACCEPTED = 101
FAILED = 1011
"""The code of a socket that is closed because of an error."""
_MOST_REASON_BYTES = 123


class Conversation:
    """The one socket that a call may become."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._socket: _AsgiSocket | None = None

    @property
    def accepted(self) -> bool:
        """Whether there is no way back to an HTTP answer."""
        return self._socket is not None

    async def accept(self) -> Socket:
        """Open the socket.

        Raises:
            Bug: it is open already.
        """
        if self._socket is not None:
            raise Bug("a WebSocket was accepted twice")
        call = self._call
        self._socket = _AsgiSocket(call)
        call.status = ACCEPTED
        headers = [(b"x-request-id", call.request_id.encode())]
        headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in call.warnings]
        try:
            await call.send({"type": "websocket.accept", "headers": headers})
        except OSError:
            self._socket.over = True
        return self._socket

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket if it was opened."""
        if self._socket is not None:
            await self._socket.close(code, reason)


class _AsgiSocket(Socket):
    def __init__(self, call: Call) -> None:
        self._call = call
        self.over = False
        """Whether nothing more comes or goes."""

    async def receive(self) -> str | bytes | None:
        if self.over:
            return None
        message = await self._call.receive()
        if message["type"] == "websocket.disconnect":
            self.over = True
            return None
        if "text" in message:
            text: str = message["text"]
            self._call.received += len(text.encode())
            return text
        data: bytes = message["bytes"]
        self._call.received += len(data)
        return data

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            await self._send({"type": "websocket.send", "text": message}, len(message.encode()))
        else:
            await self._send({"type": "websocket.send", "bytes": message}, len(message))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self.over:
            return
        cut = reason.encode(errors="replace")[:_MOST_REASON_BYTES].decode(errors="ignore")
        await self._send({"type": "websocket.close", "code": code, "reason": cut})
        self.over = True

    async def _send(self, message: dict[str, object], size: int = 0) -> None:
        if self.over:
            await asyncio.sleep(0)  # a handler that only sends would let nobody else run
            return
        try:
            await self._call.send(message)
            self._call.sent += size
        except OSError:
            self.over = True


async def refuse(call: Call, answer: Answer) -> None:
    """Answer the upgrade with an HTTP answer."""
    assert isinstance(answer.body, bytes), "a refusal is a sentence"  # noqa: S101 - for the type checker
    call.status, call.sent = answer.status, len(answer.body)
    headers = [*head_of(call, answer), (b"content-type", answer.content_type.encode())]
    try:
        await call.send({"type": "websocket.http.response.start", "status": answer.status, "headers": headers})
        await call.send({"type": "websocket.http.response.body", "body": answer.body})
    except OSError:
        return  # it did not wait for it
