"""A command's output gathered in memory up to a limit, while whatever comes after it is drained and dropped."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Bug
from sandboxd.core.events import Channel, Exited, Output, Truncated

if TYPE_CHECKING:
    from sandboxd.ports.engine import RunningProcess

_KILLED = {
    Cause.DEADLINE: "the command was killed: its time ran out",
    Cause.OOM: "the command was killed: the sandbox is out of memory",
    Cause.PIDS: "the command was killed: the sandbox is out of process ids",
    Cause.DISK: "the command was killed: the sandbox is out of disk",
}


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

    def text(self) -> str:
        """Return what was kept as text, followed by a sentence where something was cut."""
        if not self._dropped:
            return self._kept.decode(errors="replace")
        whole, _ = codecs.utf_8_decode(self._kept, "replace", False)
        return f"{whole}\n[sandboxd: cut at {self._limit} bytes, {self._dropped} more were dropped]\n"


class Finished:
    """A command that has ended, with its output as text."""

    __slots__ = ("cause", "exit_code", "stderr", "stdout")

    def __init__(self, exited: Exited, stdout: str, stderr: str) -> None:
        self.exit_code = exited.code
        self.cause = exited.cause
        self.stdout = stdout
        self.stderr = stderr


async def gather(process: RunningProcess, *, limit: int) -> Finished:
    """Run a process to its end and return its output, at most `limit` bytes of each channel.

    Where something killed it, a last line of stderr says what.
    """
    streams = {Channel.STDOUT: Stream(limit), Channel.STDERR: Stream(limit)}
    async with process:
        async for event in process.events():
            match event:
                case Output(channel, data):
                    streams[channel].add(data)
                case Truncated(channel, dropped):
                    streams[channel].lose(dropped)
                case Exited(cause=cause):
                    stderr = streams[Channel.STDERR].text()
                    if cause in _KILLED:
                        stderr = f"{stderr}sandboxd: {_KILLED[cause]}\n"
                    return Finished(event, streams[Channel.STDOUT].text(), stderr)
                case _:
                    pass
    raise Bug("a process ended without saying how")
