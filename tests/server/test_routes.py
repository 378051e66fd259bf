"""The table of routes."""

from __future__ import annotations

import pytest

from sandboxd.core.errors import Bug, SandboxdError
from sandboxd.ports.surface import Answer, Reply, Request, Route
from sandboxd.server.routes import RouteTable


async def _answer(_: Request) -> Answer:
    return Answer(200)


def _errors(_: SandboxdError) -> Answer:
    return Answer(500)


def _route(method: str, path: str) -> Route:
    return Route(method, path, "Do", "Does.", _answer, _errors, {200: Reply("Done.")})


TABLE = RouteTable(
    [
        _route("GET", "/things"),
        _route("POST", "/things"),
        _route("GET", "/things/{id}"),
        _route("GET", "/things/special"),
        _route("POST", "/things/{id}/parts/{part}"),
        _route("GET", "/v1/exact"),
    ],
    prefixes=["/v1", "/proxy/box/"],
)


@pytest.mark.parametrize(
    ("method", "path", "route", "params"),
    [
        ("GET", "/things", "/things", {}),
        ("GET", "/things/a", "/things/{id}", {"id": "a"}),
        ("GET", "/things/special", "/things/special", {}),
        ("POST", "/things/special/parts/7", "/things/{id}/parts/{part}", {"id": "special", "part": "7"}),
        ("GET", "/things/a%2Fb", "/things/{id}", {"id": "a/b"}),
        ("GET", "/things/%C3%A4", "/things/{id}", {"id": "ä"}),
        ("GET", "/v1/things/a", "/things/{id}", {"id": "a"}),
        ("GET", "/v1/exact", "/v1/exact", {}),
        ("GET", "/proxy/box/things", "/things", {}),
        ("HEAD", "/things", "/things", {}),
    ],
)
def test_a_path_finds_its_route(method: str, path: str, route: str, params: dict[str, str]) -> None:
    found = TABLE.find(method, path)
    assert found is not None
    assert found.route is not None
    assert (found.route.path, found.params) == (route, params)


@pytest.mark.parametrize(
    "path",
    ["/", "", "/other", "/things/", "/things//parts/7", "//things", "/things/a/parts", "/v1", "/v1/v1/things", "*",
     "/v1things", "/exact", "/THINGS"],
)  # fmt: skip
def test_a_path_that_is_not_exactly_one_of_ours_finds_nothing(path: str) -> None:
    assert TABLE.find("GET", path) is None


def test_a_wrong_method_finds_what_is_allowed() -> None:
    found = TABLE.find("PUT", "/things")
    assert found is not None
    assert found.route is None
    assert set(found.allowed) == {"GET", "POST"}


@pytest.mark.parametrize("path", ["/things/{id}", "/things/{name}"])
def test_two_routes_on_one_path_are_a_mistake(path: str) -> None:
    with pytest.raises(Bug, match="two routes claim GET"):
        RouteTable([_route("GET", "/things/{id}"), _route("GET", path)], prefixes=[])
