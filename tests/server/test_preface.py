"""HTTP and HTTP/2 told apart on one port, and what passes between a caller and the socket behind it."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from sandboxd.server import heads
from sandboxd.server.listen import bind, listener
from sandboxd.server.preface import PREFACE, relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PATIENCE_S = 10.0
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
LOOPS = [None, uvloop.new_event_loop]


async def application(_scope: Any, receive: Any, send: Any) -> None:
    """Answer everything alike."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"plain"})


class Behind:
    """A Unix socket that talks with whoever is passed on, and a port in front of it."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@asynccontextmanager
async def front(talk: Talk | None) -> AsyncIterator[Behind]:
    """Serve the application on a port; HTTP/2 goes to a socket where `talk` answers, or nobody does."""
    name = secrets.token_hex(8)
    behind = None
    if talk is not None:
        inside = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        inside.bind(f"\0{name}")
        behind = await asyncio.start_unix_server(talk, sock=inside)
    ready = asyncio.Event()
    with bind("127.0.0.1", 0) as bound:
        async with relay(name) as pass_on, asyncio.TaskGroup() as group:
            server = listener(application, listening=ready.set, grace_s=0.2, http2=pass_on)
            group.create_task(server.serve(sockets=[bound]))
            await ready.wait()
            yield Behind(bound.getsockname()[1])
            server.stop()
    if behind is not None:
        behind.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say everything back, and `bye` when the caller has ended."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"bye")
    writer.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    """Run a coroutine in each kind of loop."""

    def run(work: Any) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(work, PATIENCE_S))

    return run


def test_what_begins_as_http2_is_passed_on_whole(run: Callable[[Any], None]) -> None:
    async def work() -> None:
        async with front(echo) as behind:
            reader, writer = await behind.connect()
            writer.write(PREFACE + b"and more")
            assert await reader.readexactly(len(PREFACE) + 8) == PREFACE + b"and more"
            writer.write(b"later")
            assert await reader.readexactly(5) == b"later"
            writer.close()

    run(work())


@pytest.mark.parametrize("request_", [GET, POST], ids=["GET", "POST"])
def test_http_is_answered_though_its_first_bytes_come_one_by_one(run: Callable[[Any], None], request_: bytes) -> None:
    async def work() -> None:
        async with front(echo) as behind:
            reader, writer = await behind.connect()
            for byte in request_:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.001)
            for _ in range(2):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                assert await reader.readexactly(5) == b"plain"
                writer.write(request_)
            writer.close()

    run(work())


def test_http2_is_passed_on_though_its_first_bytes_come_one_by_one(run: Callable[[Any], None]) -> None:
    async def work() -> None:
        async with front(echo) as behind:
            reader, writer = await behind.connect()
            for byte in PREFACE:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.001)
            assert await reader.readexactly(len(PREFACE)) == PREFACE
            writer.close()

    run(work())


@pytest.mark.parametrize("noise", [b"PRI * HTTP/2.0\r\n\r\nXX", b"PRIVATE / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\0\0"])
def test_what_only_resembles_http2_is_left_to_http(run: Callable[[Any], None], noise: bytes) -> None:
    async def work() -> None:
        async with front(echo) as behind:
            reader, writer = await behind.connect()
            writer.write(noise + b"\r\n\r\n" * 8)
            assert (await reader.read(65536)).startswith(b"HTTP/1.1 400")
            writer.close()

    run(work())


def test_each_direction_ends_on_its_own(run: Callable[[Any], None]) -> None:
    async def work() -> None:
        async with front(echo) as behind:
            reader, writer = await behind.connect()
            writer.write(PREFACE)
            writer.write_eof()
            assert await reader.read() == PREFACE + b"bye"
            writer.close()

    run(work())


def test_the_inner_end_may_end_first(run: Callable[[Any], None]) -> None:
    heard: list[bytes] = []

    async def end_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"mine is said")
        writer.write_eof()
        heard.append(await reader.read())
        writer.close()

    async def work() -> None:
        async with front(end_first) as behind:
            reader, writer = await behind.connect()
            writer.write(PREFACE)
            assert await reader.read() == b"mine is said"
            writer.write(b"yours not yet")
            writer.write_eof()
            while not heard:
                await asyncio.sleep(0.001)
            writer.close()
        assert heard == [PREFACE + b"yours not yet"]

    run(work())


def test_a_caller_that_reads_slowly_holds_the_sender_back(run: Callable[[Any], None]) -> None:
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for _megabyte in range(64):
            writer.write(b"x" * (1 << 20))
            await writer.drain()
            sent += 1
        writer.close()

    async def work() -> None:
        async with front(flood) as behind:
            reader, writer = await behind.connect()
            writer.write(PREFACE)
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.2)
            assert sent < 32, "everything was taken though nobody read"
            assert len(await reader.read()) == 64 << 20
            writer.close()

    run(work())


def test_without_anybody_behind_the_connection_ends(run: Callable[[Any], None]) -> None:
    async def work() -> None:
        async with front(None) as behind:
            reader, writer = await behind.connect()
            writer.write(PREFACE)
            with pytest.raises(ConnectionResetError):
                raise ConnectionResetError if await reader.read() == b"" else AssertionError
            writer.close()

    run(work())


def test_the_end_of_the_server_cuts_what_is_left_and_nothing_leaks(run: Callable[[Any], None]) -> None:
    async def work() -> None:
        async with front(echo):
            pass  # what a loop opens once and keeps
        before = descriptors()
        held = []
        async with front(echo) as behind:
            for _ in range(50):
                reader, writer = await behind.connect()
                writer.write(PREFACE)
                await reader.readexactly(len(PREFACE))
                held.append((reader, writer))
            for _, writer in held[:25]:
                writer.transport.abort()
            began = time.monotonic()
        assert time.monotonic() - began < 3
        for reader, writer in held:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            writer.close()
        while descriptors() > before:
            await asyncio.sleep(0.01)

    run(work())


async def test_a_head_that_is_too_long_is_refused_and_hung_up_on() -> None:
    async with front(None) as behind:
        reader, writer = await behind.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        with suppress(ConnectionError):
            for _ in range(200):
                writer.write(b"a" * 1024)
                await writer.drain()
        assert (await reader.read()).startswith(b"HTTP/1.1 431 ")
        writer.close()


async def test_long_bodies_and_many_requests_do_not_count_as_a_head() -> None:
    async with front(None) as behind:
        reader, writer = await behind.connect()
        body = b"x" * 300_000
        for _ in range(3):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert (await reader.readuntil(b"plain")).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_head_that_does_not_come_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "PATIENCE_S", 0.2)
    async with front(None) as behind:
        for begun in (b"", b"GET / HT"):
            reader, writer = await behind.connect()
            writer.write(begun)
            async with asyncio.timeout(PATIENCE_S):
                with suppress(ConnectionError):
                    assert await reader.read() == b""
            writer.close()
        reader, writer = await behind.connect()
        writer.write(GET)
        assert (await reader.readuntil(b"plain")).startswith(b"HTTP/1.1 200 ")
        await asyncio.sleep(0.4)  # between requests a connection may rest
        writer.write(GET)
        assert (await reader.readuntil(b"plain")).startswith(b"HTTP/1.1 200 ")
        writer.close()
