"""Which calls are the same, and what may be a key."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from sandboxd.core.calls import call_digest, check_key
from sandboxd.core.errors import Invalid
from sandboxd.core.spec import Limits, ProcessSpec, PythonSource, SandboxSpec

SPEC = SandboxSpec(runtime="auto", image="alpine", limits=Limits(pids=9))


def test_equal_requests_have_equal_digests() -> None:
    assert call_digest("create", SPEC) == call_digest("create", replace(SPEC))
    assert call_digest("execute", "s", ProcessSpec(("a", "b"))) == call_digest("execute", "s", ProcessSpec(("a", "b")))


@pytest.mark.parametrize(
    "other",
    [
        ("execute", SPEC),
        ("create", replace(SPEC, image="other")),
        ("create", replace(SPEC, limits=Limits(pids=10))),
        ("create", replace(SPEC, env=(("a", "b"),))),
        ("create", SPEC, SPEC),
    ],
)
def test_other_requests_have_other_digests(other: tuple[str, object]) -> None:
    assert call_digest(*other) != call_digest("create", SPEC)


def test_words_are_told_apart_from_what_they_look_like() -> None:
    assert call_digest("execute", PythonSource("1")) != call_digest("execute", ProcessSpec(("1",)))
    assert call_digest("execute", ProcessSpec(("a b",))) != call_digest("execute", ProcessSpec(("a", "b")))
    assert call_digest("execute", ProcessSpec(("\udcff",))) != call_digest("execute", ProcessSpec(("?",)))


def test_a_field_that_is_as_it_would_be_anyway_changes_nothing() -> None:
    @dataclass(frozen=True)
    class Old:
        word: str

    @dataclass(frozen=True)
    class New:
        word: str
        more: int = 0

    New.__name__ = Old.__name__
    assert call_digest("create", New("x")) == call_digest("create", Old("x"))


@pytest.mark.parametrize("key", ["k", "a b", "x" * 255])
def test_a_printable_word_is_a_key(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", "x" * 256, "a\n", "\x7f", "é"])
def test_anything_else_is_none(key: str) -> None:
    with pytest.raises(Invalid):
        check_key(key)
