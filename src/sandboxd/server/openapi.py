"""The OpenAPI description of everything served, made from the table of routes and the types of its bodies."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from sandboxd.ports.surface import JSON, TEXT, Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sandboxd.ports.surface import Reply, SocketRoute

_REFERENCE = "#/components/schemas/{name}"
_LONG_NAMES = re.compile(rb"sandboxd\.surfaces\.(\w+)\.(?:\w+\.)+(?=[A-Z])")
"""How bodies are called that have the same name on several surfaces; the surface is enough to tell them apart."""
_OCTETS = "application/octet-stream"
_BYTES = {"type": "string", "format": "binary"}
_MEANING = {
    400: "The request is malformed or asks for more than this node allows.",
    403: "Not allowed.",
    404: "No such sandbox.",
    409: "The sandbox's state does not allow this.",
    410: "The sandbox ended without being asked; the text says why.",
    422: "A stated limit was reached, such as the space on a disk.",
    429: "No room just now: try again later.",
    500: "The outcome is unknown, or the server failed.",
    501: "This runtime or node cannot do that.",
    503: "No room or a broken part, just now.",
    504: "The time given ran out.",
}


def describe(everything: Iterable[Route | SocketRoute], *, version: str) -> bytes:
    """Return the description as JSON; WebSockets, which OpenAPI does not know, stand under `x-websockets`."""
    everything = list(everything)
    routes = [route for route in everything if isinstance(route, Route)]
    types = [kind for route in routes for kind in _types(route)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    schema_of = dict(zip(map(id, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    description = msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "sandboxd",
                "version": version,
                "description": "A place to run untrusted code, its isolation chosen per sandbox. Every path also works "
                "behind the configured prefixes. Errors of the flash calls are plain text: a sentence and a hint.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "paths": paths,
            "x-websockets": {route.path: _described(route) for route in everything if not isinstance(route, Route)},
            "components": {"schemas": components},
        }
    )
    return _LONG_NAMES.sub(rb"\1.", description)


def _types(route: Route) -> list[object]:
    replies = (reply.type for reply in route.replies.values())
    return [kind for kind in (route.body, route.error_body, *replies) if kind is not None]


def _operation(route: Route, schema_of: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    operation = {
        **_described(route),
        "responses": {
            **{str(status): _success(reply, schema_of) for status, reply in route.replies.items()},
            **{str(status): _failure(status, route, schema_of) for status in route.error_statuses},
        },
    }
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schema_of[id(route.body)]}}}
    elif route.streams:
        operation["requestBody"] = {"content": {_OCTETS: {"schema": _BYTES}}}
    return operation


def _described(route: Route | SocketRoute) -> dict[str, Any]:
    return {
        "tags": [route.surface or "server"],
        "operationId": _operation_id(route),
        "summary": route.summary,
        "description": route.description,
        "parameters": _parameters(route),
    }


def _operation_id(route: Route | SocketRoute) -> str:
    method = route.method if isinstance(route, Route) else "websocket"
    return re.sub(r"[^a-z0-9]+", "_", f"{route.surface} {method} {route.path}".lower()).strip("_")


def _parameters(route: Route | SocketRoute) -> list[dict[str, Any]]:
    text = {"type": "string"}
    return [
        *(
            {"name": name, "in": "path", "required": True, "schema": text}
            for name in re.findall(r"{([a-z_]+)}", route.path)
        ),
        *(
            {"name": name, "in": "query", "description": sentence, "schema": text}
            for name, sentence in route.query.items()
        ),
    ]


def _success(reply: Reply, schema_of: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    if reply.type is None and reply.content_type == JSON:
        return {"description": reply.description}
    schema = _BYTES if reply.type is None else schema_of[id(reply.type)]
    return {"description": reply.description, "content": {reply.content_type: {"schema": schema}}}


def _failure(status: int, route: Route, schema_of: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    if route.error_body is None:
        content: dict[str, Any] = {TEXT: {"schema": {"type": "string"}}}
    else:
        content = {JSON: {"schema": schema_of[id(route.error_body)]}}
    return {"description": _MEANING.get(status) or HTTPStatus(status).phrase, "content": content}
