"""A channel over the connection that Docker turns into the standard streams of a running sandbox."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from sandboxd.core.errors import Unavailable
from sandboxd.guest.stream import SocketChannel
from sandboxd.runtimes.docker.api import Refused

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from sandboxd.runtimes.docker.api import Api

_PATIENCE_S = 5.0
_LONGEST_HEAD = 64 * 1024
_UPGRADED = (101, 200)
_STDOUT = 1
_HEADER = 8


class Streams:
    """Takes stdout out of what comes: Docker puts 8 bytes before each piece of a stream, and cuts anywhere."""

    def __init__(self, on_stdout: Callable[[bytes], None]) -> None:
        self._on_stdout = on_stdout
        self._head = b""
        self._left = 0
        self._stream = 0

    def feed(self, data: bytes) -> None:
        """Take in bytes as they come."""
        at = 0
        while at < len(data):
            if not self._left:
                taken = data[at : at + _HEADER - len(self._head)]
                self._head += taken
                at += len(taken)
                if len(self._head) < _HEADER:
                    return
                self._stream, self._left = self._head[0], int.from_bytes(self._head[4:])
                self._head = b""
                continue
            piece = data[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            if self._stream == _STDOUT:
                self._on_stdout(piece)


class AttachChannel(SocketChannel):
    """The agent's standard streams. When the daemon goes away the channel is closed, and the agent lives on."""

    def __init__(self, connected: socket.socket, came: bytes) -> None:
        """Take over a connection of which `came` has been read already."""
        super().__init__(connected)
        self._came = came
        self.is_cut = False
        """Whether the other side ended it, which says nothing of the agent yet."""

    def open(self, on_bytes: Callable[[bytes], None], on_closed: Callable[[str], None]) -> None:
        def cut(reason: str) -> None:
            self.is_cut = True
            on_closed(reason)

        streams = Streams(on_bytes)
        super().open(streams.feed, cut)
        if self._came:
            self._loop.call_soon(streams.feed, self._came)

    def end(self) -> None:
        """Close it as if the other side had: there is nobody there any more."""
        self._fail("the sandbox ended")

    def close(self) -> None:
        super().close()
        if self._socket.fileno() >= 0:  # it was never opened
            self._socket.close()


async def attach(api: Api, container: str) -> AttachChannel:
    """Return a channel to the first process of a container that runs.

    Raises:
        Refused: the container is not there (404), paused or not running (409).
        Unavailable: there is no daemon.
    """
    try:
        async with asyncio.timeout(_PATIENCE_S):
            connected = await api.address.connect()
            try:
                return AttachChannel(connected, await _upgrade(connected, api.at(f"containers/{container}/attach")))
            except BaseException:
                connected.close()
                raise
    except TimeoutError:
        raise Unavailable(
            f"the Docker daemon at `{api.address.text}` did not answer within {_PATIENCE_S:g} s"
        ) from None
    except OSError as error:
        raise api.address.unreachable(error) from error


async def _upgrade(connected: socket.socket, path: str) -> bytes:
    """Ask for the streams; return what came of them with the answer."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(
        connected,
        f"POST {path}?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\n"
        "Upgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode(),
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = await loop.sock_recv(connected, _LONGEST_HEAD)
        if not piece or len(answer) > _LONGEST_HEAD:
            raise ConnectionResetError("it hung up")
        answer += piece
    head, _, rest = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if status not in _UPGRADED:
        raise Refused(status, _words(rest))
    return rest


def _words(body: bytes) -> str:
    """Return the reason of a refusal, which comes whole with its head, as text or JSON."""
    try:
        return str(json.loads(body)["message"]).strip()
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()
