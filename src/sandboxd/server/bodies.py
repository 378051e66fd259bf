"""Bodies on their way in and out: read whole within a limit, or handed on piece by piece as fast as the slower side."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from sandboxd.core.errors import SandboxdError, Uncertain
from sandboxd.server.caller import CallerGone, unless_gone
from sandboxd.server.exchange import HUNG_UP, Call, Refused, head_of, text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandboxd.ports.surface import Answer

CUT = "sandboxd.cut"
"""Key of the ASGI scope with what breaks the connection off."""
_PATIENCE = 8
"""How many times the allowed size is drained of a body that is too big before its sender is cut off."""

_log = structlog.get_logger()


async def read(call: Call, most: int) -> bytes:
    """Read the body; one that is too big is drained first, as clients seldom listen before they have spoken.

    Raises:
        Refused: it is larger than `most` bytes.
        CallerGone: the caller hung up.
    """
    declared = call.headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > most and b"expect" in call.headers:
        raise _too_big(most)
    chunks: list[bytes] = []
    size, more = 0, True
    while more and size <= most * _PATIENCE:
        message = await call.receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size <= most:
            chunks.append(chunk)
        else:
            chunks.clear()
    if size > most:
        raise _too_big(most)
    call.received = size
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class Pieces:
    """The body of a call as it comes: no more is read from the caller than is taken. Iterable once.

    `finish` waits for the last piece to be taken; whoever watches for the caller's hanging up must wait for it, as
    only one may receive at a time.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self.asked = False
        """Whether anything was wanted of it; a caller that asked first has been told to go on."""
        self.gone = False
        self._taken = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield pieces that are never empty.

        Raises:
            Uncertain: the caller hung up before the end.
        """
        self.asked = True
        while not self._taken.is_set():
            message = await self._call.receive()
            if message["type"] == "http.disconnect":
                self.gone = True
                raise Uncertain("the caller hung up before the end of the body")
            if not message.get("more_body", False):
                self._taken.set()
            piece = message.get("body", b"")
            if piece:
                self._call.received += len(piece)
                yield piece

    async def finish(self) -> None:
        """Return once the last piece was taken."""
        await self._taken.wait()


async def send_answer(call: Call, answer: Answer) -> None:
    """Send an answer, in pieces where it has them, and note in the call what became of it."""
    call.status = answer.status
    if isinstance(answer.body, bytes):
        await _send_whole(call, answer, answer.body)
    else:
        await _send_pieces(call, answer, answer.body)


async def _send_whole(call: Call, answer: Answer, body: bytes) -> None:
    headers = head_of(call, answer)
    if answer.status != 204:  # noqa: PLR2004 - no content
        headers += ((b"content-type", answer.content_type.encode()), (b"content-length", str(len(body)).encode()))
    await call.send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await call.send({"type": "http.response.body", "body": body})
    call.sent = len(body)


async def _send_pieces(call: Call, answer: Answer, pieces: AsyncIterator[bytes]) -> None:
    try:
        headers = [*head_of(call, answer), (b"content-type", answer.content_type.encode())]
        await call.send({"type": "http.response.start", "status": answer.status, "headers": headers})
        finished = call.pieces.finish if call.pieces else None
        if call.scope["method"] == "HEAD" or await unless_gone(call.receive, _pump(call, pieces), after=finished):
            await call.send({"type": "http.response.body", "body": b""})
        else:
            await _cut(call)
    except CallerGone:
        call.status = HUNG_UP
    except asyncio.CancelledError:
        await _cut(call)  # The server stops and its grace is over. This is the top: the cancellation ends here.
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


async def _pump(call: Call, pieces: AsyncIterator[bytes]) -> bool:
    """Send pieces as fast as the caller reads; return whether that was all of them."""
    try:
        async for piece in pieces:
            if piece:
                await call.send({"type": "http.response.body", "body": piece, "more_body": True})
                call.sent += len(piece)
            await asyncio.sleep(0)  # else neither a source nor a send that never waits lets anybody else run
    except SandboxdError as error:
        _log.warning("answer cut", request_id=call.request_id, why=str(error))
        return False
    except Exception:  # noqa: BLE001 - one call may fail, the server may not
        _log.exception("unforeseen failure", request_id=call.request_id)
        return False
    return True


async def _cut(call: Call) -> None:
    """Break the connection off, so that nobody takes the part for the whole."""
    call.scope[CUT]()
    while (await call.receive())["type"] != "http.disconnect":
        pass


def _too_big(most: int) -> Refused:
    return Refused(text(413, f"the body is larger than the {most} bytes allowed"))
