"""What a user asks for, and the checks that need no node."""

from __future__ import annotations

from typing import Any

import pytest

from sandboxd.core.errors import LEAVES, Invalid, SandboxdError
from sandboxd.core.ids import check_public_id, new_internal_id, new_sandbox_id
from sandboxd.core.records import Metrics
from sandboxd.core.spec import MAXIMUM_REQUEST, MIB, MOST_MEMORY_MB, Limits, ProcessSpec


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory_bytes": 0},
        {"memory_bytes": -1},
        {"cpus": 0.0},
        {"cpus": -1.0},
        {"cpus": float("nan")},
        {"pids": 1},
        {"disk_bytes": 10},
    ],
)
def test_meaningless_limits_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        Limits(**wrong)


@pytest.mark.parametrize(
    ("wishes", "limits"),
    [
        ({"memory_mb": None, "cpu_cores": None}, Limits(memory_bytes=64 * MIB, cpus=2.0, pids=9)),
        ({"memory_mb": 0, "cpu_cores": 0}, Limits(memory_bytes=64 * MIB, cpus=None, pids=9)),
        ({"memory_mb": 128, "cpu_cores": 0.5}, Limits(memory_bytes=128 * MIB, cpus=0.5, pids=9)),
    ],
)
def test_limits_are_adjusted_to_what_a_user_wishes(wishes: dict[str, Any], limits: Limits) -> None:
    assert Limits(memory_bytes=64 * MIB, cpus=2.0, pids=9).adjusted(**wishes) == limits


@pytest.mark.parametrize("memory_mb", [-1, MOST_MEMORY_MB + 1])
def test_memory_that_no_node_takes_is_refused_by_name(memory_mb: int) -> None:
    with pytest.raises(Invalid, match="`memory_mb`"):
        Limits().adjusted(memory_mb=memory_mb, cpu_cores=None)


@pytest.mark.parametrize("argv", [(), ("",), ("a\0b",)])
def test_a_command_that_cannot_be_run_anywhere_is_refused(argv: tuple[str, ...]) -> None:
    with pytest.raises(Invalid):
        ProcessSpec(argv=argv)


def test_a_command_longer_than_the_limit_is_refused_and_one_below_is_not() -> None:
    ProcessSpec(argv=("x" * (MAXIMUM_REQUEST - 10),))
    with pytest.raises(Invalid, match=str(MAXIMUM_REQUEST)):
        ProcessSpec(argv=("x" * MAXIMUM_REQUEST,))


@pytest.mark.parametrize("env", [(("", "v"),), (("A=B", "v"),), (("A", "v\0"),)])
def test_an_impossible_environment_is_refused(env: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(Invalid):
        ProcessSpec(argv=("true",), env=env)


def test_ids_of_our_making_are_safe_long_and_different() -> None:
    made = {new_sandbox_id("aa") for _ in range(100)}
    assert len(made) == 100
    for public_id in made:
        assert check_public_id(public_id) == public_id
        assert public_id.startswith("sb-aa")
        assert len(public_id) == len("sb-aa") + 26
    assert len(new_internal_id()) == 26


@pytest.mark.parametrize("cell", ["", "a", "aaa", "A2", "a1", "../"])
def test_a_cell_is_two_characters_of_base32(cell: str) -> None:
    with pytest.raises(Invalid):
        new_sandbox_id(cell)


@pytest.mark.parametrize("value", ["", "../x", "a/b", "a b", "-a", "a" * 129, "é", "a\n"])
def test_unsafe_public_ids_are_refused(value: str) -> None:
    with pytest.raises(Invalid):
        check_public_id(value)


def test_error_codes_are_distinct_and_errors_read_as_a_sentence_with_a_hint() -> None:
    assert len({leaf.code for leaf in LEAVES}) == len(LEAVES)
    assert set(LEAVES) == set(SandboxdError.__subclasses__())
    assert str(Invalid("no such thing", hint="ask for another")) == "no such thing; ask for another"


def test_memory_percent_is_of_the_limit_and_zero_without_one() -> None:
    assert Metrics(memory_usage_bytes=MIB, memory_limit_bytes=4 * MIB).memory_percent == 25.0
    assert Metrics(memory_usage_bytes=MIB).memory_percent == 0.0
