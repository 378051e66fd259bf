"""One port for two protocols: a connection that begins as HTTP/2 does is passed on to the gRPC server."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias, cast

from sandboxd.server.cutting import cut
from sandboxd.server.heads import BoundedHeads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    PassOn: TypeAlias = Callable[[asyncio.Transport, bytes], None]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The first bytes of every HTTP/2 connection; no HTTP/1.1 request begins so."""


class TellingApart(BoundedHeads):
    """HTTP/1.1 as uvicorn speaks it, unless the first bytes are HTTP/2's: then `pass_on` gets the connection."""

    pass_on: PassOn
    _heard: bytes | None = b""

    def data_received(self, data: bytes) -> None:
        """Look at the first bytes; all others go straight on."""
        if self._heard is not None:
            data = self._heard + data
            if len(data) < len(PREFACE) and PREFACE.startswith(data):
                self._heard = data
                return
            self._heard = None
            if data.startswith(PREFACE):
                self.connections.discard(self)
                self.stop_waiting()
                self.pass_on(self.transport, data)
                return
        super().data_received(data)


def telling_apart(pass_on: PassOn) -> type[TellingApart]:
    """Return a protocol for uvicorn that passes HTTP/2 connections on, with what was read of them."""
    return type("TellingApart", (TellingApart,), {"pass_on": staticmethod(pass_on)})


class PassingOn(asyncio.Protocol):
    """Passes every connection on, whatever it begins with."""

    def __init__(self, pass_on: PassOn) -> None:
        self._pass_on = pass_on

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._pass_on(cast("asyncio.Transport", transport), b"")


class _End(asyncio.Protocol):
    """One end of a passed-on connection: what arrives here is written to the opposite end, and so is the end of it."""

    def __init__(self, opposite: asyncio.Transport | None = None, *, half_open: bool = True) -> None:
        self.opposite = opposite
        self.faces: _End | None = None
        self.early = b""
        """What arrived before there was an opposite end."""
        self.ended = False
        self._half_open = half_open
        """Whether one direction may end before the other, which TLS does not allow here."""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        if self.opposite is None:
            self.early += data
        else:
            self.opposite.write(data)

    def eof_received(self) -> bool:
        """Pass the end on and keep the other direction open, until it has ended too."""
        self.ended = True
        if self.opposite is None or (self.faces is not None and self.faces.ended) or not self.opposite.can_write_eof():
            return False
        self.opposite.write_eof()
        return self._half_open

    def pause_writing(self) -> None:
        if self.opposite is not None:
            self.opposite.pause_reading()

    def resume_writing(self) -> None:
        if self.opposite is not None:
            self.opposite.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        if self.opposite is not None:
            cut(self.opposite) if exc else self.opposite.close()


@asynccontextmanager
async def relay(name: str) -> AsyncIterator[PassOn]:
    """Yield what passes connections on to a Unix socket of this abstract name; leaving cuts those that are left."""
    carried: set[asyncio.Future[None]] = set()

    def pass_on(transport: asyncio.Transport, heard: bytes) -> None:
        transport.pause_reading()
        outer = _End(half_open=transport.can_write_eof())
        transport.set_protocol(outer)
        carrying = group.create_task(_carry(transport, outer, heard, name))
        carried.add(carrying)
        carrying.add_done_callback(carried.discard)

    async with asyncio.TaskGroup() as group:
        try:
            yield pass_on
        finally:
            for carrying in carried:
                carrying.cancel()


async def _carry(outside: asyncio.Transport, outer: _End, heard: bytes, name: str) -> None:
    """Carry bytes both ways between a caller and a Unix socket until both ends are gone, or until cancelled."""
    inner = _End(outside)
    inner.faces = outer
    try:
        inside = await _connect(name, inner)
    except OSError:
        cut(outside)
        return
    except BaseException:
        cut(outside)
        raise
    try:
        outer.opposite, outer.faces = inside, inner
        inside.write(heard + outer.early)
        if not outer.lost.done():
            outside.resume_reading()
            await inner.lost
            await outer.lost
    finally:
        cut(inside)
        cut(outside)


async def _connect(name: str, protocol: _End) -> asyncio.Transport:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        connection.connect(f"\0{name}")  # at once, or refused: nothing to wait for
        transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: protocol, sock=connection)
    except BaseException:
        connection.close()
        raise
    return transport
