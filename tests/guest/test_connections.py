"""Byte streams to ports inside a guest, over every channel."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from tests.guest.asking import MIB

from sandboxd.core.errors import Conflict, Invalid, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandboxd.guest.agent import AgentGuest
    from sandboxd.ports.guest import GuestConnection


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes until its end, then a last word."""
    try:
        while data := await reader.read(65536):
            if data == b"cut":
                _reset(writer)
                return
            writer.write(data)
            await writer.drain()
        writer.write(b"end")
        await writer.drain()
    except ConnectionError:
        pass  # The other side had enough, which some tests are about.
    finally:
        writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    connected = writer.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    echoing: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        echo = asyncio.ensure_future(_echo(reader, writer))
        echoing.add(echo)
        await echo

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])
    for echo in echoing:
        echo.cancel()
    await asyncio.gather(*echoing, return_exceptions=True)
    await asyncio.sleep(0)


async def _rest(connection: GuestConnection) -> bytes:
    pieces = []
    while data := await connection.read():
        pieces.append(data)
    return b"".join(pieces)


async def test_bytes_go_both_ways_and_each_way_ends_on_its_own(guest: AgentGuest, port: int) -> None:
    connection = await guest.connect(port)
    data = bytes(range(256)) * (4 * MIB // 256)

    async def write() -> None:
        await connection.write(data)
        await connection.end_writing()

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        received = group.create_task(_rest(connection))
    assert received.result() == data + b"end"
    assert await connection.read() == b""
    with pytest.raises(Conflict):
        await connection.write(b"late")
    await connection.close()
    await connection.close()


async def test_a_port_without_a_listener_is_unavailable(guest: AgentGuest) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable, match=r"cannot connect to port .* refused"):
            await guest.connect(free.getsockname()[1])
    for wrong in (0, -1, 65536):
        with pytest.raises(Invalid):
            await guest.connect(wrong)


async def test_a_connection_that_is_cut_is_told(guest: AgentGuest, port: int) -> None:
    connection = await guest.connect(port)
    await connection.write(b"cut")
    with pytest.raises(Unavailable, match="cut: connection reset"):
        await _rest(connection)
    with pytest.raises(Unavailable):
        await connection.write(b"x")
    await connection.close()


async def test_a_reader_that_is_slow_holds_the_other_side_back(guest: AgentGuest, port: int) -> None:
    slow = await guest.connect(port)
    quick = await guest.connect(port)
    writing = asyncio.ensure_future(slow.write(bytes(64 * MIB)))
    for _ in range(200):
        await quick.write(b"x")
        assert await quick.read() == b"x"
    assert not writing.done()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await slow.close()
    await quick.close()
