"""A command's output gathered in memory up to a limit, while whatever comes after it is drained and dropped."""

from __future__ import annotations

import codecs
import json
from typing import TYPE_CHECKING

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Bug
from sandboxd.core.events import Channel, Exited, Output, Truncated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandboxd.core.events import ProcessEvent

_KILLED = {
    Cause.DEADLINE: "the command was killed: its time ran out",
    Cause.OOM: "the command was killed: the sandbox is out of memory",
    Cause.PIDS: "the command was killed: the sandbox is out of process ids",
    Cause.DISK: "the command was killed: the sandbox is out of disk",
}
_MARKER_BYTES = 100
"""Room for the sentence that says where a text was cut."""
_WIDENING = 3
"""Bytes of text that a byte may become: one that is no text is replaced by a character of three."""


class Stream:
    """One channel's first `limit` bytes, and how many more there were."""

    __slots__ = ("_dropped", "_kept", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._dropped = 0

    def add(self, data: bytes) -> None:
        """Keep as much of `data` as there is room for."""
        room = self._limit - len(self._kept)
        if len(data) <= room:
            self._kept += data
        else:
            self._kept += data[:room]
            self._dropped += len(data) - room

    def lose(self, count: int) -> None:
        """Note that `count` bytes never reached us; they are told where they are missing."""
        self.add(b"\n[sandboxd: %d bytes were lost here]\n" % count)

    @property
    def kept(self) -> bytes:
        """The bytes themselves."""
        return bytes(self._kept)

    @property
    def figures(self) -> tuple[int, int, int]:
        """How many bytes are kept, how many may be, and how many more there were."""
        return len(self._kept), self._limit, self._dropped

    @classmethod
    def of(cls, kept: bytes, limit: int, dropped: int) -> Stream:
        """Return a stream as `kept` and `figures` described it."""
        stream = cls(limit)
        stream._kept += kept
        stream._dropped = dropped
        return stream

    @property
    def most_size(self) -> int:
        """A number of bytes that the whole text does not exceed, known without making the text."""
        return _WIDENING * len(self._kept) + _MARKER_BYTES

    def text(self, most: int | None = None) -> str:
        """Return what was kept as text, followed by a sentence where something was cut.

        Where `most` is given, text and sentence are at most that many bytes as UTF-8.
        """
        whole = codecs.utf_8_decode(self._kept, "replace", not self._dropped)[0]
        if most is not None and self.most_size > most:
            encoded = whole.encode()
            if len(encoded) + (_MARKER_BYTES if self._dropped else 0) > most:
                shown, size = codecs.utf_8_decode(encoded[: max(0, most - _MARKER_BYTES)], "strict", False)
                return shown + _marker(size, self._dropped + len(encoded) - size)
        return whole + _marker(self._limit, self._dropped) if self._dropped else whole


class Finished:
    """A command that has ended, and what it said."""

    __slots__ = ("_note", "_signal", "_stderr", "_stdout", "cause", "exit_code")

    def __init__(self, exited: Exited, stdout: Stream, stderr: Stream) -> None:
        self.exit_code = exited.code
        self.cause = exited.cause
        self._signal = exited.signal
        self._stdout = stdout
        self._stderr = stderr
        self._note = f"sandboxd: {_KILLED[exited.cause]}\n" if exited.cause in _KILLED else ""

    def encode(self) -> bytes:
        """Return all of this as bytes for `decode`."""
        head = [self.exit_code, self._signal, self.cause.value, self._stdout.figures, self._stderr.figures]
        return json.dumps(head).encode() + b"\n" + self._stdout.kept + self._stderr.kept

    @classmethod
    def decode(cls, data: bytes) -> Finished:
        """Return what `encode` wrote. Raises ValueError where it was not."""
        head, _, kept = data.partition(b"\n")
        code, signal, cause, (split, *stdout), (_, *stderr) = json.loads(head)
        return cls(
            Exited(code, signal, Cause(cause)), Stream.of(kept[:split], *stdout), Stream.of(kept[split:], *stderr)
        )

    def texts(self, most: int | None = None) -> tuple[str, str]:
        """Return stdout and stderr; where something killed the command, a last line of stderr says what.

        Where `most` is given, both together are at most that many bytes as UTF-8: what does not fit is cut from the
        longer of them first.
        """
        if most is None or self._stdout.most_size + self._stderr.most_size + len(self._note) <= most:
            return self._stdout.text(), self._stderr.text() + self._note
        room = most - len(self._note)
        stdout, stderr = self._stdout.text(), self._stderr.text()
        for_stdout, for_stderr = _shares(len(stdout.encode()), len(stderr.encode()), room)
        return self._stdout.text(for_stdout), self._stderr.text(for_stderr) + self._note

    def result(self, most: int | None = None) -> str:
        """Return what a program said as one text: stdout, or where it failed its stderr, if there is any."""
        room = None if most is None else most - len(self._note)
        failure = self._stderr.text(room) + self._note if self.exit_code else ""
        return failure or self._stdout.text(most)


async def gather(events: AsyncIterator[ProcessEvent], *, limit: int, missed: tuple[int, int] = (0, 0)) -> Finished:
    """Follow a process to its end and return its output, at most `limit` bytes of each channel.

    `missed` bytes of stdout and stderr will not come: somebody else has taken them. They are told as lost, as is
    whatever else is missing.
    """
    streams = {Channel.STDOUT: Stream(limit), Channel.STDERR: Stream(limit)}
    reached = dict(zip(streams, missed, strict=True))
    for channel, count in reached.items():
        if count:
            streams[channel].lose(count)
    async for event in events:
        match event:
            case Output(channel, data, offset):
                if offset > reached[channel]:
                    streams[channel].lose(offset - reached[channel])
                reached[channel] = offset + len(data)
                streams[channel].add(data)
            case Truncated(channel, dropped):
                streams[channel].lose(dropped)
                reached[channel] += dropped
            case Exited():
                return Finished(event, streams[Channel.STDOUT], streams[Channel.STDERR])
            case _:
                pass
    raise Bug("a process ended without saying how")


def _shares(first: int, second: int, room: int) -> tuple[int, int]:
    """Divide room between two sizes: each gets what it needs while the other has its half."""
    half = room // 2
    if second <= half:
        return room - second, second
    if first <= half:
        return first, room - first
    return half, half


def _marker(kept: int, dropped: int) -> str:
    return f"\n[sandboxd: cut at {kept} bytes, {dropped} more were dropped]\n"
