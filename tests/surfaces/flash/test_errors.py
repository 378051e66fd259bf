"""Core errors as flash clients see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandboxd.core import errors
from sandboxd.surfaces.flash.errors import render

if TYPE_CHECKING:
    from tests.surfaces.fake_engine import FakeEngine
    from tests.surfaces.live import Caller

    from sandboxd.core.records import SandboxRecord


@pytest.mark.parametrize("leaf", errors.LEAVES)
def test_an_error_is_its_sentence_and_hint_as_text(leaf: type[errors.SandboxdError]) -> None:
    answer = render(leaf("ätsch: it broke", hint="mend it"))
    assert answer.status >= 400
    assert isinstance(answer.body, bytes)
    assert answer.body.decode() == "ätsch: it broke; mend it"
    assert answer.content_type == "text/plain; charset=utf-8"


def test_only_what_does_not_exist_is_404() -> None:
    assert [leaf for leaf in errors.LEAVES if render(leaf("x")).status == 404] == [errors.NotFound]


def test_what_may_have_happened_never_invites_a_repetition() -> None:
    for leaf in (errors.Uncertain, errors.Lost, errors.Bug):
        assert render(leaf("x")).status not in (502, 503)


def test_a_failure_nobody_foresaw_is_told_without_its_insides(
    fake_server: Caller, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> SandboxRecord:
        raise ZeroDivisionError("secret insides")

    monkeypatch.setattr(engine, "get", fail)
    reply = fake_server.ask("GET", "/sandboxes/sb-1", X_Request_Id="mine-7")
    assert reply.status == 500
    assert "mine-7" in reply.text
    assert "secret" not in reply.text
