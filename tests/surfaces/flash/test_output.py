"""Output gathered up to a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.surfaces.fake_engine import HostProcess

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Bug
from sandboxd.core.events import Channel, Exited, Output, ProcessEvent, Started, Truncated
from sandboxd.surfaces.flash.output import gather

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Told(HostProcess):
    """A process that tells what it is told to."""

    def __init__(self, *told: ProcessEvent) -> None:
        super().__init__((), set())
        self._told = told

    async def events(self) -> AsyncIterator[ProcessEvent]:
        for event in self._told:
            yield event


async def test_channels_are_kept_apart_and_in_order() -> None:
    told = Told(
        Started(1),
        Output(Channel.STDOUT, b"a", 0),
        Output(Channel.STDERR, b"x", 0),
        Output(Channel.STDOUT, b"b", 1),
        Exited(3, 0, Cause.EXITED),
    )
    finished = await gather(told, limit=10)
    assert (finished.stdout, finished.stderr, finished.exit_code) == ("ab", "x", 3)


async def test_bytes_that_were_lost_are_told_where_they_are_missing() -> None:
    told = Told(Output(Channel.STDOUT, b"a\n", 0), Truncated(Channel.STDOUT, 5), Exited(0, 0, Cause.EXITED))
    assert (await gather(told, limit=100)).stdout == "a\n\n[sandboxd: 5 bytes were lost here]\n"


async def test_a_character_in_two_pieces_is_one() -> None:
    told = Told(Output(Channel.STDOUT, b"\xc3", 0), Output(Channel.STDOUT, b"\xa4", 1), Exited(0, 0, Cause.EXITED))
    assert (await gather(told, limit=2)).stdout == "ä"


@pytest.mark.parametrize(("cause", "words"), [(Cause.DEADLINE, "its time ran out"), (Cause.OOM, "out of memory")])
async def test_what_killed_a_command_is_told_on_stderr(cause: Cause, words: str) -> None:
    told = Told(Output(Channel.STDERR, b"so far\n", 0), Exited(137, 9, cause))
    finished = await gather(told, limit=100)
    assert finished.stderr.startswith("so far\nsandboxd: the command was killed")
    assert words in finished.stderr
    assert finished.cause is cause


async def test_a_process_that_never_says_how_it_ended_is_our_mistake() -> None:
    with pytest.raises(Bug, match="without saying how"):
        await gather(Told(Started(1)), limit=10)
