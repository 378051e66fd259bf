"""The one table of routes: every surface's paths in a tree, looked up segment by segment."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from sandboxd.core.errors import Bug
from sandboxd.ports.surface import Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sandboxd.ports.surface import SocketRoute

_OPEN = "{}"


class _Place:
    """One path: what may follow it, what can be done there by method, and what speaks WebSocket there."""

    __slots__ = ("further", "methods", "names", "socket")

    def __init__(self) -> None:
        self.further: dict[str, _Place] = {}
        self.methods: dict[str, Route] = {}
        self.socket: SocketRoute | None = None
        self.names: tuple[str, ...] = ()


class Found:
    """A path that is served: the route for the method and the one for WebSockets, if any, and what is allowed there."""

    __slots__ = ("allowed", "params", "route", "socket")

    def __init__(self, place: _Place, method: str, values: Sequence[str]) -> None:
        methods = place.methods
        self.route = methods.get(method) or (methods.get("GET") if method == "HEAD" else None)
        self.socket = place.socket
        self.allowed = methods.keys()
        self.params = dict(zip(place.names, values, strict=True))


class RouteTable:
    """Routes of all surfaces.

    An exact path wins over one with open parts; the path as it came wins over the path without a prefix. Nothing is
    ever redirected.
    """

    def __init__(self, routes: Iterable[Route | SocketRoute], *, prefixes: Iterable[str]) -> None:
        """Build the table.

        Raises:
            Bug: two routes claim the same path, and the same method or both WebSockets.
        """
        self._routes: list[Route | SocketRoute] = []
        self._root = _Place()
        self._prefixes = [prefix.rstrip("/") for prefix in prefixes if prefix.rstrip("/")]
        for route in routes:
            self._add(route)

    def __iter__(self) -> Iterator[Route | SocketRoute]:
        return iter(self._routes)

    def find(self, method: str, path: str) -> Found | None:
        """Return what is served at a path, given as it stood in the request line: still escaped, without its query."""
        found = self._find(method, path)
        if found is not None:
            return found
        for prefix in self._prefixes:
            if path.startswith(prefix + "/"):
                found = self._find(method, path[len(prefix) :])
                if found is not None:
                    return found
        return None

    def _find(self, method: str, path: str) -> Found | None:
        values: list[str] = []
        place = _walk(self._root, path.split("/")[1:], values)
        return None if place is None else Found(place, method, values)

    def _add(self, route: Route | SocketRoute) -> None:
        place = self._root
        names = []
        for segment in route.path.split("/")[1:]:
            key = segment
            if segment.startswith("{"):
                names.append(segment.strip("{}"))
                key = _OPEN
            place = place.further.setdefault(key, _Place())
        method = route.method if isinstance(route, Route) else ""
        taken = method in place.methods if method else place.socket is not None
        if taken or ((place.methods or place.socket) and place.names != tuple(names)):
            raise Bug(f"two routes claim {method or 'WebSocket'} {route.path}")
        place.names = tuple(names)
        if isinstance(route, Route):
            place.methods[method] = route
        else:
            place.socket = route
        self._routes.append(route)


def _walk(place: _Place, segments: list[str], values: list[str]) -> _Place | None:
    """Follow segments down from a place and return where they end; `values` gets what filled the open parts."""
    if not segments:
        return place if place.methods or place.socket else None
    segment, *rest = segments
    exact = place.further.get(segment)
    if exact is not None:
        end = _walk(exact, rest, values)
        if end is not None:
            return end
    filled = place.further.get(_OPEN)
    if filled is None or not segment:
        return None
    values.append(unquote(segment) if "%" in segment else segment)
    end = _walk(filled, rest, values)
    if end is None:
        values.pop()
    return end
