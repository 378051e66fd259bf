"""All that a surface may ask of a node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxd.core.output import gather
from sandboxd.core.spec import PythonSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sandboxd.core.events import Output, ProcessEvent, Truncated
    from sandboxd.core.output import Finished
    from sandboxd.core.records import Metrics, SandboxRecord, SnapshotRecord
    from sandboxd.core.spec import ProcessSpec, SandboxSpec, TerminalSize
    from sandboxd.ports.files import Files


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """A process that the guest remembers. `code` is None while it runs, else as `Exited` has it."""

    process_id: int
    """Names the process in this sandbox, whichever server asks."""
    pid: int
    code: int | None
    signal: int
    is_command: bool
    """Whether it is the sandbox's own command."""
    is_uncertain: bool
    """Whether a server died before it could tell its caller how it ended; `collect` tells, once."""


class RunningProcess(ABC):
    """A process that a surface started. Leaving its `async with` block kills it if it still runs."""

    process_id: int
    """Names the process in its sandbox, also for a server after us; see `Engine.processes`."""

    @abstractmethod
    def events(self) -> AsyncIterator[ProcessEvent]:
        """Yield Started, Output and Truncated as they come, then exactly one Exited. May be iterated once.

        Output that nobody takes stays in the guest: the process then blocks in its own write.

        Raises:
            Lost: the sandbox ended before the process did.
        """

    @abstractmethod
    async def write_stdin(self, data: bytes) -> None:
        """Give bytes to stdin; waits while the process does not read. Raises Conflict when stdin is closed."""

    @abstractmethod
    async def close_stdin(self) -> None:
        """Let the process see the end of its input. Harmless when repeated."""

    @abstractmethod
    async def signal(self, number: int, *, descendants: bool = False) -> None:
        """Send a signal to the process, or to it and all its descendants. A process that has ended is left alone."""

    @abstractmethod
    async def resize(self, size: TerminalSize) -> None:
        """Set the terminal's size. Raises Conflict where there is no terminal."""

    @abstractmethod
    async def __aenter__(self) -> RunningProcess: ...

    @abstractmethod
    async def __aexit__(self, *exc: object) -> None: ...


class Engine(ABC):
    """One node's sandboxes. Every call names the owner; what belongs to another owner does not exist.

    All methods may raise NotFound for an unknown id, Conflict for a verb the state does not allow, and Lost (with the
    cause in the sentence) when the sandbox ended unasked.
    """

    @abstractmethod
    async def create(self, owner: str, spec: SandboxSpec, *, key: str = "") -> SandboxRecord:
        """Make a sandbox and return once it can run commands; cancelling the call undoes it completely.

        A call that repeats the `key` and the spec of one that succeeded within a day makes nothing and returns the same
        sandbox, also when a server died between the two.

        Raises:
            Invalid: unknown runtime or image, or a limit outside what the node allows.
            Unsupported: the runtime cannot do what the spec asks.
            Unavailable: the runtime does not work on this node just now.
            Conflict: the owner already has a sandbox with this public id, or used the key for something else.
        """

    @abstractmethod
    async def get(self, owner: str, sandbox_id: str) -> SandboxRecord:
        """Return what is known about a sandbox that has not been destroyed."""

    @abstractmethod
    async def list(self, owner: str) -> list[SandboxRecord]:
        """Return the owner's sandboxes that have not been destroyed, oldest first."""

    @abstractmethod
    async def destroy(self, owner: str, sandbox_id: str) -> None:
        """End a sandbox; on return nothing of it is left on the node. A concurrent second call waits for the same end.

        Raises:
            NotFound: there is no such sandbox, or it has been destroyed before.
        """

    @abstractmethod
    async def start_process(self, owner: str, sandbox_id: str, spec: ProcessSpec) -> RunningProcess:
        """Start a command. A missing program is not an error here: it exits 127 with a sentence on stderr."""

    @abstractmethod
    async def start_python(self, owner: str, sandbox_id: str, code: str) -> RunningProcess:
        """Start `code` with the sandbox's python3, or with ours where the image has none.

        Raises:
            Unsupported: the image has no python3 and this node has no interpreter to lend.
        """

    async def execute(
        self, owner: str, sandbox_id: str, command: ProcessSpec | PythonSource, *, limit: int, key: str = ""
    ) -> Finished:
        """Run a command to its end, keeping at most `limit` bytes of each output channel.

        Without a key the command ends with its caller; with one, see `execute_once`.
        """
        if key:
            return await self.execute_once(owner, sandbox_id, command, key=key, limit=limit)
        if isinstance(command, PythonSource):
            process = await self.start_python(owner, sandbox_id, command.code)
        else:
            process = await self.start_process(owner, sandbox_id, command)
        async with process:
            return await gather(process.events(), limit=limit)

    @abstractmethod
    async def execute_once(
        self, owner: str, sandbox_id: str, command: ProcessSpec | PythonSource, *, key: str, limit: int
    ) -> Finished:
        """Run a command to its end, keeping at most `limit` bytes of each output channel; never twice for one `key`.

        A caller that goes away does not end the command. A call that repeats key and command within a day waits for
        the same end and is told the same, also when a server died between the two; output that the dead server had
        taken is then told as lost.

        Raises:
            Conflict: the owner used the key for something else.
            Uncertain: a server died, or the sandbox ended, before it was known whether and how the command ran.
        """

    @abstractmethod
    async def processes(self, owner: str, sandbox_id: str) -> Sequence[ProcessFacts]:
        """Return the processes the guest remembers: the sandbox's own command and those that surfaces started."""

    @abstractmethod
    async def collect(self, owner: str, sandbox_id: str, process_id: int) -> RunningProcess:
        """Return an uncertain process, with its output from the first byte that no server acknowledged. Once.

        Raises:
            NotFound: there is no such process, or nothing about it is uncertain.
        """

    @abstractmethod
    async def logs(self, owner: str, sandbox_id: str) -> Sequence[Output | Truncated]:
        """Return what is kept (256 KiB a channel) of the output of the sandbox's own command; may be asked again.

        Offsets tell what is no longer kept. When the command has ended, the last 32 KiB a channel stay as long as the
        sandbox is known, but for a server that began later.

        Raises:
            NotFound: the sandbox has no command of its own.
        """

    @abstractmethod
    async def files(self, owner: str, sandbox_id: str) -> Files:
        """Return the files of a running sandbox. Each use counts as activity."""

    @abstractmethod
    async def platform_info(self, owner: str, sandbox_id: str) -> dict[str, str]:
        """Return `system`, `node`, `release`, `version`, `machine`, `processor` as seen inside; needs no Python."""

    @abstractmethod
    async def metrics(self, owner: str, sandbox_id: str) -> Metrics:
        """Return a reading of what the sandbox uses now."""

    @abstractmethod
    async def pause(self, owner: str, sandbox_id: str) -> None:
        """Freeze every process of the sandbox. Pausing a paused sandbox does nothing."""

    @abstractmethod
    async def resume(self, owner: str, sandbox_id: str) -> None:
        """Continue a paused sandbox. Resuming a running one does nothing."""

    @abstractmethod
    async def snapshot(self, owner: str, sandbox_id: str) -> SnapshotRecord:
        """Pause the sandbox and save what its runtime can save; it stays paused until `resume`.

        Raises:
            Unsupported: the runtime cannot take snapshots.
        """
