"""What the parts of the HTTP door share: one call on its way, and an answer that came before any route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from sandboxd.ports.surface import TEXT, Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from sandboxd.ports.surface import Route, SocketRoute
    from sandboxd.server.bodies import Pieces

    Scope: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

WARNING = "sandboxd-warning"
"""Header that names what was accepted but not acted on; gRPC has it among its trailing metadata."""
HUNG_UP = 499
"""Logged and counted, never sent, for a caller that closed its connection before its answer."""


class Refused(Exception):
    """A request that never reached its route."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(slots=True, eq=False)
class Call:
    """One request or WebSocket on its way, with what the log will say of it."""

    scope: Scope
    receive: Receive
    send: Send
    headers: Mapping[bytes, bytes]
    request_id: str
    began: float
    route: Route | SocketRoute | None = None
    params: Mapping[str, str] | None = None
    pieces: Pieces | None = None
    """The body, where the route takes it piece by piece."""
    warnings: tuple[tuple[str, str], ...] = ()
    status: int = 0
    received: int = 0
    """Bytes of the request's body, or of the messages that came."""
    sent: int = 0


def text(status: int, sentence: str, *headers: tuple[str, str]) -> Answer:
    """Return an answer of one sentence."""
    return Answer(status, sentence.encode(), TEXT, headers)


def head_of(call: Call, answer: Answer) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer, without those that tell of its body."""
    return [
        (b"x-request-id", call.request_id.encode()),
        *((name.encode(), value.encode("latin-1", "replace")) for name, value in (*answer.headers, *call.warnings)),
    ]
