"""All that may be asked of the inside of a sandbox."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxd.ports.files import Files

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandboxd.core.events import Exited, Output, ProcessEvent, Truncated
    from sandboxd.core.spec import ProcessSpec, TerminalSize


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """What the guest remembers of a process that has not been forgotten. `code` is None while it runs."""

    process_id: int
    """Counted from 1 in the order of starting; a guest's first process has 1, whoever connects later."""
    pid: int
    attached: bool
    code: int | None
    signal: int
    acknowledged: tuple[int, int]
    """Per output channel (stdout, stderr): how many bytes have been acknowledged or dropped for good."""


class GuestProcess(ABC):
    """A process in the guest, identified by `process_id`, which survives our own death.

    Nothing here is acknowledged to the guest before the consumer asks for the next event, so a consumer that dies
    loses nothing: a new one attaches and gets every byte it did not acknowledge.
    """

    process_id: int
    """Counted from 1 in the order of starting; a guest's first process has 1, whoever connects later."""
    pid: int
    """The process's number inside; 0 when the program could not be executed (it then exits 126 or 127)."""

    @abstractmethod
    async def wait(self) -> Exited:
        """Return once the process has ended, without attaching to its output. May be called by several at once.

        Raises:
            Lost: the guest ended first.
        """

    @abstractmethod
    def events(self) -> AsyncIterator[ProcessEvent]:
        """Yield Started, Output, Truncated as they come, then exactly one Exited, with cause EXITED or DEADLINE.

        May be iterated once at a time. Closing the iterator detaches: output then goes to the ring.

        Raises:
            Lost: the guest ended first.
        """

    @abstractmethod
    async def peek(self) -> list[Output | Truncated]:
        """Return what the guest holds of a detached process's output, oldest first, and leave it there.

        Raises:
            Conflict: its events are being read.
            Lost: the guest ended first.
        """

    @abstractmethod
    async def detach(self) -> None:
        """Let a process that a server before us had attached go on without a reader: its output goes to the ring.

        Raises:
            Conflict: its events are being read.
        """

    @abstractmethod
    async def write_stdin(self, data: bytes) -> None:
        """Give bytes to stdin, waiting while the guest has no room.

        Raises:
            Conflict: stdin was closed, by us or by the process.
            Lost: the guest ended.
        """

    @abstractmethod
    async def close_stdin(self) -> None:
        """Let the process see the end of its input. Harmless when repeated or too late."""

    @abstractmethod
    async def signal(self, number: int, *, descendants: bool = False) -> None:
        """Send a signal; with `descendants`, to everything the process has ever started that still lives.

        With SIGKILL and `descendants` the call returns after none of them is left. Too late is not an error.
        """

    @abstractmethod
    async def resize(self, size: TerminalSize) -> None:
        """Set the terminal's size. Raises Conflict where there is no terminal."""

    @abstractmethod
    async def forget(self) -> None:
        """Drop the guest's memory of the process (its ring and status). A process that still runs goes on unseen."""


class GuestConnection(ABC):
    """A byte stream to a port inside the guest."""

    @abstractmethod
    async def read(self) -> bytes:
        """Return the next bytes, at least one; empty at the end."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Send bytes, waiting while there is no room. Raises Conflict when the other side is gone."""

    @abstractmethod
    async def end_writing(self) -> None:
        """Let the other side see the end of our bytes; reading goes on."""

    @abstractmethod
    async def close(self) -> None:
        """Give the connection up. Harmless when repeated."""


class Guest(Files):
    """The inside of one sandbox, through its agent. Every method may raise Lost when the guest ended."""

    @abstractmethod
    async def start(self, spec: ProcessSpec) -> GuestProcess:
        """Start a process and return once the guest has accepted it.

        A missing program exits 127, one that cannot be executed 126, with a sentence on stderr.

        Raises:
            Invalid: the user or the working directory does not exist in the guest.
            Busy: the guest has no room for more processes just now.
            Uncertain: the guest does not answer; should the process begin after all, it is killed.
        """

    @abstractmethod
    async def processes(self) -> list[ProcessStatus]:
        """Return every process the guest remembers, running or ended, that has not been forgotten."""

    @abstractmethod
    async def attach(self, process_id: int) -> GuestProcess:
        """Return a process started earlier, by us or by a server before us. Raises NotFound."""

    @abstractmethod
    async def connect(self, port: int) -> GuestConnection:
        """Open a TCP connection to 127.0.0.1:`port` inside. Raises Unavailable when nobody listens."""

    @abstractmethod
    async def platform(self) -> dict[str, str]:
        """Return uname as seen inside: `system`, `node`, `release`, `version`, `machine`."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the channel, leaving everything inside as it is. Harmless when repeated."""
