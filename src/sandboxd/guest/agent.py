"""The inside of a sandbox through its agent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sandboxd.core.errors import Invalid, Lost, NotFound
from sandboxd.guest import files
from sandboxd.guest.errors import printable
from sandboxd.guest.fields import ProtocolError
from sandboxd.guest.files import encode_text
from sandboxd.guest.flow import WINDOW
from sandboxd.guest.frames import (
    LIMIT_RING,
    START_FLAG_STDIN,
    START_FLAG_TERMINAL,
    Connect,
    Platform,
    Process,
    Start,
    Uname,
)
from sandboxd.guest.process import AgentProcess
from sandboxd.guest.transfer import Connection
from sandboxd.ports.guest import Guest, GuestConnection, GuestProcess, ProcessStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandboxd.core.spec import ProcessSpec, ResourceLimit
    from sandboxd.guest.link import Link
    from sandboxd.ports.files import FileStatus

LONGEST_DEADLINE_S = 1e12
LARGEST_PORT = 65535
LARGEST_SIDE = 65535
LARGEST_RESOURCE = 255
UINT64 = 2**64


class AgentGuest(Guest):
    """One guest; made by `connect`. `boot` stays the same while its agent lives, whoever connects."""

    def __init__(self, link: Link, boot: bytes) -> None:
        self.boot = boot
        self._link = link

    def lose(self, error: Lost) -> None:
        """The instance died: what its agent had sent is taken in, then all that waits fails with this error."""
        self._link.lose(error)

    def hear_out(self) -> None:
        """Take in at once all that the agent, which stands still, has said; nothing of it is on its way then."""
        self._link.hear_out()

    def nudge(self) -> None:
        """Make the agent look for what it was sent, should that have come to it without its notice."""
        self._link.nudge()

    async def recall(self) -> None:
        """Learn of the processes that a former host started."""
        self._link.on_listed = self._remember
        await self._link.list_processes()
        self._link.on_listed = None

    def _remember(self, process_id: int, listed: Process) -> None:
        if process_id in self._link.records:
            raise ProtocolError(f"a process was listed with the id {process_id}, which is a request's")
        process = AgentProcess(self._link, process_id)
        process.remember(listed)
        self._link.records[process_id] = process
        self._link.use_process_ids_above(process_id)

    async def start(self, spec: ProcessSpec) -> GuestProcess:
        request = _start_request(spec)
        async with self._link.patience(f"cannot start `{spec.argv[0]}`"):
            await self._link.room()
            process = AgentProcess(self._link, self._link.new_process_id())
            await process.begin(request, spec.argv[0])
            return process

    async def processes(self) -> list[ProcessStatus]:
        listed = await self._link.list_processes()
        known = self._link.records
        return [
            process.status(entry)
            for process_id, entry in listed.items()
            if isinstance(process := known.get(process_id), AgentProcess)
        ]

    async def attach(self, process_id: int) -> AgentProcess:
        self._link.check()
        process = self._link.records.get(process_id)
        if not isinstance(process, AgentProcess):
            raise NotFound(f"the guest remembers no process {process_id}")
        return process

    def read_file(
        self, path: str, *, root: str = "/", offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        return files.read_file(self._link, path, root, offset, length)

    async def write_file(
        self,
        path: str,
        data: bytes | AsyncIterator[bytes],
        *,
        root: str = "/",
        mode: int | None = None,
        parents: bool = False,
    ) -> None:
        await files.write_file(self._link, path, data, root, mode, parents=parents)

    def list_directory(self, path: str, *, root: str = "/") -> AsyncIterator[FileStatus]:
        return files.list_directory(self._link, path, root)

    async def status(self, path: str, *, root: str = "/", follow: bool = True) -> FileStatus:
        return await files.status(self._link, path, root, follow=follow)

    async def make_directory(self, path: str, *, root: str = "/", mode: int = 0o755, parents: bool = False) -> None:
        await files.make_directory(self._link, path, root, mode, parents=parents)

    async def move(self, source: str, target: str, *, root: str = "/") -> None:
        await files.move(self._link, source, target, root)

    async def remove(self, path: str, *, root: str = "/", recursive: bool = False) -> None:
        await files.remove(self._link, path, root, recursive=recursive)

    async def connect(self, port: int) -> GuestConnection:
        if not 0 < port <= LARGEST_PORT:
            raise Invalid(f"a port of {port} is not between 1 and {LARGEST_PORT}")
        connection = Connection(self._link, port)
        try:
            await connection.begin(Connect(WINDOW, port))
        except BaseException:
            connection.give_up()
            raise
        return connection

    async def platform(self) -> dict[str, str]:
        answer = await self._link.ask(Uname(), Platform, "cannot ask for the platform")
        return {
            "system": printable(answer.system),
            "node": printable(answer.node),
            "release": printable(answer.release),
            "version": printable(answer.version),
            "machine": printable(answer.machine),
        }

    async def close(self) -> None:
        self._link.close()


def _start_request(spec: ProcessSpec) -> Start:
    terminal = spec.terminal
    if terminal is not None and not (0 <= terminal.rows <= LARGEST_SIDE and 0 <= terminal.columns <= LARGEST_SIDE):
        raise Invalid(f"a terminal of {terminal.rows} by {terminal.columns} is not within 0 to {LARGEST_SIDE}")
    flags = (START_FLAG_STDIN if spec.stdin else 0) | (START_FLAG_TERMINAL if terminal else 0)
    deadline_s = min(spec.deadline_s or 0, LONGEST_DEADLINE_S)
    return Start(
        flags=flags,
        window=WINDOW if spec.attached else 0,
        deadline_ms=math.ceil(deadline_s * 1000),
        ring=LIMIT_RING,
        rows=terminal.rows if terminal else 0,
        columns=terminal.columns if terminal else 0,
        user=encode_text(spec.user, "the user"),
        cwd=encode_text(spec.cwd, "the working directory"),
        argv=tuple(encode_text(argument, "the command") for argument in spec.argv),
        env=tuple(encode_text(f"{key}={value}", "the environment") for key, value in spec.env),
        rlimits=tuple(_rlimit(limit) for limit in spec.rlimits),
    )


def _rlimit(limit: ResourceLimit) -> tuple[int, int, int]:
    """Return a limit as the kernel has it, where -1 is none."""
    if not 0 <= limit.resource <= LARGEST_RESOURCE:
        raise Invalid(f"there is no resource limit {limit.resource}")
    for value in (limit.soft, limit.hard):
        if not -1 <= value < UINT64:
            raise Invalid(f"a resource limit of {value} is not between -1 and {UINT64 - 1}")
    return limit.resource, limit.soft % UINT64, limit.hard % UINT64
