"""What a process tells while it lives: Started, Output, Truncated, Exited, in that order of life."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandboxd.core.causes import Cause


class Channel(IntEnum):
    """Which of a process's byte streams."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2


@dataclass(frozen=True, slots=True)
class Started:
    """The program runs; `pid` is its number inside the sandbox."""

    pid: int


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes as the process wrote them. `offset` counts all bytes of this channel before these."""

    channel: Channel
    data: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class Truncated:
    """`dropped` bytes of this channel were lost before the next Output: nobody read them in time."""

    channel: Channel
    dropped: int


@dataclass(frozen=True, slots=True)
class Exited:
    """The process ended and all its own output has been delivered.

    `code` is the exit status, or 128 + `signal` when a signal ended it (`signal` is then non-zero).
    """

    code: int
    signal: int
    cause: Cause


ProcessEvent = Started | Output | Truncated | Exited
