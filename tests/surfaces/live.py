"""Servers on loopback in a thread of their own, of an application or with all their doors, and a plain client."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import uvloop

from sandboxd.server.app import serve
from sandboxd.server.doors import Doors
from sandboxd.server.listen import Listener, bind, listener, url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxd.ports.engine import Engine
    from sandboxd.server.settings import Settings

PATIENCE_S = 10.0


@dataclass(frozen=True)
class Reply:
    """What a server said."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """Asks one server, on a connection of its own each time."""

    def __init__(self, address: str, grpc: str = "") -> None:
        self.address = address
        self.grpc = grpc
        """Where gRPC alone answers, as clients take it: host and port."""

    @property
    def host_port(self) -> str:
        """Where HTTP and gRPC answer, without a scheme."""
        return urlsplit(self.address).netloc

    def connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.address)
        assert parts.hostname is not None
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)

    def ask(self, method: str, path: str, body: object = None, *, raw: bytes | None = None, **headers: str) -> Reply:
        """Send a request; `body` goes as JSON, `raw` as it is. Underscores in header names stand for hyphens."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            raw = json.dumps(body).encode()
            fields.setdefault("Content-Type", "application/json")
        with closing(self.connect()) as connection:
            connection.request(method, path, raw, fields)
            response = connection.getresponse()
            lower = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, response.read(), lower)

    def create(self, **wishes: object) -> str:
        """Make a sandbox and return its id."""
        body = {"type": "container", "image": "alpine:latest", "command": [], "memory_mb": 64, "cpu_cores": 1.0}
        reply = self.ask("POST", "/sandboxes", body | wishes)
        assert reply.status == 201, reply
        return str(reply.json["id"])

    def create_stopped(self) -> str:
        """Make a sandbox whose command ends at once and return its id when it has."""
        sandbox_id = self.create(command=["true"])
        deadline = time.monotonic() + PATIENCE_S
        while self.ask("GET", f"/sandboxes/{sandbox_id}").json["status"] != "stopped":
            assert time.monotonic() < deadline, "the sandbox does not stop"
            time.sleep(0.005)
        return sandbox_id

    def execute(self, sandbox_id: str, *command: str) -> Reply:
        return self.ask("POST", f"/sandboxes/{sandbox_id}/exec", {"command": command})


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens on just now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]


class LiveDoors(Caller):
    """Serves an engine at all doors, HTTP and gRPC, while its `with` block runs."""

    def __init__(self, engine: Engine, settings: Settings, *, grace_s: float = 0.5) -> None:
        port, grpc_port = free_ports(2)
        super().__init__(f"http://127.0.0.1:{port}", grpc=f"127.0.0.1:{grpc_port}")
        http = replace(settings.http, port=port)
        self._settings = replace(settings, http=http, grpc=replace(settings.grpc, port=grpc_port))
        self._engine = engine
        self._grace_s = grace_s
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            self._loop = runner.get_loop()
            runner.run(self._run())

    async def _run(self) -> None:
        async with Doors(self._settings, grace_s=self._grace_s) as self._doors:
            await serve(self._engine, self._doors, self._settings, listening=self._ready.set)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10), "the server did not start"
        return self

    def stop(self) -> None:
        """Ask the server to end."""
        self._loop.call_soon_threadsafe(self._doors.stop)

    def __exit__(self, *exc: object) -> None:
        if self._thread.is_alive():
            self.stop()
        self._thread.join(20)
        assert not self._thread.is_alive(), "the server did not stop"


class LiveServer(Caller):
    """Serves an application while its `with` block runs."""

    def __init__(self, application: Any) -> None:
        self._socket = bind("127.0.0.1", 0)
        super().__init__(url(self._socket))
        self._ready = threading.Event()
        self._server: Listener = listener(application, listening=self._ready.set, grace_s=0.5)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            runner.run(self._server.serve(sockets=[self._socket]))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10), "the server did not start"
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._server.stop)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the server did not stop"
