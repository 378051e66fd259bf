"""The OpenAPI description of everything served, made from the table of routes and the types of its bodies."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from sandboxd.ports.surface import JSON, TEXT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sandboxd.ports.surface import Reply, Route

_REFERENCE = "#/components/schemas/{name}"
_MEANING = {
    400: "The request is malformed or asks for more than this node allows.",
    403: "Not allowed.",
    404: "No such sandbox.",
    409: "The sandbox's state does not allow this.",
    410: "The sandbox ended without being asked; the text says why.",
    500: "The outcome is unknown, or the server failed.",
    501: "This runtime or node cannot do that.",
    503: "No room or a broken part, just now.",
    504: "The time given ran out.",
}


def describe(routes: Iterable[Route], *, version: str) -> bytes:
    """Return the description as JSON."""
    routes = list(routes)
    types = [kind for route in routes for kind in _types(route)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    schema_of = dict(zip(map(id, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return msgspec.json.encode(
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
            "components": {"schemas": components},
        }
    )


def _types(route: Route) -> list[object]:
    replies = [reply.type for reply in route.replies.values() if reply.type is not None]
    return [route.body, *replies] if route.body is not None else replies


def _operation(route: Route, schema_of: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": [route.surface or "server"],
        "operationId": _operation_id(route),
        "summary": route.summary,
        "description": route.description,
        "parameters": _parameters(route),
        "responses": {
            **{str(status): _success(reply, schema_of) for status, reply in route.replies.items()},
            **{str(status): _failure(status) for status in route.error_statuses},
        },
    }
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schema_of[id(route.body)]}}}
    return operation


def _operation_id(route: Route) -> str:
    return re.sub(r"[^a-z0-9]+", "_", f"{route.surface} {route.method} {route.path}".lower()).strip("_")


def _parameters(route: Route) -> list[dict[str, Any]]:
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
    if reply.type is None:
        return {"description": reply.description}
    schema = schema_of[id(reply.type)]
    return {"description": reply.description, "content": {reply.content_type: {"schema": schema}}}


def _failure(status: int) -> dict[str, Any]:
    return {"description": _MEANING[status], "content": {TEXT: {"schema": {"type": "string"}}}}
