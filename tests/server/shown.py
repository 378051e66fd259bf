"""Routes that show what the door does: streams in and out, and WebSockets that echo, refuse, fail and flood."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sandboxd.core.errors import Conflict, Denied, Lost, NotFound, SandboxdError, Uncertain, Unsupported
from sandboxd.ports.surface import TEXT, Answer, Reply, Request, Route, Socket, SocketRoute
from sandboxd.server.http import Application, Attributed
from sandboxd.server.listen import Listener, bind, listener
from sandboxd.server.neighbours import Neighbours
from sandboxd.server.routes import RouteTable
from sandboxd.server.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Accept = Callable[[], Awaitable[Socket]]

MOST_MESSAGE_BYTES = 200_000
PREFIX = "/some/prefix"
BLOCK = b"b" * 65536
_REFUSALS: dict[str, tuple[int, type[SandboxdError]]] = {
    "401": (401, Denied),
    "403": (403, Denied),
    "404": (404, NotFound),
    "409": (409, Conflict),
    "410": (410, Lost),
    "501": (501, Unsupported),
}


@dataclass
class Shown:
    """What the routes saw."""

    taken: int = 0
    """Bytes of bodies and messages that handlers have taken."""
    given: int = 0
    """Bytes of answers and messages that handlers have handed over."""
    closed: int = 0
    """Answers whose iterator was closed."""
    ends: list[str] = field(default_factory=list)
    """How conversations and bodies ended."""
    go_on: asyncio.Event = field(default_factory=asyncio.Event)


def application(shown: Shown, telemetry: Telemetry | None = None) -> Attributed:
    """Return an application of these routes only."""
    return Attributed(
        Application(
            RouteTable(all_routes(shown), prefixes=[PREFIX]),
            neighbours=Neighbours(),
            most_body_bytes=1000,
            telemetry=telemetry or Telemetry(),
        ),
        "local",
    )


def all_routes(shown: Shown) -> list[Route | SocketRoute]:
    """Return the routes."""
    return [*_streams(shown), *_sockets(shown)]


def _errors(error: SandboxdError) -> Answer:
    status = next((status for status, kind in _REFUSALS.values() if type(error) is kind and status != 401), 500)
    return Answer(int(error.hint) if error.hint.isdigit() else status, error.message.encode(), TEXT)


def _streams(shown: Shown) -> list[Route]:
    async def take(request: Request) -> Answer:
        assert request.pieces is not None
        assert request.body == b""
        try:
            async for piece in request.pieces:
                shown.taken += len(piece)
        except Uncertain as error:
            shown.ends.append(str(error))
            raise
        return Answer(200, str(shown.taken).encode(), TEXT)

    async def take_late(request: Request) -> Answer:
        await shown.go_on.wait()
        return await take(request)

    async def refuse(request: Request) -> Answer:
        raise Conflict("not now")

    async def echo(request: Request) -> Answer:
        assert request.pieces is not None
        return Answer(200, request.pieces, "application/octet-stream")

    async def wait(request: Request) -> Answer:
        assert request.pieces is not None
        async for piece in request.pieces:
            shown.taken += len(piece)
        try:
            await asyncio.sleep(3600)
        finally:
            shown.ends.append("cancelled")
        raise AssertionError

    async def give(request: Request) -> Answer:
        return Answer(200, _pieces(request, shown), "text/plain", (("x-kind", "stream"),))

    return [
        _route("PUT", "/take", take, streams=True),
        _route("PUT", "/take-late", take_late, streams=True),
        _route("PUT", "/refuse", refuse, streams=True),
        _route("PUT", "/echo", echo, streams=True),
        _route("PUT", "/wait", wait, streams=True, dies_with_caller=True),
        _route("GET", "/give/{what}", give),
        _route("GET", "/both", give),
    ]


async def _pieces(request: Request, shown: Shown) -> AsyncIterator[bytes]:
    what = request.params["what"]
    try:
        yield b"first"
        if what == "error":
            raise Lost("the sandbox has gone")
        if what == "bug":
            raise RuntimeError(what)
        while what == "flood":
            yield BLOCK
            shown.given += len(BLOCK)
        if what == "idle":
            await asyncio.sleep(3600)
        yield b""
        yield b"last"
    finally:
        shown.closed += 1


def _route(method: str, path: str, handler: Callable[[Request], Awaitable[Answer]], **more: Any) -> Route:
    return Route(
        method=method,
        path=path,
        summary="For tests",
        description="For tests.",
        handler=handler,
        errors=_errors,
        replies={200: Reply("Fine.", None, "application/octet-stream")},
        **more,
    )


class _Conversations:
    """Handlers of WebSockets."""

    # ruff: noqa: ARG002 - handlers all take the same

    def __init__(self, shown: Shown) -> None:
        self._shown = shown

    async def echo(self, request: Request, accept: Accept) -> None:
        socket = await accept()
        while (message := await socket.receive()) is not None:
            self._shown.taken += len(message)
            await socket.send(message)
        await socket.send("dropped")
        assert await socket.receive() is None
        self._shown.ends.append("gone")

    async def refuse(self, request: Request, accept: Accept) -> None:
        status, kind = _REFUSALS[request.params["status"]]
        raise kind("refused", hint=str(status))

    async def fail(self, request: Request, accept: Accept) -> None:
        socket = await accept()
        await socket.send("hello")
        if request.query.get("how") == "bug":
            raise RuntimeError
        raise Lost("the sandbox has gone " + "ö" * 100)

    async def silent(self, request: Request, accept: Accept) -> None:
        """Neither accept nor refuse."""

    async def flood(self, request: Request, accept: Accept) -> None:
        socket = await accept()

        async def listen() -> None:
            while await socket.receive() is not None:
                pass
            sending.cancel()

        async def send() -> None:
            while True:
                await socket.send(BLOCK)
                self._shown.given += len(BLOCK)

        async with asyncio.TaskGroup() as group:
            sending = group.create_task(send())
            group.create_task(listen())
        self._shown.ends.append("gone")

    async def deaf(self, request: Request, accept: Accept) -> None:
        socket = await accept()
        await self._shown.go_on.wait()
        while (message := await socket.receive()) is not None:
            self._shown.taken += len(message)
        self._shown.ends.append("gone")

    async def bye(self, request: Request, accept: Accept) -> None:
        socket = await accept()
        await socket.close(4001, "bye " + "ö" * 100)
        await socket.close(4002)


def _sockets(shown: Shown) -> list[SocketRoute]:
    calls = _Conversations(shown)
    handlers = {
        "/ws/echo": calls.echo,
        "/ws/refuse/{status}": calls.refuse,
        "/ws/fail": calls.fail,
        "/ws/silent": calls.silent,
        "/ws/flood": calls.flood,
        "/ws/deaf": calls.deaf,
        "/ws/bye": calls.bye,
        "/both": calls.echo,
    }
    query = {"how": "How to fail."}
    return [
        SocketRoute(path, "For tests", "For tests.", handler, _errors, query=query)
        for path, handler in handlers.items()
    ]


async def until(condition: Callable[[], bool], patience_s: float = 10.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(patience_s):
        while not condition():
            await asyncio.sleep(0.005)


async def steady(figure: Callable[[], int]) -> int:
    """Wait until a figure stays as it is for a while, and return it."""
    before = -1
    with suppress(TimeoutError):
        async with asyncio.timeout(10):
            while figure() != before or before == 0:
                before = figure()
                await asyncio.sleep(0.3)
    return before


class Served:
    """The routes for tests behind a port."""

    def __init__(self, port: int, shown: Shown, server: Listener, telemetry: Telemetry) -> None:
        self.port = port
        self.shown = shown
        self.server = server
        self.telemetry = telemetry
        self.http = f"127.0.0.1:{port}"
        self.ws = f"ws://{self.http}"

    async def raw(self, *sent: bytes) -> bytes:
        """Send bytes and return what comes back until the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for part in sent:
            writer.write(part)
        received = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return received


@asynccontextmanager
async def serving() -> AsyncIterator[Served]:
    ready, shown, telemetry = asyncio.Event(), Shown(), Telemetry()
    with bind("127.0.0.1", 0) as bound:
        server = listener(
            application(shown, telemetry), listening=ready.set, grace_s=1, most_message_bytes=MOST_MESSAGE_BYTES
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[bound]))
            await ready.wait()
            try:
                yield Served(bound.getsockname()[1], shown, server, telemetry)
            finally:
                server.stop()
