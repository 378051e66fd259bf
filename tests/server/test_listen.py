"""Binding, listening, and ending."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from tests.surfaces.fake_engine import FakeEngine
from tests.surfaces.live import LiveServer

from sandboxd.core.errors import Invalid, Unavailable
from sandboxd.server.app import build_app, run
from sandboxd.server.listen import bind, listener, stopped_by_signals, url
from sandboxd.server.settings import Grpc, Http, Settings

if TYPE_CHECKING:
    import http.client
    from pathlib import Path


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1, port {port}: Address already in use"):
            bind("127.0.0.1", port)


def test_an_address_that_is_not_ours_is_told() -> None:
    with pytest.raises(Unavailable, match=r"cannot listen on 203\.0\.113\.1"):
        bind("203.0.113.1", 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_bound_address_reads_as_a_url(host: str) -> None:
    with bind(host, 0) as bound:
        port = bound.getsockname()[1]
        assert url(bound) in (f"http://127.0.0.1:{port}", f"http://[::1]:{port}")
        assert url(bound, scheme="https").startswith("https://")


def test_a_server_without_any_port_is_refused() -> None:
    with pytest.raises(Invalid, match="nothing else to serve"):
        run(Settings(http=Http(port=0), grpc=Grpc(port=0)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_serving_and_leaves_the_signal_as_it_was(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    application = build_app(FakeEngine(tmp_path), Settings())
    with bind("127.0.0.1", 0) as bound:
        server = listener(application, listening=lambda: os.kill(os.getpid(), number), grace_s=1.0)
        with stopped_by_signals(server):
            async with asyncio.timeout(10):
                await server.serve(sockets=[bound])
    assert signal.getsignal(number) in (before, signal.default_int_handler, signal.SIG_DFL)


def test_a_call_that_outlasts_the_grace_is_cut_off_and_told(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path)
    replies: list[tuple[int, str]] = []
    began = threading.Event()

    def execute(connection: http.client.HTTPConnection, sandbox_id: str) -> None:
        connection.request("POST", f"/sandboxes/{sandbox_id}/exec", json.dumps({"command": ["sleep", "3600"]}))
        began.set()
        response = connection.getresponse()
        replies.append((response.status, response.read().decode()))
        connection.close()

    with LiveServer(build_app(engine, Settings())) as server:
        thread = threading.Thread(target=execute, args=(server.connect(), server.create()))
        thread.start()
        assert began.wait(10)
        while not engine.living:
            began.wait(0.01)
    thread.join(10)
    ((status, text),) = replies
    assert (status, "may or may not have happened" in text) == (500, True)
    assert not engine.living
