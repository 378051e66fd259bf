"""Output gathered up to a limit, and rendered into as much room as a reply has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Bug
from sandboxd.core.events import Channel, Exited, Output, ProcessEvent, Started, Truncated
from sandboxd.core.output import Finished, Stream, gather

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CUT = re.compile(r"\n\[sandboxd: cut at (\d+) bytes, (\d+) more were dropped\]\n")


async def told(*events: ProcessEvent) -> AsyncIterator[ProcessEvent]:
    for event in events:
        yield event


def finished(stdout: bytes, stderr: bytes = b"", exited: Exited = Exited(0, 0, Cause.EXITED)) -> Finished:  # noqa: B008 - frozen
    streams = Stream(len(stdout)), Stream(len(stderr))
    for stream, data in zip(streams, (stdout, stderr), strict=True):
        stream.add(data)
    return Finished(exited, *streams)


def size(*texts: str) -> int:
    return sum(len(text.encode()) for text in texts)


async def test_channels_are_kept_apart_and_in_order() -> None:
    events = told(
        Started(1),
        Output(Channel.STDOUT, b"a", 0),
        Output(Channel.STDERR, b"x", 0),
        Output(Channel.STDOUT, b"b", 1),
        Exited(3, 0, Cause.EXITED),
    )
    ended = await gather(events, limit=10)
    assert (ended.texts(), ended.exit_code) == (("ab", "x"), 3)


async def test_bytes_that_were_lost_are_told_where_they_are_missing() -> None:
    events = told(Output(Channel.STDOUT, b"a\n", 0), Truncated(Channel.STDOUT, 5), Exited(0, 0, Cause.EXITED))
    assert (await gather(events, limit=100)).texts()[0] == "a\n\n[sandboxd: 5 bytes were lost here]\n"


async def test_a_character_in_two_pieces_is_one() -> None:
    events = told(Output(Channel.STDOUT, b"\xc3", 0), Output(Channel.STDOUT, b"\xa4", 1), Exited(0, 0, Cause.EXITED))
    assert (await gather(events, limit=2)).texts()[0] == "ä"


@pytest.mark.parametrize(("cause", "words"), [(Cause.DEADLINE, "its time ran out"), (Cause.OOM, "out of memory")])
async def test_what_killed_a_command_is_told_on_stderr(cause: Cause, words: str) -> None:
    ended = await gather(told(Output(Channel.STDERR, b"so far\n", 0), Exited(137, 9, cause)), limit=100)
    _, stderr = ended.texts()
    assert stderr.startswith("so far\nsandboxd: the command was killed")
    assert words in stderr
    assert ended.result() == stderr
    assert ended.cause is cause


async def test_a_process_that_never_says_how_it_ended_is_our_mistake() -> None:
    with pytest.raises(Bug, match="without saying how"):
        await gather(told(Started(1)), limit=10)


def test_a_result_is_stdout_or_the_stderr_of_a_failure() -> None:
    failed = Exited(1, 0, Cause.EXITED)
    assert finished(b"out", b"err").result() == "out"
    assert finished(b"out", b"err", failed).result() == "err"
    assert finished(b"out", b"", failed).result() == "out"


def test_what_fits_is_not_cut_though_it_fills_the_room_to_the_byte() -> None:
    assert finished(b"x" * 600, b"y" * 400).texts(1000) == ("x" * 600, "y" * 400)


def test_the_longer_stream_is_cut_first() -> None:
    stdout, stderr = finished(b"x" * 5000, b"why\n").texts(1000)
    cut = CUT.search(stdout)
    assert cut is not None
    assert (stderr, int(cut[1]) + int(cut[2])) == ("why\n", 5000)
    assert 900 < size(stdout, stderr) <= 1000
    stdout, stderr = finished(b"so\n", b"y" * 5000).texts(1000)
    assert (stdout, size(stdout, stderr) <= 1000) == ("so\n", True)


def test_two_long_streams_share_the_room() -> None:
    stdout, stderr = finished(b"x" * 5000, b"y" * 5000).texts(1000)
    assert abs(size(stdout) - size(stderr)) < 5
    assert size(stdout, stderr) <= 1000


def test_what_killed_a_command_is_told_although_its_stderr_is_cut() -> None:
    _, stderr = finished(b"", b"y" * 5000, Exited(137, 9, Cause.OOM)).texts(1000)
    assert stderr.endswith("the sandbox is out of memory\n")
    assert size(stderr) <= 1000


def test_what_was_dropped_before_is_counted_with_what_is_dropped_now() -> None:
    stream = Stream(3000)
    stream.add(b"x" * 4000)
    cut = CUT.search(stream.text(1000))
    assert cut is not None
    assert int(cut[1]) + int(cut[2]) == 4000


@given(
    stdout=st.binary(max_size=3000),
    stderr=st.binary(max_size=3000) | st.text(max_size=1000).map(str.encode),
    repeated=st.integers(1, 20),
    most=st.integers(500, 20000),
    cause=st.sampled_from(Cause),
)
def test_whatever_was_said_the_texts_fit(stdout: bytes, stderr: bytes, repeated: int, most: int, cause: Cause) -> None:
    ended = finished(stdout * repeated, stderr * repeated, Exited(1, 0, cause))
    assert size(*ended.texts(most)) <= most
    assert size(ended.result(most)) <= most
    if size(*ended.texts()) <= most:
        assert ended.texts(most) == ended.texts()
