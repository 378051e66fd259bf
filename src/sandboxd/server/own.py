"""The server's own routes: its health, its figures, and its description for programs and people."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec

from sandboxd.ports.surface import TEXT, Answer, Reply, Request, Route
from sandboxd.server import telemetry
from sandboxd.server.openapi import describe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from sandboxd.core.errors import SandboxdError
    from sandboxd.ports.engine import Engine
    from sandboxd.ports.surface import SocketRoute

_HTML = "text/html; charset=utf-8"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


class Health(msgspec.Struct):
    """The server answers."""

    status: str
    version: str


def own_routes(
    engine: Engine, figures: telemetry.Telemetry, others: Iterable[Route | SocketRoute], *, owner: str, version: str
) -> list[Route]:
    """Return the server's own routes; `others` are described along with them."""
    page = resources.files("sandboxd.server").joinpath("docs.html").read_bytes()
    health = msgspec.json.encode(Health("ok", version))
    description = b""

    async def tell_health(_: Request) -> Answer:
        return Answer(200, health)

    async def tell_figures(_: Request) -> Answer:
        return Answer(200, figures.render(await engine.list(owner)), telemetry.CONTENT_TYPE)

    async def tell_description(_: Request) -> Answer:
        return Answer(200, description)

    async def show_docs(_: Request) -> Answer:
        return Answer(200, page, _HTML, (("content-security-policy", _POLICY),))

    routes = [
        _route("/healthz", "Ask for health", "Answers while the server serves.", tell_health, Reply("Fine.", Health)),
        _route(
            "/metrics",
            "Read the figures",
            "Requests by route and status, their duration, and sandboxes by state, for Prometheus.",
            tell_figures,
            Reply("Prometheus text.", str, telemetry.CONTENT_TYPE),
        ),
        _route(
            "/openapi.json",
            "Read this description",
            "Everything that is served, as OpenAPI 3.1.",
            tell_description,
            Reply("OpenAPI.", dict[str, Any]),
        ),
        _route(
            "/docs",
            "Browse this description",
            "One page that shows the description; it loads nothing from elsewhere.",
            show_docs,
            Reply("A page.", str, _HTML),
        ),
    ]
    description = describe([*others, *routes], version=version)
    return routes


def _route(path: str, summary: str, text: str, call: Callable[[Request], Awaitable[Answer]], reply: Reply) -> Route:
    return Route(
        method="GET",
        path=path,
        summary=summary,
        description=text,
        handler=call,
        errors=_render_error,
        replies={200: reply},
    )


def _render_error(error: SandboxdError) -> Answer:
    return Answer(500, str(error).encode(), TEXT)
