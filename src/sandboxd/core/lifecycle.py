"""The life of a sandbox as a table: (state, verb) → state. What is not in the table is refused."""

from __future__ import annotations

from enum import StrEnum

from sandboxd.core.errors import Bug, Conflict


class State(StrEnum):
    """Where a sandbox is in its life."""

    CREATING = "creating"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"
    LOST = "lost"


class Verb(StrEnum):
    """What users ask of a sandbox, and what happens to it."""

    STARTED = "started"  # the runtime and the agent answered
    FAILED = "failed"  # creation did not work out
    EXECUTE = "execute"
    USE_FILES = "use files"
    MEASURE = "measure"
    PAUSE = "pause"
    RESUME = "resume"
    SNAPSHOT = "snapshot"
    ENDED = "ended"  # main process exited, or the instance died
    VANISHED = "vanished"  # the state says it exists, the node says it does not
    DESTROY = "destroy"
    GONE = "gone"  # destruction finished


ASKED: frozenset[Verb] = frozenset(
    {Verb.EXECUTE, Verb.USE_FILES, Verb.MEASURE, Verb.PAUSE, Verb.RESUME, Verb.SNAPSHOT, Verb.DESTROY}
)
"""Verbs that a user speaks; the others are facts reported by the engine itself."""

TABLE: dict[tuple[State, Verb], State] = {
    (State.CREATING, Verb.STARTED): State.RUNNING,
    (State.CREATING, Verb.FAILED): State.DESTROYING,
    (State.CREATING, Verb.ENDED): State.STOPPED,
    (State.CREATING, Verb.VANISHED): State.LOST,
    (State.CREATING, Verb.DESTROY): State.DESTROYING,
    (State.RUNNING, Verb.EXECUTE): State.RUNNING,
    (State.RUNNING, Verb.USE_FILES): State.RUNNING,
    (State.RUNNING, Verb.MEASURE): State.RUNNING,
    (State.RUNNING, Verb.PAUSE): State.PAUSED,
    (State.RUNNING, Verb.RESUME): State.RUNNING,
    (State.RUNNING, Verb.SNAPSHOT): State.PAUSED,
    (State.RUNNING, Verb.ENDED): State.STOPPED,
    (State.RUNNING, Verb.VANISHED): State.LOST,
    (State.RUNNING, Verb.DESTROY): State.DESTROYING,
    (State.PAUSED, Verb.MEASURE): State.PAUSED,
    (State.PAUSED, Verb.PAUSE): State.PAUSED,
    (State.PAUSED, Verb.RESUME): State.RUNNING,
    (State.PAUSED, Verb.SNAPSHOT): State.PAUSED,
    (State.PAUSED, Verb.ENDED): State.STOPPED,
    (State.PAUSED, Verb.VANISHED): State.LOST,
    (State.PAUSED, Verb.DESTROY): State.DESTROYING,
    (State.STOPPED, Verb.DESTROY): State.DESTROYING,
    (State.DESTROYING, Verb.ENDED): State.DESTROYING,
    (State.DESTROYING, Verb.VANISHED): State.DESTROYING,
    (State.DESTROYING, Verb.DESTROY): State.DESTROYING,
    (State.DESTROYING, Verb.GONE): State.DESTROYED,
    (State.LOST, Verb.DESTROY): State.DESTROYING,
}


def after(state: State, verb: Verb) -> State:
    """Return the state that `verb` leads to from `state`.

    Raises:
        Conflict: a user asked for something this state does not allow.
        Bug: the engine reported a fact that cannot happen in this state.
    """
    following = TABLE.get((state, verb))
    if following is not None:
        return following
    if verb in ASKED:
        hint = "resume it first" if state is State.PAUSED else ""
        raise Conflict(f"cannot {verb}: the sandbox is {state}", hint=hint)
    raise Bug(f"`{verb}` was reported for a sandbox that is {state}")
