"""Bodies that come and go piece by piece, through real sockets."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs
from tests.server.shown import BLOCK, PREFIX, serving, steady, until

if TYPE_CHECKING:
    from tests.server.shown import Served

CLOSING = "Connection: close"
CHUNKED = "Transfer-Encoding: chunked"


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def begin(there: Served, *sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
    for part in sent:
        writer.write(part)
    return reader, writer


@pytest.mark.parametrize("prefix", ["", PREFIX])
async def test_a_body_is_taken_piece_by_piece_whatever_its_size(served: Served, prefix: str) -> None:
    blocks = 64
    sent = [head("PUT", f"{prefix}/take", CLOSING, CHUNKED), *[chunk(BLOCK)] * blocks, b"0\r\n\r\n"]
    answer = await served.raw(*sent)
    assert answer.endswith(b"\r\n\r\n%d" % (blocks * len(BLOCK)))
    answer = await served.raw(head("PUT", f"{prefix}/take", CLOSING, "Content-Length: 0"))
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_no_more_is_read_than_is_taken(served: Served) -> None:
    size = 64 * 1024 * 1024
    _, writer = await begin(served, head("PUT", "/take-late", f"Content-Length: {size}"))
    sent = 0
    with suppress(TimeoutError):
        while sent < size:
            writer.write(BLOCK)
            await asyncio.wait_for(writer.drain(), 0.5)
            sent += len(BLOCK)
    assert sent < size
    assert served.shown.taken == 0
    served.shown.go_on.set()
    await until(lambda: served.shown.taken > len(BLOCK))
    writer.transport.abort()


async def test_a_caller_that_hangs_up_in_the_middle_is_told_apart_from_an_end(served: Served) -> None:
    with capture_logs() as lines:
        _, writer = await begin(served, head("PUT", "/take", "Content-Length: 10"), b"12345")
        await until(lambda: served.shown.taken == 5)
        writer.close()
        await until(lambda: served.shown.ends == ["the caller hung up before the end of the body"])
        await until(lambda: any(line["event"] == "request" for line in lines))
    (line,) = (line for line in lines if line["event"] == "request")
    assert (line["status"], line["received"]) == (499, 5)


async def test_a_route_that_dies_with_its_caller_is_cancelled_once_its_body_came(served: Served) -> None:
    _, writer = await begin(served, head("PUT", "/wait", "Content-Length: 4"), b"ab")
    await until(lambda: served.shown.taken == 2)
    writer.write(b"cd")
    await until(lambda: served.shown.taken == 4)
    writer.close()
    await until(lambda: served.shown.ends == ["cancelled"])


async def test_a_sender_that_asks_first_is_told_to_go_on_when_its_body_is_wanted(served: Served) -> None:
    asking = ("Expect: 100-continue", "Content-Length: 3")
    reader, writer = await begin(served, head("PUT", "/take", CLOSING, *asking))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"abc")
    assert (await reader.read()).endswith(b"\r\n\r\n3")
    writer.close()
    answer = await served.raw(head("PUT", "/refuse", *asking))  # it would hang if the connection were kept
    assert answer.startswith(b"HTTP/1.1 409 ")
    assert b"\r\nconnection: close\r\n" in answer


async def test_a_refusal_reaches_a_sender_that_goes_on_speaking(served: Served) -> None:
    reader, writer = await begin(served, head("PUT", "/refuse", f"Content-Length: {64 * len(BLOCK)}"))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 409 ")
    for _ in range(64):
        writer.write(BLOCK)
        await writer.drain()
    assert await reader.readexactly(7) == b"not now"
    writer.write(head("GET", "/give/all"))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_an_answer_comes_in_pieces_with_its_head_first(served: Served) -> None:
    reader, writer = await begin(served, head("GET", "/give/idle"))
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nx-kind: stream\r\n" in answer
    assert b"\r\nx-request-id: " in answer
    assert b"\r\ntransfer-encoding: chunked\r\n" in answer
    assert await reader.readexactly(10) == chunk(b"first")
    assert served.shown.closed == 0
    writer.close()
    await until(lambda: served.shown.closed == 1)


async def test_an_answer_that_ends_leaves_the_connection_open(served: Served) -> None:
    reader, writer = await begin(served)
    for _ in range(2):
        writer.write(head("GET", "/give/all"))
        assert (await reader.readuntil(b"0\r\n\r\n")).endswith(
            b"\r\n\r\n" + chunk(b"first") + chunk(b"last") + b"0\r\n\r\n"
        )
    writer.close()
    assert served.shown.closed == 2


async def test_pieces_in_may_become_pieces_out(served: Served) -> None:
    reader, writer = await begin(served, head("PUT", "/echo", CHUNKED), chunk(b"one"))
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(8) == chunk(b"one")
    writer.write(chunk(b"two"))
    assert await reader.readexactly(8) == chunk(b"two")
    writer.write(b"0\r\n\r\n")
    assert await reader.readexactly(5) == b"0\r\n\r\n"
    writer.close()


@pytest.mark.parametrize("what", ["error", "bug"])
async def test_an_error_in_the_middle_cuts_the_connection(served: Served, what: str) -> None:
    with capture_logs() as lines:
        answer = await served.raw(head("GET", f"/give/{what}"))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert not answer.endswith(b"0\r\n\r\n")
    assert served.shown.closed == 1
    assert any("why" in line if what == "error" else line["event"] == "unforeseen failure" for line in lines)


async def test_who_does_not_read_is_not_answered_without_end(served: Served) -> None:
    reader, writer = await begin(served, head("GET", "/give/flood"))
    given = await steady(lambda: served.shown.given)
    assert 0 < given < 32 * 1024 * 1024
    await reader.readexactly(given + 4 * len(BLOCK))
    assert served.shown.given > given
    writer.transport.abort()
    await until(lambda: served.shown.closed == 1)


async def test_head_of_a_stream_has_no_body(served: Served) -> None:
    answer = await served.raw(head("HEAD", "/give/flood", CLOSING))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n")
    assert served.shown.given == 0


async def test_streams_that_outlast_the_grace_are_cut() -> None:
    async with serving() as served:
        reader, writer = await begin(served, head("GET", "/give/idle"))
        await reader.readuntil(chunk(b"first"))
        served.server.stop()
        assert await reader.read() == b""
        writer.close()
    assert served.shown.closed == 1


async def test_streams_are_counted_in_bytes(served: Served) -> None:
    with capture_logs() as lines:
        await served.raw(head("GET", "/give/all?color=red", CLOSING, "X-Request-Id: mine"))
        await until(lambda: any(line["event"] == "request" for line in lines))
    (line,) = (line for line in lines if line["event"] == "request")
    assert (line["status"], line["sent"], line["request_id"]) == (200, 9, "mine")


async def test_unknown_keys_of_the_query_are_named(served: Served) -> None:
    answer = await served.raw(head("GET", "/give/all?how=now&b%0d%0aad=1", CLOSING))
    assert b"\r\nsandboxd-warning: query key `how` is not known and was ignored\r\n" in answer
    assert b"\r\nsandboxd-warning: query key `b??ad` is not known and was ignored\r\n" in answer
