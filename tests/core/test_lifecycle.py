"""The life of a sandbox as a table."""

from __future__ import annotations

import pytest

from sandboxd.core.errors import Bug, Conflict
from sandboxd.core.lifecycle import ASKED, TABLE, State, Verb, after


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("verb", Verb)
def test_every_pair_is_either_in_the_table_or_refused_with_the_right_error(state: State, verb: Verb) -> None:
    if (state, verb) in TABLE:
        assert after(state, verb) is TABLE[state, verb]
        return
    with pytest.raises(Conflict if verb in ASKED else Bug) as refusal:
        after(state, verb)
    assert str(state) in str(refusal.value)


def test_every_state_but_the_last_can_reach_destroyed() -> None:
    reaching = {State.DESTROYED}
    while True:
        more = {state for (state, _), following in TABLE.items() if following in reaching} - reaching
        if not more:
            break
        reaching |= more
    assert reaching == set(State)


def test_nothing_leads_out_of_destroyed() -> None:
    assert not [verb for (state, verb) in TABLE if state is State.DESTROYED]


def test_a_paused_sandbox_refuses_commands_with_a_hint() -> None:
    with pytest.raises(Conflict, match="resume it first"):
        after(State.PAUSED, Verb.EXECUTE)
