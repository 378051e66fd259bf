"""The inside of an instance, for callers that need not know when the daemon was away."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

from sandboxd.core.errors import Lost
from sandboxd.core.events import Channel, Output, Started, Truncated
from sandboxd.ports.guest import Guest, GuestProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sandboxd.core.events import Exited, ProcessEvent
    from sandboxd.core.spec import ProcessSpec, TerminalSize
    from sandboxd.guest.agent import AgentGuest
    from sandboxd.ports.files import FileStatus
    from sandboxd.ports.guest import GuestConnection, ProcessStatus
    from sandboxd.runtimes.docker.line import Line

T = TypeVar("T")


class DockerGuest(Guest):
    """Every method also raises Unavailable while there is no daemon, and Uncertain when it went away meanwhile."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def start(self, spec: ProcessSpec) -> GuestProcess:
        async def start(guest: AgentGuest) -> DockerProcess:
            return DockerProcess(self._line, guest, await guest.start(spec), offset=0)

        return await self._ask(start)

    async def processes(self) -> list[ProcessStatus]:
        return await self._ask(lambda guest: guest.processes())

    async def attach(self, process_id: int) -> GuestProcess:
        async def attach(guest: AgentGuest) -> DockerProcess:
            return DockerProcess(self._line, guest, await guest.attach(process_id), offset=None)

        return await self._ask(attach)

    async def read_file(
        self, path: str, *, root: str = "/", offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        async for piece in self._each(lambda guest: guest.read_file(path, root=root, offset=offset, length=length)):
            yield piece

    async def write_file(
        self,
        path: str,
        data: bytes | AsyncIterator[bytes],
        *,
        root: str = "/",
        mode: int | None = None,
        parents: bool = False,
    ) -> None:
        await self._ask(lambda guest: guest.write_file(path, data, root=root, mode=mode, parents=parents))

    async def list_directory(self, path: str, *, root: str = "/") -> AsyncIterator[FileStatus]:
        async for status in self._each(lambda guest: guest.list_directory(path, root=root)):
            yield status

    async def status(self, path: str, *, root: str = "/", follow: bool = True) -> FileStatus:
        return await self._ask(lambda guest: guest.status(path, root=root, follow=follow))

    async def make_directory(self, path: str, *, root: str = "/", mode: int = 0o755, parents: bool = False) -> None:
        await self._ask(lambda guest: guest.make_directory(path, root=root, mode=mode, parents=parents))

    async def move(self, source: str, target: str, *, root: str = "/") -> None:
        await self._ask(lambda guest: guest.move(source, target, root=root))

    async def remove(self, path: str, *, root: str = "/", recursive: bool = False) -> None:
        await self._ask(lambda guest: guest.remove(path, root=root, recursive=recursive))

    async def connect(self, port: int) -> GuestConnection:
        return await self._ask(lambda guest: guest.connect(port))

    async def platform(self) -> dict[str, str]:
        return await self._ask(lambda guest: guest.platform())

    async def count_processes(self) -> int:
        """Return how many processes there are, as the guest's own kernel shows them."""
        return sum([status.name.isdigit() async for status in self.list_directory("/proc")])

    async def close(self) -> None:
        await self._line.close()

    async def _ask(self, question: Callable[[AgentGuest], Awaitable[T]]) -> T:
        guest = await self._line.guest()
        try:
            return await question(guest)
        except Lost as error:
            raise await self._line.explained(guest, error) from error

    async def _each(self, question: Callable[[AgentGuest], AsyncIterator[T]]) -> AsyncIterator[T]:
        guest = await self._line.guest()
        try:
            async for item in question(guest):
                yield item
        except Lost as error:
            raise await self._line.explained(guest, error) from error


class DockerProcess(GuestProcess):
    """A process whose events go on where they stopped when the daemon was away. `offset` is that of its first byte."""

    def __init__(self, line: Line, guest: AgentGuest, process: GuestProcess, *, offset: int | None) -> None:
        self.process_id = process.process_id
        self.pid = process.pid
        self._line = line
        self._guest = guest
        self._process = process
        self._expected: dict[Channel, int | None] = {Channel.STDOUT: offset, Channel.STDERR: offset}

    async def wait(self) -> Exited:
        while True:
            try:
                return await self._process.wait()
            except Lost as error:
                await self._follow(error)

    async def events(self) -> AsyncIterator[ProcessEvent]:
        has_started = False
        while True:
            try:
                async with aclosing(self._process.events()) as events:  # type: ignore[type-var]
                    async for event in events:
                        if not isinstance(event, Started):
                            for fresh in self._fresh(event):
                                yield fresh
                        elif not has_started:
                            has_started = True
                            yield event
            except Lost as error:
                await self._follow(error)
            else:
                return

    def _fresh(self, event: ProcessEvent) -> list[ProcessEvent]:
        """Return what of an event has not been told before; what was lost in between is told as such."""
        if isinstance(event, Truncated):
            self._expected[event.channel] = None  # the next bytes say where they lie
        if not isinstance(event, Output):
            return [event]
        expected = self._expected[event.channel]
        end = event.offset + len(event.data)
        if expected is None or event.offset == expected:
            self._expected[event.channel] = end
            return [event]
        if end <= expected:
            return []
        self._expected[event.channel] = end
        if event.offset > expected:
            return [Truncated(event.channel, event.offset - expected), event]
        return [Output(event.channel, event.data[expected - event.offset :], expected)]

    async def peek(self) -> list[Output | Truncated]:
        return await self._ask(lambda process: process.peek())

    async def detach(self) -> None:
        await self._ask(lambda process: process.detach())

    async def write_stdin(self, data: bytes) -> None:
        await self._ask(lambda process: process.write_stdin(data))

    async def close_stdin(self) -> None:
        await self._ask(lambda process: process.close_stdin())

    async def signal(self, number: int, *, descendants: bool = False) -> None:
        await self._ask(lambda process: process.signal(number, descendants=descendants))

    async def resize(self, size: TerminalSize) -> None:
        await self._ask(lambda process: process.resize(size))

    async def forget(self) -> None:
        await self._ask(lambda process: process.forget())

    async def _ask(self, question: Callable[[GuestProcess], Awaitable[T]]) -> T:
        if self._line.is_cut_off(self._guest):
            await self._belong_to(await self._line.guest())
        try:
            return await question(self._process)
        except Lost as error:
            raise await self._line.explained(self._guest, error) from error

    async def _follow(self, error: Lost) -> None:
        """Go on with the guest that is entered next. Raises `error` where nothing was cut, Lost when it is dead."""
        if not self._line.is_cut_off(self._guest):
            raise error
        await self._belong_to(await self._line.taken_up())

    async def _belong_to(self, guest: AgentGuest) -> None:
        if guest is not self._guest:
            process = await guest.attach(self.process_id)
            process.skip_to(*(self._expected[channel] or 0 for channel in (Channel.STDOUT, Channel.STDERR)))
            self._process, self._guest = process, guest
