"""What a surface gives the server, routes described well enough to serve and to document them, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandboxd.core.spec import MIB, Limits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

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
    """One call, already read whole and attributed to an owner.

    `params` holds the parts of the path that the route left open, `query` the last value of each key, `headers` the
    last value of each by lower-case name. Nothing in it has been checked beyond its size.
    """

    owner: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[bytes, bytes]
    body: bytes


@dataclass(slots=True, eq=False)
class Answer:
    """What goes back: complete, and small enough to be held in memory."""

    status: int
    body: bytes = b""
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
    query: Mapping[str, str] = field(default_factory=dict)
    """Keys of the query string that mean something, with a sentence each."""
    dies_with_caller: bool = False
    surface: str = ""
