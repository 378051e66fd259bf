"""The HTTP door: one ASGI application that judges, routes, reads, answers, counts and logs."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from itertools import count
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import structlog

from sandboxd.core.errors import Bug, SandboxdError
from sandboxd.ports.surface import Answer, Request, Route
from sandboxd.server import bodies, sockets
from sandboxd.server.caller import CallerGone, unless_gone
from sandboxd.server.exchange import HUNG_UP, WARNING, Call, Refused, text
from sandboxd.server.telemetry import NO_ROUTE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxd.ports.surface import SocketRoute
    from sandboxd.server.exchange import Receive, Scope, Send
    from sandboxd.server.neighbours import Neighbours
    from sandboxd.server.routes import Found, RouteTable
    from sandboxd.server.telemetry import Telemetry

OWNER = "sandboxd.owner"
"""Key of the ASGI scope under which whoever authenticated the caller leaves its name."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")
_MOST_WARNINGS = 8
_STOPPING = "the server is stopping and cut this call off; it may or may not have happened"


class Application:
    """Serves a table of routes. `neighbours` is None where whoever listens elsewhere than on loopback is trusted.

    A body larger than `most_body_bytes` is refused with 413, but for routes that take it piece by piece.
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
        """Serve one ASGI connection: a request or a WebSocket."""
        headers = dict(scope["headers"])
        call = Call(scope, receive, send, headers, self._request_id(headers), time.perf_counter())
        if scope["type"] == "websocket":
            scope["method"] = "WebSocket"
            await self._converse(call)
        else:
            await self._serve(call)
        self._note(call)

    async def _serve(self, call: Call) -> None:
        try:
            answer = await self._answer(call)
        except CallerGone:
            call.status = HUNG_UP
            return
        except asyncio.CancelledError:
            # The server stops and its grace is over. This is the top of the request, so the cancellation ends here.
            answer = text(500, _STOPPING)
        await bodies.send_answer(call, answer)

    async def _answer(self, call: Call) -> Answer:
        try:
            found = self._find(call)
            route = found.route
            if route is None:
                raise _not_allowed(call, found)
            call.route, call.params = route, found.params
            if route.streams:
                return await self._answer_stream(call, route)
            body = await bodies.read(call, self._most_body_bytes)
        except Refused as refused:
            return refused.answer
        work = self._work(route, self._request(call, body), call)
        return await (unless_gone(call.receive, work) if route.dies_with_caller else work)

    async def _answer_stream(self, call: Call, route: Route) -> Answer:
        pieces = call.pieces = bodies.Pieces(call)
        work = self._work(route, self._request(call, b"", pieces), call)
        answer = await (unless_gone(call.receive, work, after=pieces.finish) if route.dies_with_caller else work)
        if pieces.gone:
            raise CallerGone
        if b"expect" in call.headers and not pieces.asked:
            answer.headers += (("connection", "close"),)  # it may send the body or not: nobody could tell
        return answer

    async def _converse(self, call: Call) -> None:
        await call.receive()
        try:
            found = self._find(call)
        except Refused as refused:
            await sockets.refuse(call, refused.answer)
            return
        route = found.socket
        if route is None:
            sentence = f"no WebSocket is served at {call.scope['path'][:200]}; ask without `Upgrade`"
            await sockets.refuse(call, text(404, sentence))
            return
        call.route, call.params = route, found.params
        conversation = sockets.Conversation(call)
        error = await self._hold(route, call, conversation)
        if error is None:
            await conversation.close()
        elif conversation.accepted:
            await conversation.close(sockets.FAILED, str(error))
        else:
            await sockets.refuse(call, route.errors(error))

    async def _hold(self, route: SocketRoute, call: Call, conversation: sockets.Conversation) -> SandboxdError | None:
        """Let a handler speak and return what went wrong, if anything did."""
        try:
            await route.handler(self._request(call, b""), conversation.accept)
        except SandboxdError as error:
            self._tell_bug(error, call)
            return error
        except asyncio.CancelledError:
            return None  # The server stops and its grace is over; the other side was told at the beginning of it.
        except Exception:  # noqa: BLE001 - one call may fail, the server may not
            return self._unforeseen(call)
        return None if conversation.accepted else self._unforeseen(call, "a WebSocket was neither accepted nor refused")

    def _find(self, call: Call) -> Found:
        """Judge a request and return what is served at its path."""
        scope = call.scope
        if self._neighbours is not None:
            refusal = self._neighbours.refusal(scope["headers"])
            if refusal:
                raise Refused(text(403, refusal))
        path = scope["raw_path"].decode("latin-1")
        found = self._table.find(scope["method"], path)
        if found is None:
            raise Refused(text(404, f"no such route: {path[:200]}"))
        return found

    def _request(self, call: Call, body: bytes, pieces: bodies.Pieces | None = None) -> Request:
        assert call.params is not None, "admitted without a route"  # noqa: S101 - for the type checker
        return Request(
            owner=call.scope[OWNER],
            params=call.params,
            query=_query(call),
            headers=call.headers,
            body=body,
            pieces=None if pieces is None else aiter(pieces),
        )

    async def _work(self, route: Route, request: Request, call: Call) -> Answer:
        try:
            return await route.handler(request)
        except SandboxdError as error:
            self._tell_bug(error, call)
            return route.errors(error)
        except Exception:  # noqa: BLE001 - one call may fail, the server may not
            return route.errors(self._unforeseen(call))

    def _tell_bug(self, error: SandboxdError, call: Call) -> None:
        if isinstance(error, Bug):
            self._log.error("bug", request_id=call.request_id, exc_info=True)

    def _unforeseen(self, call: Call, what: str = "an unforeseen failure of the server") -> Bug:
        self._log.exception("unforeseen failure", request_id=call.request_id)
        return Bug(what, hint=f"please report it with request id {call.request_id}")

    def _request_id(self, headers: Mapping[bytes, bytes]) -> str:
        given = headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode()
        return f"{self._id_prefix}-{next(self._ids):x}"

    def _note(self, call: Call) -> None:
        seconds = time.perf_counter() - call.began
        method = call.scope["method"]
        if call.route is None:
            self._telemetry.observe("any", NO_ROUTE, call.status, seconds)
        else:
            self._telemetry.observe(method, call.route.path, call.status, seconds)
        self._log.info(
            "request",
            request_id=call.request_id,
            method=method,
            path=call.scope["path"][:300],
            status=call.status,
            ms=round(seconds * 1000, 3),
            received=call.received,
            sent=call.sent,
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


def _query(call: Call) -> dict[str, str]:
    """Return the query, and note a warning for every key that means nothing here."""
    raw = call.scope["query_string"]
    if not raw:
        return {}
    query = dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True, errors="surrogateescape"))
    route = call.route
    assert route is not None, "admitted without a route"  # noqa: S101 - for the type checker
    unknown = [key for key in query if key not in route.query]
    call.warnings = tuple(
        (WARNING, f"query key `{_plain(key)}` is not known and was ignored") for key in unknown[:_MOST_WARNINGS]
    )
    return query


def _plain(key: str) -> str:
    return re.sub(r"[^\x20-\x7e]", "?", key)[:64]


def _not_allowed(call: Call, found: Found) -> Refused:
    method = call.scope["method"]
    if found.socket is not None and method in ("GET", "HEAD"):
        sentence = "only a WebSocket is served here"
        return Refused(text(426, sentence, ("upgrade", "websocket"), ("connection", "upgrade")))
    names = set(found.allowed)
    if "GET" in names:
        names.add("HEAD")
    if found.socket is not None:
        names.add("GET")
    allowed = ", ".join(sorted(names))
    return Refused(text(405, f"{method} is not allowed here; allowed: {allowed}", ("allow", allowed)))
