"""What a surface gives the server, routes described well enough to serve and to document them, and what it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandboxd.core.spec import MIB, Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from sandboxd.core.errors import SandboxdError

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a node sets for a surface: bytes kept of each output channel, and limits where a caller names none."""

    output_bytes: int = 16 * MIB
    limits: Limits = field(default_factory=Limits)


@dataclass(slots=True, eq=False)
class Request:
    """One call, attributed to an owner, its body read whole.

    `params` holds the parts of the path that the route left open, `query` the last value of each key (bytes that are
    not UTF-8 are surrogates), `headers` the last value of each by lower-case name. Nothing in it has been checked
    beyond its size. Where the route `streams`, `body` is empty and `pieces` yields it as it comes, of whatever size.
    """

    owner: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[bytes, bytes]
    body: bytes
    pieces: AsyncIterator[bytes] | None = None


@dataclass(slots=True, eq=False)
class Answer:
    """What goes back: a body that is small enough to be held in memory, or its pieces as they come.

    Pieces are taken only as fast as the caller reads, and none for a HEAD. The head is sent before the first is asked
    for; an error from then on cuts the connection, so that the caller cannot take the part for the whole. The iterator
    is closed in any case, also when the caller hangs up.
    """

    status: int
    body: bytes | AsyncIterator[bytes] = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """A possible success of a route: its meaning and, for JSON, the type that describes its body."""

    description: str
    type: object | None = None
    content_type: str = JSON


@dataclass(frozen=True, slots=True)
class Route:
    """One operation on one path.

    Open parts of `path` are written `{name}` and never span a slash. `errors` renders whatever error the handler
    raises on this surface's wire. A route that `dies_with_caller` is cancelled when its caller hangs up; any other
    runs to its end.
    """

    method: str
    path: str
    summary: str
    description: str
    handler: Callable[[Request], Awaitable[Answer]]
    errors: Callable[[SandboxdError], Answer]
    replies: Mapping[int, Reply]
    error_statuses: tuple[int, ...] = ()
    body: type | None = None
    error_body: type | None = None
    """Describes the JSON of an error; None: errors are plain text."""
    query: Mapping[str, str] = field(default_factory=dict)
    """Keys of the query string that mean something, with a sentence each."""
    dies_with_caller: bool = False
    streams: bool = False
    """Whether the handler takes the body piece by piece; it then has no limit of size."""
    surface: str = ""


class Socket(ABC):
    """One WebSocket, accepted. Not for use by several tasks at once, but one may receive while another sends."""

    @abstractmethod
    async def receive(self) -> str | bytes | None:
        """Return the next message, or None once the other side has gone (also when the server stops)."""

    @abstractmethod
    async def send(self, message: str | bytes) -> None:
        """Send a message, waiting while the other side does not read. What is sent to one that has gone is dropped."""

    @abstractmethod
    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End the conversation. Harmless when repeated. `reason` is cut to the 123 bytes that fit."""


@dataclass(frozen=True, slots=True)
class SocketRoute:
    """A WebSocket's path, in the same table as the routes of HTTP.

    The handler may raise before it accepts: `errors` then renders the refusal as the HTTP answer to the upgrade. It
    accepts by calling what it is given, once. When it returns, the socket is closed with 1000; when it raises after
    accepting, with 1011 and the error's sentence. It is not cancelled when the other side goes: `receive` says so. When
    the server ends, the other side is told 1012 at once; a handler that outlasts the grace is cancelled.
    """

    path: str
    summary: str
    description: str
    handler: Callable[[Request, Callable[[], Awaitable[Socket]]], Awaitable[None]]
    errors: Callable[[SandboxdError], Answer]
    query: Mapping[str, str] = field(default_factory=dict)
    surface: str = ""
