"""Every pair of state and verb is decided: allowed, refused to the caller, or our own fault."""

from __future__ import annotations

import itertools

import pytest

from sandboxd.core.errors import Bug, Conflict
from sandboxd.core.lifecycle import ASKED, TABLE, State, Verb, after

PAIRS = list(itertools.product(State, Verb))


@pytest.mark.parametrize(("state", "verb"), PAIRS)
def test_a_pair_is_decided(state: State, verb: Verb) -> None:
    if (state, verb) in TABLE:
        assert after(state, verb) is TABLE[state, verb]
        return
    with pytest.raises(Conflict if verb in ASKED else Bug) as refusal:
        after(state, verb)
    assert str(state) in str(refusal.value)


def test_a_destroyed_sandbox_stays_destroyed() -> None:
    assert not [verb for state, verb in TABLE if state is State.DESTROYED]


@pytest.mark.parametrize("state", [state for state in State if state is not State.DESTROYED])
def test_whatever_lives_can_be_destroyed(state: State) -> None:
    assert after(state, Verb.DESTROY) is State.DESTROYING


def test_every_state_can_be_reached() -> None:
    assert {State.CREATING, *TABLE.values()} == set(State)


def test_every_verb_is_used() -> None:
    assert {verb for _, verb in TABLE} == set(Verb)


def test_users_cannot_start_a_paused_process() -> None:
    with pytest.raises(Conflict, match="resume it first"):
        after(State.PAUSED, Verb.EXECUTE)
