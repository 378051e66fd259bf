"""WebSockets through the door, with a client that is not ours."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from structlog.testing import capture_logs
from tests.server.shown import BLOCK, MOST_MESSAGE_BYTES, PREFIX, Served, serving, steady, until
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from sandboxd.server import listen


def upgrade(path: str, *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    head = [
        f"{method} {path} HTTP/{version}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *(lines or ("Host: localhost",)),
    ]
    return "\r\n".join([*head, "", ""]).encode()


async def status_of(url: str, **headers: str) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as caught:
        async with connect(url, additional_headers=headers):
            pass
    response = caught.value.response
    return response.status_code, (response.body or b"").decode()


@pytest.mark.parametrize("prefix", ["", PREFIX])
async def test_messages_of_both_kinds_come_and_go(served: Served, prefix: str) -> None:
    async with connect(f"{served.ws}{prefix}/ws/echo") as client:
        for message in ("text ö", b"bytes \xff", "", b"", b"x" * MOST_MESSAGE_BYTES):
            await client.send(message)
            assert await client.recv() == message
        await client.send([b"in ", b"three ", b"pieces"])
        assert await client.recv() == b"in three pieces"
    await until(lambda: served.shown.ends == ["gone"])
    assert client.close_code == 1000


@pytest.mark.parametrize("status", [401, 403, 404, 409, 410, 501])
async def test_a_refusal_is_an_http_answer(served: Served, status: int) -> None:
    assert await status_of(f"{served.ws}/ws/refuse/{status}") == (status, "refused")


async def test_what_is_not_served_is_told(served: Served) -> None:
    status, text = await status_of(f"{served.ws}/nope")
    assert (status, text) == (404, "no such route: /nope")
    status, text = await status_of(f"{served.ws}/give/all")
    assert (status, "no WebSocket is served at /give/all" in text) == (404, True)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_plain_request_is_told_to_upgrade(served: Served, method: str) -> None:
    head = f"{method} /ws/echo HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(head)
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert answer.startswith(b"http/1.1 426 ")
    assert b"\r\nupgrade: websocket\r\n" in answer
    assert b"\r\nconnection: upgrade\r\n" in answer
    writer.close()


async def test_other_methods_of_a_sockets_path_are_refused(served: Served) -> None:
    answer = await served.raw(b"POST /ws/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nallow: GET\r\n" in answer


async def test_one_path_may_be_both(served: Served) -> None:
    async with connect(f"{served.ws}/both") as client:
        await client.send("hi")
        assert await client.recv() == "hi"


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (("Host: attacker.example",), "http.allowed_hosts"),
        (("Host: localhost", "Origin: https://attacker.example"), "http.allowed_origins"),
        (("Host: localhost", "Origin: null"), "http.allowed_origins"),
        (("Host: localhost", "Host: localhost"), "exactly one Host"),
        (("X-Nothing: here",), "exactly one Host"),
    ],
)
async def test_foreign_pages_open_no_socket(served: Served, lines: tuple[str, ...], named: str) -> None:
    answer = await served.raw(upgrade("/ws/echo", *lines))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert named.encode() in answer


async def test_the_host_of_an_absolute_target_counts(served: Served) -> None:
    refused = await served.raw(upgrade("http://attacker.example/ws/echo"))
    assert refused.startswith(b"HTTP/1.1 403 ")
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(upgrade("http://localhost:80/ws/echo", "Host: whatever.example"))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    writer.close()


@pytest.mark.parametrize(
    "head",
    [
        upgrade("/ws/echo", method="POST"),
        upgrade("/ws/echo", "Host: localhost", "X-Long: " + "x" * 9000),
        upgrade("/ws/echo").replace(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 7"),
        upgrade("/ws/echo").replace(b"Sec-WebSocket-Key: ", b"Sec-Nothing: "),
        upgrade("/ws/echo", "Host: localhost", "Content-Length: 2") + b"hi",
    ],
    ids=["POST", "long", "version", "key", "body"],
)
async def test_a_bad_handshake_is_answered_and_never_hangs(served: Served, head: bytes) -> None:
    assert await served.raw(head) != b""
    assert not served.shown.ends


async def test_an_upgrade_behind_an_unanswered_request_is_refused(served: Served) -> None:
    head = b"PUT /take-late HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
    answer = await served.raw(head + upgrade("/ws/echo"))
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_an_error_after_the_start_closes_with_its_sentence(served: Served) -> None:
    async with connect(f"{served.ws}/ws/fail") as client:
        assert await client.recv() == "hello"
        with pytest.raises(ConnectionClosedError):
            await client.recv()
    assert client.close_code == 1011
    assert client.close_reason is not None
    assert client.close_reason.startswith("the sandbox has gone ö")
    async with connect(f"{served.ws}/ws/fail?how=bug") as client:
        assert await client.recv() == "hello"
        with pytest.raises(ConnectionClosedError):
            await client.recv()
    assert (client.close_code, "please report it" in (client.close_reason or "")) == (1011, True)
    assert (await status_of(f"{served.ws}/ws/silent"))[0] == 500


async def test_a_handler_closes_as_it_likes(served: Served) -> None:
    async with connect(f"{served.ws}/ws/bye") as client:
        with pytest.raises(ConnectionClosed):
            await client.recv()
    assert client.close_code == 4001
    assert client.close_reason == "bye " + "ö" * 59


async def test_a_message_that_is_too_large_ends_the_conversation(served: Served) -> None:
    async with connect(f"{served.ws}/ws/echo") as client:
        await client.send(b"x" * (MOST_MESSAGE_BYTES + 1))
        with pytest.raises(ConnectionClosedError):
            await client.recv()
    assert client.close_code == 1009
    await until(lambda: served.shown.ends == ["gone"])


async def test_who_does_not_read_is_not_sent_to_without_end(served: Served) -> None:
    async with connect(f"{served.ws}/ws/flood", max_queue=1, close_timeout=0.1) as client:
        given = await steady(lambda: served.shown.given)
        assert 0 < given < 32 * 1024 * 1024
        for _ in range(4 + given // len(BLOCK)):
            assert await client.recv() == BLOCK
        assert served.shown.given > given
    await until(lambda: served.shown.ends == ["gone"])


async def test_a_handler_that_does_not_receive_is_not_sent_to_without_end(served: Served) -> None:
    async with connect(f"{served.ws}/ws/deaf") as client:
        sent = 0
        with suppress(TimeoutError):
            while sent < 64 * 1024 * 1024:
                await asyncio.wait_for(client.send(BLOCK), 1)
                sent += len(BLOCK)
        assert sent < 64 * 1024 * 1024
        served.shown.go_on.set()
        await until(lambda: served.shown.taken >= sent)


async def test_a_caller_that_vanishes_is_noticed(served: Served) -> None:
    client = await connect(f"{served.ws}/ws/echo")
    client.transport.abort()
    await until(lambda: served.shown.ends == ["gone"])


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "PING_S", 0.2)
    monkeypatch.setattr(listen, "PONG_S", 0.2)


async def deaf_client(served: Served, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(upgrade(path))
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_a_caller_that_answers_no_ping_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    async with serving() as served, connect(f"{served.ws}/ws/echo") as living:
        reader, writer = await deaf_client(served, "/ws/echo")
        await asyncio.wait_for(reader.read(), 10)
        await until(lambda: served.shown.ends == ["gone"])
        writer.close()
        await living.send("still here")
        assert await living.recv() == "still here"


async def test_who_cannot_answer_a_ping_for_our_slowness_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    async with serving() as served:
        async with connect(f"{served.ws}/ws/deaf", ping_interval=None) as client:
            for _ in range(3):
                await client.send(b"word")
            await asyncio.sleep(1.5)
            served.shown.go_on.set()
            await until(lambda: served.shown.taken == 12)
        async with connect(f"{served.ws}/ws/flood", max_queue=1, ping_interval=None, close_timeout=0.1) as client:
            await asyncio.sleep(1.5)
            given = served.shown.given
            while served.shown.given <= given:
                await client.recv()


async def test_open_sockets_are_closed_with_1012_when_the_server_stops() -> None:
    async with serving() as served:
        echo = await connect(f"{served.ws}/ws/echo")
        deaf = await connect(f"{served.ws}/ws/deaf")
        with suppress(TimeoutError):
            while True:
                await asyncio.wait_for(deaf.send(BLOCK), 0.5)  # much lies unread when the server stops
        _, writer = await deaf_client(served, "/ws/flood")
        await steady(lambda: served.shown.given)
        served.shown.go_on.set()
        served.server.stop()
    for client in (echo, deaf):
        await client.wait_closed()
        assert client.close_code == 1012
    assert served.shown.ends == ["gone", "gone", "gone"]
    writer.close()


async def test_conversations_are_logged_and_counted_like_requests(served: Served) -> None:
    with capture_logs() as lines:
        async with connect(f"{served.ws}/ws/echo?how=a&why=b", additional_headers={"X-Request-Id": "mine"}) as client:
            await client.send("abc")
            await client.recv()
        assert client.response is not None
        assert client.response.headers["x-request-id"] == "mine"
        assert "`why`" in client.response.headers["sandboxd-warning"]
        await status_of(f"{served.ws}/ws/refuse/409", **{"X-Request-Id": "other"})
        await until(lambda: sum(line["event"] == "request" for line in lines) == 2)
    first, second = (line for line in lines if line["event"] == "request")
    assert (first["method"], first["status"], first["request_id"]) == ("WebSocket", 101, "mine")
    assert (first["received"], first["sent"]) == (3, 3)
    assert (second["method"], second["status"], second["request_id"]) == ("WebSocket", 409, "other")
    figures = served.telemetry.render([]).decode()
    assert 'sandboxd_requests_total{method="WebSocket",route="/ws/echo",status="101"} 1.0' in figures
