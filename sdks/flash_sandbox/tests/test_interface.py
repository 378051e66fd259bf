"""Both clients can be used by the same code, and by code written for the published package."""

from __future__ import annotations

import dataclasses
import importlib
import inspect

import pytest

import flash_sandbox
from flash_sandbox import ExecResult, HTTPClient, MetricsResult, SandboxClient, SandboxNotFoundError, SnapshotResult
from flash_sandbox.interface import Client

METHODS = [name for name, member in vars(Client).items() if inspect.isfunction(member) and not name.startswith("_")]
PUBLISHED = [
    "SandboxClient",
    "HTTPClient",
    "ExecResult",
    "MetricsResult",
    "SnapshotResult",
    "SandboxHTTPError",
    "SandboxNotFoundError",
]


def test_the_package_offers_what_the_published_one_does() -> None:
    assert flash_sandbox.__all__ == PUBLISHED
    http_client = importlib.import_module("flash_sandbox.http_client")
    assert all(getattr(http_client, name) is getattr(flash_sandbox, name) for name in PUBLISHED[1:])
    assert importlib.import_module("flash_sandbox.client").SandboxClient is SandboxClient


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("client", [HTTPClient, SandboxClient])
def test_every_method_is_called_alike_and_says_what_it_does(client: type[Client], name: str) -> None:
    ours, promised = getattr(client, name), getattr(Client, name)
    assert ours is not promised
    assert inspect.signature(ours) == inspect.signature(promised)
    assert inspect.getdoc(ours)


@pytest.mark.parametrize(
    ("client", "parameters"),
    [
        (HTTPClient, {"host": None, "port": 8080, "address": None, "timeout": 30.0, "session": None}),
        (SandboxClient, {"host": None, "port": 50051, "address": None, "timeout": None, "channel": None}),
    ],
)
def test_clients_are_made_alike(client: type[Client], parameters: dict[str, object]) -> None:
    taken = inspect.signature(client).parameters
    assert {name: parameter.default for name, parameter in taken.items()} == parameters


@pytest.mark.parametrize("result", [ExecResult(), MetricsResult(), SnapshotResult()])
def test_results_cannot_change_and_are_compared_by_content(result: object) -> None:
    name = dataclasses.fields(result)[0].name  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        setattr(result, name, "other")
    assert result == type(result)()
    assert hash(result) == hash(type(result)())


def test_an_error_shows_its_status_and_its_text() -> None:
    error = SandboxNotFoundError(404, "sandbox x not found")
    assert (error.status_code, error.detail, str(error)) == (
        404,
        "sandbox x not found",
        "HTTP 404: sandbox x not found",
    )
    assert error.args == (str(error),)
