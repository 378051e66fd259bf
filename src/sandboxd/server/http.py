"""The HTTP door: one ASGI application that judges, routes, reads, answers, counts and logs."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl

import structlog

from sandboxd.core.errors import Bug, SandboxdError
from sandboxd.ports.surface import TEXT, Answer, Request
from sandboxd.server.caller import CallerGone, unless_gone
from sandboxd.server.telemetry import NO_ROUTE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from sandboxd.ports.surface import Route
    from sandboxd.server.neighbours import Neighbours
    from sandboxd.server.routes import RouteTable
    from sandboxd.server.telemetry import Telemetry

    Scope: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

OWNER = "sandboxd.owner"
"""Key of the ASGI scope under which whoever authenticated the caller leaves its name."""
HUNG_UP = 499
"""Logged and counted, never sent, for a caller that closed its connection before its answer."""
_PATIENCE = 8
"""How many times the allowed size is drained of a body that is too big before its sender is cut off."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")


class Refused(Exception):
    """A request that never reached its route."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(slots=True, eq=False)
class _Call:
    """One request on its way, with what the log will say of it."""

    scope: Scope
    receive: Receive
    headers: Mapping[bytes, bytes]
    request_id: str
    route: Route | None = None
    params: Mapping[str, str] | None = None
    size: int = 0


class Application:
    """Serves a table of routes. `neighbours` is None where whoever listens elsewhere than on loopback is trusted.

    A body larger than `most_body_bytes` is refused with 413.
    """

    def __init__(
        self, table: RouteTable, *, neighbours: Neighbours | None, most_body_bytes: int, telemetry: Telemetry
    ) -> None:
        self._table = table
        self._neighbours = neighbours
        self._most_body_bytes = most_body_bytes
        self._telemetry = telemetry
        self._id_prefix = secrets.token_hex(4)
        self._ids = count(1)
        self._log = structlog.get_logger().bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection; anything but HTTP is turned away."""
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        call = _Call(scope, receive, headers, self._request_id(headers))
        try:
            answer = await self._answer(call)
        except CallerGone:
            self._note(call, HUNG_UP, 0, began)
            return
        except asyncio.CancelledError:
            # The server stops and its grace is over. This is the top of the request, so the cancellation ends here.
            answer = _text(500, "the server is stopping and cut this call off; it may or may not have happened")
        await _send(send, answer, call.request_id)
        self._note(call, answer.status, len(answer.body), began)

    async def _answer(self, call: _Call) -> Answer:
        try:
            request = await self._admit(call)
        except Refused as refused:
            return refused.answer
        route = call.route
        assert route is not None, "admitted without a route"  # noqa: S101 - for the type checker
        work = self._work(route, request, call)
        return await (unless_gone(call.receive, work) if route.dies_with_caller else work)

    async def _admit(self, call: _Call) -> Request:
        """Judge and read a request, and note its route."""
        scope = call.scope
        if self._neighbours is not None:
            refusal = self._neighbours.refusal(scope["headers"])
            if refusal:
                raise Refused(_text(403, refusal))
        path = scope["raw_path"].decode("latin-1")
        found = self._table.find(scope["method"], path)
        if found is None:
            raise Refused(_text(404, f"no such route: {path[:200]}"))
        if found.route is None:
            allowed = sorted({*found.allowed, "HEAD"} if "GET" in found.allowed else found.allowed)
            text = f"{scope['method']} is not allowed here; allowed: {', '.join(allowed)}"
            raise Refused(_text(405, text, ("allow", ", ".join(allowed))))
        call.route, call.params = found.route, found.params
        query = scope["query_string"]
        return Request(
            owner=scope[OWNER],
            params=found.params,
            query=dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else {},
            headers=call.headers,
            body=await self._read(call),
        )

    async def _read(self, call: _Call) -> bytes:
        """Read the body; one that is too big is drained first, as clients seldom listen before they have spoken."""
        most = self._most_body_bytes
        declared = call.headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > most and b"expect" in call.headers:
            raise _too_big(most)
        chunks: list[bytes] = []
        size, more = 0, True
        while more and size <= most * _PATIENCE:
            message = await call.receive()
            if message["type"] == "http.disconnect":
                raise CallerGone
            chunk = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(chunk)
            if size <= most:
                chunks.append(chunk)
            else:
                chunks.clear()
        if size > most:
            raise _too_big(most)
        call.size = size
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _work(self, route: Route, request: Request, call: _Call) -> Answer:
        try:
            return await route.handler(request)
        except SandboxdError as error:
            if isinstance(error, Bug):
                self._log.error("bug", request_id=call.request_id, exc_info=True)
            return route.errors(error)
        except Exception:  # noqa: BLE001 - one call may fail, the server may not
            self._log.exception("unforeseen failure", request_id=call.request_id)
            hint = f"please report it with request id {call.request_id}"
            return route.errors(Bug("an unforeseen failure of the server", hint=hint))

    def _request_id(self, headers: Mapping[bytes, bytes]) -> str:
        given = headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode()
        return f"{self._id_prefix}-{next(self._ids):x}"

    def _note(self, call: _Call, status: int, size: int, began: float) -> None:
        seconds = time.perf_counter() - began
        method = call.scope["method"]
        route = call.route
        if route is None:
            self._telemetry.observe("any", NO_ROUTE, status, seconds)
        else:
            self._telemetry.observe(method, route.path, status, seconds)
        self._log.info(
            "request",
            request_id=call.request_id,
            method=method,
            path=call.scope["path"][:300],
            status=status,
            ms=round(seconds * 1000, 3),
            received=call.size,
            sent=size,
            owner=call.scope[OWNER],
            sandbox=call.params.get("id", "") if call.params else "",
        )


class Attributed:
    """Wraps an application: every request belongs to one owner, until there are keys to tell callers apart."""

    def __init__(self, application: Application, owner: str) -> None:
        self._application = application
        self._owner = owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Name the owner and pass on."""
        scope[OWNER] = self._owner
        await self._application(scope, receive, send)


def _too_big(most: int) -> Refused:
    return Refused(_text(413, f"the body is larger than the {most} bytes allowed"))


def _text(status: int, sentence: str, *headers: tuple[str, str]) -> Answer:
    return Answer(status, sentence.encode(), TEXT, headers)


async def _send(send: Send, answer: Answer, request_id: str) -> None:
    headers = [(b"x-request-id", request_id.encode())]
    if answer.status != 204:  # noqa: PLR2004 - no content
        headers += (
            (b"content-type", answer.content_type.encode()),
            (b"content-length", str(len(answer.body)).encode()),
        )
    headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
