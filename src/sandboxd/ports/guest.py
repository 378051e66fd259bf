"""All that may be asked of the inside of a sandbox."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandboxd.core.events import Exited, ProcessEvent
    from sandboxd.core.spec import ProcessSpec, TerminalSize


class FileKind(StrEnum):
    """What a directory entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class FileStatus:
    """An entry of the guest's file system. `name` is its last path component; bytes that are not UTF-8 are surrogates.

    `mode` holds permission bits only; `target` is a symlink's text.
    """

    name: str
    kind: FileKind
    mode: int
    size: int
    modified_ns: int
    uid: int
    gid: int
    target: str = ""


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


class Guest(ABC):
    """The inside of one sandbox, through its agent.

    Paths are relative to `root` (a directory in the guest, `/` by default): absolute paths and symlinks are resolved as
    if `root` were the file system's root, so nothing outside it can be reached.

    Every method may raise Lost when the guest ended. File methods raise NotFound, Denied, Conflict (exists, not empty,
    is a directory), LimitExceeded (no space) and Invalid by the guest's errno.
    """

    @abstractmethod
    async def start(self, spec: ProcessSpec) -> GuestProcess:
        """Start a process and return once the guest has accepted it.

        A missing program exits 127, one that cannot be executed 126, with a sentence on stderr.

        Raises:
            Invalid: the user or the working directory does not exist in the guest.
            LimitExceeded: the guest holds too many processes.
        """

    @abstractmethod
    async def processes(self) -> list[ProcessStatus]:
        """Return every process the guest remembers, running or ended, that has not been forgotten."""

    @abstractmethod
    async def attach(self, process_id: int) -> GuestProcess:
        """Return a process started earlier, by us or by a server before us. Raises NotFound."""

    @abstractmethod
    def read_file(
        self, path: str, *, root: str = "/", offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Yield a file's bytes in pieces."""

    @abstractmethod
    async def write_file(
        self,
        path: str,
        data: bytes | AsyncIterator[bytes],
        *,
        root: str = "/",
        mode: int | None = None,
        parents: bool = False,
    ) -> None:
        """Replace a file as a whole: readers see the old or the new one, and a failure leaves the old one.

        `mode` of None keeps the old file's mode, or 0644 for a new one.
        """

    @abstractmethod
    def list_directory(self, path: str, *, root: str = "/") -> AsyncIterator[FileStatus]:
        """Yield a directory's entries in no particular order, without `.` and `..`."""

    @abstractmethod
    async def status(self, path: str, *, root: str = "/", follow: bool = True) -> FileStatus:
        """Return what `path` is; with `follow` False, of a symlink itself."""

    @abstractmethod
    async def make_directory(self, path: str, *, root: str = "/", mode: int = 0o755, parents: bool = False) -> None:
        """Make a directory. With `parents`, an existing one is fine."""

    @abstractmethod
    async def move(self, source: str, target: str, *, root: str = "/") -> None:
        """Rename within one file system, replacing a file that is in the way."""

    @abstractmethod
    async def remove(self, path: str, *, root: str = "/", recursive: bool = False) -> None:
        """Remove a file, a symlink or an empty directory; with `recursive` a whole tree, never through symlinks."""

    @abstractmethod
    async def connect(self, port: int) -> GuestConnection:
        """Open a TCP connection to 127.0.0.1:`port` inside. Raises Unavailable when nobody listens."""

    @abstractmethod
    async def platform(self) -> dict[str, str]:
        """Return uname as seen inside: `system`, `node`, `release`, `version`, `machine`."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the channel, leaving everything inside as it is. Harmless when repeated."""
