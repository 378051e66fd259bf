"""Byte streams to ports inside."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from sandboxd.guest import frames as wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.agent.conftest import Driver

ECONNREFUSED = 111


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.socket(request.param) as listener:
        listener.bind(("127.0.0.1" if request.param == socket.AF_INET else "::1", 0))
        listener.listen()
        listener.settimeout(10)
        yield listener


def _connect(agent: Driver, listener: socket.socket, window: int = 1 << 18) -> tuple[int, socket.socket]:
    record_id = agent.new_id()
    agent.send(wire.Connect(window, listener.getsockname()[1]), record_id)
    assert agent.reply(record_id) == wire.Accepted(0, wire.LIMIT_INPUT, 0)
    peer, _ = listener.accept()
    peer.settimeout(10)
    return record_id, peer


def test_bytes_go_both_ways_and_each_way_ends_by_itself(agent: Driver, listener: socket.socket) -> None:
    record_id, peer = _connect(agent, listener)
    with peer:
        agent.send(wire.Input(0, b"question"), record_id)
        assert peer.recv(100) == b"question"
        peer.sendall(b"answer")
        agent.until(lambda: agent.output(record_id) == b"answer")
        agent.send(wire.Input(8, b"!"), record_id, flags=wire.FLAG_LAST)
        assert peer.recv(100) == b"!"
        assert peer.recv(100) == b""
        peer.sendall(b" more")
        peer.shutdown(socket.SHUT_WR)
        assert agent.wait(wire.End, record_id) == wire.End(1, 11)
        assert agent.output(record_id) == b"answer more"
    agent.send(wire.Attach(1, 0, 1), record_id)
    assert isinstance(agent.wait(wire.Failed, record_id), wire.Failed)


def test_nobody_listening_is_refused(agent: Driver) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        failed = agent.ask(wire.Connect(1, taken.getsockname()[1]))
    assert isinstance(failed, wire.Failed)
    assert failed.errno == ECONNREFUSED


def test_credit_is_kept_both_ways(agent: Driver, listener: socket.socket) -> None:
    agent.auto_window = False
    record_id, peer = _connect(agent, listener, window=10)
    with peer:
        peer.sendall(bytes(100))
        frame = agent.wait(wire.Output, record_id)
        assert (frame.offset, len(frame.data)) == (0, 10)
        agent.send(wire.Window(1, 10, 1000), record_id)
        assert len(agent.wait(wire.Output, record_id).data) == 90
        sent = 0
        limit = wire.LIMIT_INPUT
        while sent < limit and sent < 20_000_000:
            piece = bytes(min(4060, limit - sent))
            agent.send(wire.Input(sent, piece), record_id)
            sent += len(piece)
            if sent == limit:
                agent.quiet(0.05)
                news = [frame.limit for _, frame in agent.frames if isinstance(frame, wire.Accepted)]
                limit = max([limit, *news])
        assert sent < 20_000_000
        received = 0
        peer.settimeout(0.5)
        while received < sent:
            received += len(peer.recv(1 << 20))


def test_forget_closes_the_connection(agent: Driver, listener: socket.socket) -> None:
    record_id, peer = _connect(agent, listener)
    with peer:
        agent.send(wire.Forget(), record_id)
        assert peer.recv(1) == b""


def test_a_reset_is_told(agent: Driver, listener: socket.socket) -> None:
    record_id, peer = _connect(agent, listener)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    peer.close()
    assert isinstance(agent.wait(wire.Failed, record_id), wire.Failed)


def test_a_connection_ends_with_its_host(agent: Driver, listener: socket.socket) -> None:
    _, peer = _connect(agent, listener)
    with peer:
        agent.meet()
        assert peer.recv(1) == b""
