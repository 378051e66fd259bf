"""Core errors as gRPC clients see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode
from tests.surfaces.rpc import RpcClient, refused

from sandboxd.core import errors
from sandboxd.surfaces.grpc.errors import STATUS

if TYPE_CHECKING:
    from tests.surfaces.fake_engine import FakeEngine

    from sandboxd.core.records import SandboxRecord


@pytest.mark.parametrize("leaf", errors.LEAVES)
def test_an_error_is_its_status_its_sentence_and_its_code(
    fake: RpcClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, leaf: type[errors.SandboxdError]
) -> None:
    async def fail(*_: object) -> SandboxRecord:
        raise leaf("ätsch: it broke", hint="mend it")

    monkeypatch.setattr(engine, "get", fail)
    told = refused(fake.status, "sb-1")
    assert (told.status, told.text, told.code) == (STATUS[leaf], "ätsch: it broke; mend it", leaf.code)


def test_what_does_not_exist_has_a_status_of_its_own() -> None:
    assert [leaf for leaf in errors.LEAVES if STATUS[leaf] is StatusCode.NOT_FOUND] == [errors.NotFound]


def test_no_error_looks_like_success_or_like_a_connection_that_failed() -> None:
    assert not {StatusCode.OK, StatusCode.CANCELLED, StatusCode.UNAVAILABLE} & set(STATUS.values())


def test_a_failure_nobody_foresaw_is_told_without_its_insides(
    fake: RpcClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> SandboxRecord:
        raise ZeroDivisionError("secret insides")

    monkeypatch.setattr(engine, "get", fail)
    told = refused(fake.status, "sb-1")
    assert (told.status, told.code, "secret" in told.text) == (StatusCode.INTERNAL, "bug", False)


@pytest.mark.parametrize("letter", ["x", "ä", "漢", "\ud800"])
def test_a_long_sentence_is_cut_to_what_headers_hold(
    fake: RpcClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, letter: str
) -> None:
    async def fail(*_: object) -> SandboxRecord:
        raise errors.Invalid(letter * 100_000)

    monkeypatch.setattr(engine, "get", fail)
    told = refused(fake.status, "sb-1")
    assert told.status is StatusCode.INVALID_ARGUMENT
    assert 500 < len(told.text) <= 2000


@pytest.mark.parametrize("method", ["status", "stop", "metrics", "snapshot", "resume", "platform_info"])
def test_every_method_tells_an_unknown_sandbox(client: RpcClient, method: str) -> None:
    told = refused(getattr(client, method), "sb-bogus")
    assert (told.status, told.text) == (StatusCode.NOT_FOUND, "sandbox sb-bogus not found")


def test_a_command_in_an_unknown_sandbox_is_not_found(client: RpcClient) -> None:
    for told in (refused(client.execute, "sb-bogus", "true"), refused(client.run_python, "sb-bogus", "1")):
        assert (told.status, told.text) == (StatusCode.NOT_FOUND, "sandbox sb-bogus not found")


@pytest.mark.parametrize(
    ("leaf", "status"),
    [
        (errors.NotFound, StatusCode.NOT_FOUND),
        (errors.Invalid, StatusCode.INVALID_ARGUMENT),
        (errors.Conflict, StatusCode.FAILED_PRECONDITION),
        (errors.Busy, StatusCode.RESOURCE_EXHAUSTED),
        (errors.Unsupported, StatusCode.UNIMPLEMENTED),
        (errors.Unavailable, StatusCode.FAILED_PRECONDITION),
        (errors.Bug, StatusCode.INTERNAL),
    ],
)
def test_the_statuses_that_users_were_promised(leaf: type[errors.SandboxdError], status: StatusCode) -> None:
    assert STATUS[leaf] is status
