"""What a node allows, and what it assumes where a user is silent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sandboxd.core.capabilities import Capabilities
from sandboxd.core.errors import Invalid, LimitExceeded, Unsupported
from sandboxd.core.spec import MIB, Limits, SandboxSpec
from sandboxd.engine.policy import Policy

SPEC = SandboxSpec(runtime="container", image="x")
ABLE = Capabilities()


def test_the_nodes_defaults_fill_in_what_the_user_left_open() -> None:
    admitted = Policy(default_lifetime_s=60, default_idle_s=5).admit(SPEC, "container", ABLE)
    assert (admitted.lifetime_s, admitted.idle_s) == (60, 5)


def test_a_maximum_bounds_a_sandbox_that_asked_for_no_end() -> None:
    assert Policy(max_lifetime_s=100).admit(SPEC, "container", ABLE).lifetime_s == 100


@pytest.mark.parametrize(
    ("policy", "spec"),
    [
        ({"max_memory_bytes": 256 * MIB}, {"limits": Limits(memory_bytes=512 * MIB)}),
        ({"max_cpus": 2}, {"limits": Limits(cpus=4)}),
        ({"max_cpus": 2}, {"limits": Limits(cpus=None)}),
        ({"max_pids": 100}, {"limits": Limits(pids=101)}),
        ({"max_lifetime_s": 10}, {"lifetime_s": 11}),
        ({"max_idle_s": 10}, {"idle_s": 11}),
    ],
)
def test_more_than_the_node_allows_is_refused_with_the_maximum(policy: dict[str, Any], spec: dict[str, Any]) -> None:
    with pytest.raises(LimitExceeded) as refusal:
        Policy(**policy).admit(replace(SPEC, **spec), "container", ABLE)
    assert str(next(iter(policy.values()))) in str(refusal.value)


@pytest.mark.parametrize("lifetime", [0, -1])
def test_a_lifetime_that_is_not_positive_is_refused(lifetime: float) -> None:
    with pytest.raises(Invalid):
        Policy().admit(replace(SPEC, lifetime_s=lifetime), "container", ABLE)


@pytest.mark.parametrize(
    ("lacking", "spec"),
    [
        ({"networks": frozenset({"offline"})}, {"network": "open"}),
        ({"disk_limit": False}, {"limits": Limits(disk_bytes=MIB)}),
        ({"cpu_limit": False}, {}),
        ({"memory_limit": False}, {}),
        ({"pids_limit": False}, {}),
    ],
)
def test_what_a_runtime_lacks_is_refused_and_what_it_has_is_not(lacking: dict[str, Any], spec: dict[str, Any]) -> None:
    able = Capabilities(networks=frozenset({"offline", "open"}), disk_limit=True)
    wanted = replace(SPEC, **spec)
    assert Policy().admit(wanted, "container", able) == wanted
    with pytest.raises(Unsupported, match="container"):
        Policy().admit(wanted, "container", replace(able, **lacking))


@pytest.mark.parametrize(
    ("maximum", "asked", "given"), [(10, None, 10), (10, 5, 5), (10, 50, 10), (None, None, None), (None, 7, 7)]
)
def test_a_command_runs_no_longer_than_the_node_allows(
    maximum: float | None, asked: float | None, given: float | None
) -> None:
    assert Policy(max_execution_s=maximum).execution_deadline_s(asked) == given
