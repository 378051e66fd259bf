"""What a web page can send, or somebody in its name, to a server on loopback: every way of naming a host."""

from __future__ import annotations

import asyncio
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import grpc
import pytest
from tests.server.shown import Served, until
from tests.surfaces.fake_engine import FakeEngine
from tests.surfaces.live import free_ports

from sandboxd.ports.surface import Bounds
from sandboxd.server.doors import Doors
from sandboxd.server.neighbours import Neighbours
from sandboxd.server.settings import Grpc, Http, Settings
from sandboxd.surfaces.grpc import sandbox_pb2 as wire
from sandboxd.surfaces.grpc.calls import Calls
from sandboxd.surfaces.grpc.serving import Patience, Serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sandboxd.surfaces.grpc.serving import Served as Call

UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"
)
WAYS = {
    "plain": "{target} HTTP/1.1\r\nConnection: close",
    "streamed": "{target} HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue",
    "upgrade": "{target} HTTP/1.1\r\n" + UPGRADE,
}
PATHS = {"plain": "GET /give/all", "streamed": "PUT /take", "upgrade": "GET /ws/echo"}


async def status(served: Served, way: str, *lines: str, base: str = "") -> tuple[int, bytes]:
    """Ask in one of the ways, with these header lines, and return the first answer."""
    method, path = PATHS[way].split()
    head = WAYS[way].format(target=f"{method} {base}{path}")
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write("\r\n".join([head, *lines, "", ""]).encode("latin-1"))
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    code = int(answer.split()[1])
    text = b""
    if code == 403:
        text = await reader.read()
    writer.close()
    return code, text


@pytest.mark.parametrize("way", list(WAYS))
async def test_every_way_in_believes_only_our_own_names(served: Served, way: str) -> None:
    for host in ("localhost", "localhost.", "LOCALHOST:1", "127.0.0.1:65535", "[::1]", "[::1]:8080", "127.1.2.3:"):
        assert (await status(served, way, f"Host: {host}"))[0] in (100, 101, 200), host
    for host in (
        "attacker.example",
        "attacker.example:8080",
        "localhost.attacker.example",
        "localhost@attacker.example",
        "attacker.example@localhost",
        "attacker.example#@localhost",
        "attacker.example/@localhost",
        "localhost:80@attacker.example",
        "localhost:x",
        "localhost:8080:8080",
        "localhost, attacker.example",
        "[::1]attacker.example",
        "[::2]",
        "::1",
        "0.0.0.0",  # noqa: S104 - judged, not bound
        "127.1",
        "2130706433",
        "0x7f000001",
        "localhost..",
        "",
    ):
        code, text = await status(served, way, f"Host: {host}")
        assert (code, b"`http.allowed_hosts`" in text) == (403, True), host


@pytest.mark.parametrize("way", list(WAYS))
async def test_a_host_is_named_once(served: Served, way: str) -> None:
    for lines in ([], ["Host: localhost", "Host: localhost"], ["Host: localhost", "host: 127.0.0.1"]):
        code, text = await status(served, way, *lines)
        assert (code, b"exactly one Host" in text) == (403, True)
    assert (await status(served, way, "Host: localhost", "HOST: attacker.example"))[0] == 403


@pytest.mark.parametrize("way", list(WAYS))
async def test_the_host_of_the_target_goes_before_that_of_the_header(served: Served, way: str) -> None:
    for base in ("http://attacker.example", "HTTP://attacker.example:80", "http://localhost@attacker.example"):
        assert (await status(served, way, "Host: localhost", base=base))[0] == 403, base
    for base in ("http://localhost", "http://[::1]:8080"):
        assert (await status(served, way, "Host: localhost", base=base))[0] in (100, 101, 200), base


@pytest.mark.parametrize("way", list(WAYS))
async def test_foreign_pages_are_refused_wherever_they_come_in(served: Served, way: str) -> None:
    foreign = (
        "null",
        "https://attacker.example",
        "http://localhost.attacker.example",
        "http://localhost@attacker.example",
    )
    for origin in (*foreign, "http://attacker.example#localhost", "file://", "localhost", "data://localhost", ""):
        code, text = await status(served, way, "Host: localhost", f"Origin: {origin}")
        assert (code, b"`http.allowed_origins`" in text) == (403, True), origin
    for origin in ("http://localhost:5173", "https://127.0.0.1", "http://[::1]:1"):
        assert (await status(served, way, "Host: localhost", f"Origin: {origin}"))[0] in (100, 101, 200), origin


async def test_odd_targets_lead_nowhere(served: Served) -> None:
    for target in ("CONNECT localhost:80", "OPTIONS *", "GET http://localhost", "GET //attacker.example/give/all"):
        answer = await served.raw(f"{target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert answer.split()[1] in (b"400", b"404"), target


@asynccontextmanager
async def grpc_doors(folder: Path, ended: list[Call]) -> AsyncIterator[tuple[int, int]]:
    ports = free_ports(2)
    settings = Settings(http=Http(port=ports[0]), grpc=Grpc(port=ports[1]))
    calls = Calls(FakeEngine(folder), Bounds(), owner="local")
    ready = asyncio.Event()

    async def nothing(_scope: object, _receive: object, _send: object) -> None:
        """Answer nobody."""

    async with (
        Doors(settings, grace_s=0.5) as doors,
        Serving(calls, patience=Patience(), note=ended.append, foreign=Neighbours().foreign) as serving,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(doors.serve(nothing, serving, listening=ready.set))
        await ready.wait()
        try:
            yield ports[0], ports[1]
        finally:
            doors.stop()


async def test_grpc_of_a_foreign_page_is_refused_on_both_ports(tmp_path: Path) -> None:
    ended: list[Call] = []
    async with grpc_doors(tmp_path, ended) as ports:
        for port in ports:
            for origin, wanted in (
                ("https://attacker.example", "PERMISSION_DENIED"),
                ("http://localhost", "NOT_FOUND"),
            ):
                async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                    ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                        "/sandbox.SandboxService/GetStatus"
                    )
                    with pytest.raises(grpc.RpcError) as caught:
                        await ask(wire.StatusRequest(id="sb-1").SerializeToString(), metadata=(("origin", origin),))
                assert caught.value.code().name == wanted


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def http2(*headers: tuple[str, str]) -> bytes:
    """Return an HTTP/2 connection's first bytes and one call with these headers, none of them packed."""
    message = wire.StatusRequest(id="sb-1").SerializeToString()
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/sandbox.SandboxService/GetStatus"),
        (":authority", "attacker.example"),
        *headers,
    )
    block = b"".join(b"\0%c%s%c%s" % (len(name), name.encode(), len(value), value.encode()) for name, value in fields)
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + _frame(4, 0, 0, b"")
        + _frame(1, 4, 1, block)
        + _frame(0, 1, 1, b"\0" + struct.pack("!I", len(message)) + message)
    )


async def test_a_browser_cannot_speak_grpc_at_all(tmp_path: Path) -> None:
    """Its pages may set any header but `te`, without which no call is one; that is why `:authority` goes unjudged."""
    ended: list[Call] = []
    async with grpc_doors(tmp_path, ended) as ports:
        for port in ports:
            for more, reaches in (((), False), ((("te", "trailers"),), True)):
                ended.clear()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(http2(("content-type", "application/grpc"), *more))
                if reaches:
                    await until(lambda: len(ended) == 1)
                else:
                    received = b""
                    reset = _frame(3, 0, 1, b"")[3:]
                    with suppress(asyncio.IncompleteReadError):
                        async with asyncio.timeout(10):
                            while reset not in received:
                                received += await reader.readexactly(1)
                    assert not ended
                writer.close()
