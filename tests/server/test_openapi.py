"""The description of what is served, against what is served."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from tests.server.shown import Shown, all_routes
from tests.surfaces.fake_engine import FakeEngine

from sandboxd.ports.surface import Bounds
from sandboxd.server.openapi import describe
from sandboxd.server.own import own_routes
from sandboxd.server.telemetry import Telemetry
from sandboxd.surfaces.flash import routes as flash

if TYPE_CHECKING:
    from pathlib import Path

    from tests.surfaces.live import LiveServer

    from sandboxd.ports.surface import Route


@pytest.fixture
def description(server: LiveServer) -> Any:
    return server.ask("GET", "/openapi.json").json


@pytest.fixture
def routes(tmp_path: Path) -> list[Route]:
    engine = FakeEngine(tmp_path)
    surfaces = flash.routes(engine, Bounds())
    return [*surfaces, *own_routes(engine, Telemetry(), surfaces, owner="local", version="1")]


def test_every_route_is_described(description: Any, routes: list[Route]) -> None:
    for route in routes:
        operation = description["paths"][route.path][route.method.lower()]
        assert operation["summary"]
        assert operation["description"].endswith(".")
        assert set(map(str, route.replies)) <= set(operation["responses"])


def test_everything_described_is_served(server: LiveServer, description: Any) -> None:
    for path, methods in description["paths"].items():
        for method in methods:
            reply = server.ask(method.upper(), path.replace("{id}", "sb-none"))
            assert reply.status != 405, f"{method} {path}"
            assert not reply.text.startswith("no such route"), f"{method} {path}"


def test_every_status_a_route_may_answer_has_a_meaning(routes: list[Route]) -> None:
    from sandboxd.surfaces.flash.errors import STATUS  # noqa: PLC0415 - one of several surfaces

    for route in routes:
        assert set(route.error_statuses) <= set(STATUS.values()), route.path


def test_names_of_operations_are_unique(description: Any) -> None:
    names = [operation["operationId"] for methods in description["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)


def test_every_reference_leads_somewhere(description: Any) -> None:
    found = set(re.findall(r"#/components/schemas/([\w.]+)", str(description)))
    assert found == set(description["components"]["schemas"])


def test_bodies_and_their_fields_are_described(description: Any) -> None:
    create = description["components"]["schemas"]["CreateBody"]
    assert {"type", "image", "command", "memory_mb", "cpu_cores", "snapshot_path"} <= set(create["properties"])
    assert "ExecReply" in str(description["paths"]["/sandboxes/{id}/exec"]["post"]["responses"]["200"])


@pytest.mark.parametrize("path", ["/docs", "/v1/service/sandbox/docs"])
def test_the_page_needs_nothing_from_elsewhere(server: LiveServer, path: str) -> None:
    page = server.ask("GET", path)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"(https?:)?//[a-z]", page.text.replace("https://localhost", ""))
    assert 'fetch("openapi.json")' in page.text


def test_streams_and_sockets_are_described() -> None:
    told = json.loads(describe(all_routes(Shown()), version="1"))
    octets = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    assert told["paths"]["/take"]["put"]["requestBody"] == {"content": octets}
    assert told["paths"]["/give/{what}"]["get"]["responses"]["200"]["content"] == octets
    echo = told["x-websockets"]["/ws/refuse/{status}"]
    assert (echo["summary"], [one["name"] for one in echo["parameters"]]) == ("For tests", ["status", "how"])
    assert "/ws/echo" not in told["paths"]
