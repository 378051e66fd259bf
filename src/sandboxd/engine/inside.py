"""The inside of one sandbox while its guest can be reached: what is started there, and what an earlier server left."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from sandboxd.core.errors import Bug, Conflict, Invalid, NotFound, Unsupported
from sandboxd.core.events import Channel, Output
from sandboxd.core.spec import ProcessSpec, PythonSource
from sandboxd.engine.processes import CallersProcess
from sandboxd.ports.engine import ProcessFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sandboxd.core.events import Exited, Truncated
    from sandboxd.core.spec import SandboxSpec
    from sandboxd.engine.policy import Policy
    from sandboxd.ports.files import Files
    from sandboxd.ports.guest import Guest, GuestProcess
    from sandboxd.ports.images import Rootfs
    from sandboxd.ports.runtime import Instance

MAIN_PROCESS = 1
"""The id of a sandbox's own command: always the first process started in it."""
LAST_OUTPUT_BYTES = 32 * 1024
"""How much of each output channel of a sandbox's own command is kept when it has ended."""
LONGEST_ARGUMENT = 120_000
"""Bytes that one argument may take; the kernel refuses 131,072."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

FAREWELL_S = 1.0
"""How long one guest that does not answer may hold up the sweep of other sandboxes."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Uncertain:
    """A process whose server died: since when we know of it, and how many bytes of each channel that server took."""

    since: float
    missed: tuple[int, int]


class Inside:
    """Starts, finds and counts the processes of one guest. `touch` is called for what counts as activity."""

    def __init__(
        self,
        instance: Instance,
        guest: Guest,
        spec: SandboxSpec,
        rootfs: Rootfs,
        policy: Policy,
        *,
        touch: Callable[[], None],
    ) -> None:
        self.busy_processes = 0
        self._instance = instance
        self._guest = guest
        self._spec = spec
        self._rootfs = rootfs
        self._policy = policy
        self._touch = touch
        self._uncertain: dict[int, Uncertain] = {}
        self._peeking = asyncio.Lock()

    async def start_command(self) -> None:
        """Start the sandbox's own command, the first process of all; nothing where it has none."""
        spec, config, guest = self._spec, self._rootfs.config, self._guest
        directory = spec.cwd or config.cwd
        if directory:
            await guest.make_directory(directory, parents=True)
        argv = ((*config.entrypoint, *spec.command) if spec.entrypoint else spec.command) if spec.command else ()
        if not argv:
            return
        process = await guest.start(self._in_image(ProcessSpec(argv=argv, attached=False)))
        if process.process_id != MAIN_PROCESS:
            raise Bug(f"the sandbox's own command has the process id {process.process_id}")
        if not process.pid:
            raise Invalid(f"the command `{argv[0]}` cannot be run in image `{spec.image}`", hint="check its path")

    async def wait_command(self) -> Exited | None:
        """Return once the sandbox's own command has ended; at once where it has none."""
        if not self._spec.command:
            return None
        return await (await self._guest.attach(MAIN_PROCESS)).wait()

    async def take_back(self) -> None:
        """Find the processes whose callers were cut off with their server: they run on, and may be collected."""
        now = time.time()
        for status in await self._guest.processes():
            if self._is_command(status.process_id):
                continue
            if status.attached:
                await (await self._guest.attach(status.process_id)).detach()
            self._uncertain[status.process_id] = Uncertain(now, status.acknowledged)
            _log.warning("the outcome of a command is uncertain: its server died", process=status.process_id)

    async def start(self, command: ProcessSpec | PythonSource) -> CallersProcess:
        """Start a command in the image's environment; it ends with its caller."""
        if isinstance(command, PythonSource):
            return await self._start_python(command.code)
        oom_kills_before = self._instance.oom_kills()
        process = await self._guest.start(self._in_image(command))
        return self._callers(process, oom_kills_before)

    async def collect(self, process_id: int, *, pid: int | None = None) -> CallersProcess:
        """Return an uncertain process, which then ends with its caller. Once.

        Raises:
            NotFound: nothing is uncertain about it, or it is not the one that had this `pid`.
        """
        process = await self._guest.attach(process_id) if process_id in self._uncertain else None
        if process is None or pid not in (None, process.pid) or process_id not in self._uncertain:
            raise NotFound(f"there is no uncertain process {process_id} in this sandbox")
        missed = self._uncertain.pop(process_id).missed
        return self._callers(process, self._instance.oom_kills(), missed)

    async def has_work(self) -> bool:
        """Say whether an uncertain process still runs: its caller may come for it. A silent guest has none."""
        if not self._uncertain:
            return False
        try:
            async with asyncio.timeout(FAREWELL_S):
                listed = await self._guest.processes()
        except TimeoutError:
            return False
        return any(status.code is None and status.process_id in self._uncertain for status in listed)

    async def forget_uncertain(self, before: float) -> None:
        """End and forget the uncertain processes that nobody has collected since `before`."""
        overdue = [process_id for process_id, left in self._uncertain.items() if left.since < before]
        for process_id in overdue:
            process = await self._guest.attach(process_id)
            del self._uncertain[process_id]
            _log.warning("nobody asked how a command ended: it is forgotten", process=process_id)
            try:
                async with asyncio.timeout(FAREWELL_S):
                    await process.signal(signal.SIGKILL, descendants=True)
            finally:
                await process.forget()

    async def processes(self) -> list[ProcessFacts]:
        """Return the processes the guest remembers."""
        return [
            ProcessFacts(
                process_id=status.process_id,
                pid=status.pid,
                code=status.code,
                signal=status.signal,
                is_command=self._is_command(status.process_id),
                is_uncertain=status.process_id in self._uncertain,
            )
            for status in await self._guest.processes()
        ]

    async def logs(self) -> Sequence[Output | Truncated]:
        """Return what is kept of the output of the sandbox's own command."""
        if not self._spec.command:
            raise NotFound("the sandbox has no command of its own", hint="what `exec` starts tells its own caller")
        async with self._peeking:
            return await (await self._guest.attach(MAIN_PROCESS)).peek()

    async def last_output(self) -> Sequence[Output | Truncated]:
        """Return the end of that output, short enough to be kept when the guest is gone."""
        room = dict.fromkeys((Channel.STDOUT, Channel.STDERR), LAST_OUTPUT_BYTES)
        kept: list[Output | Truncated] = []
        for event in reversed(await self.logs()):
            if isinstance(event, Output) and room[event.channel]:
                data = event.data[-room[event.channel] :]
                room[event.channel] -= len(data)
                kept.append(Output(event.channel, data, event.offset + len(event.data) - len(data)))
        return kept[::-1]

    async def platform(self) -> dict[str, str]:
        """Return uname as seen inside, and an empty `processor`, as Python's platform module has it on Linux."""
        return {**await self._guest.platform(), "processor": ""}

    def files(self) -> Files:
        """Return the files."""
        return self._guest

    async def close(self) -> None:
        """Let go of the guest, leaving everything inside as it is."""
        await self._guest.close()

    def _callers(
        self, process: GuestProcess, oom_kills_before: int, missed: tuple[int, int] = (0, 0)
    ) -> CallersProcess:
        self.busy_processes += 1
        oom_kills = self._instance.oom_kills
        return CallersProcess(process, oom_kills, oom_kills_before, left=self._left, missed=missed)

    def _left(self) -> None:
        self.busy_processes -= 1
        self._touch()

    def _is_command(self, process_id: int) -> bool:
        return process_id == MAIN_PROCESS and bool(self._spec.command)

    async def _start_python(self, code: str) -> CallersProcess:
        """Start python3 on `code`, given on stdin where it is too long for one argument."""
        python = self._rootfs.python
        if not python:
            raise Unsupported(
                f"image `{self._spec.image}` has no python3 and this node has no interpreter to lend",
                hint="use an image with python3, or run `./dev images` on the node",
            )
        if len(code.encode(errors="surrogateescape")) < LONGEST_ARGUMENT:
            return await self.start(ProcessSpec(argv=(*python, "-c", code)))
        process = await self.start(ProcessSpec(argv=(*python, "-"), stdin=True))
        try:
            await process.write_stdin(code.encode(errors="surrogateescape"))
            await process.close_stdin()
        except Conflict:
            return process  # it ended before reading all: its own words say why
        except BaseException:
            await process.__aexit__()
            raise
        return process

    def _in_image(self, spec: ProcessSpec) -> ProcessSpec:
        config, sandbox = self._rootfs.config, self._spec
        env = {"PATH": DEFAULT_PATH, **dict(config.env), **dict(sandbox.env), **dict(spec.env)}
        return replace(
            spec,
            env=tuple(env.items()),
            cwd=spec.cwd or sandbox.cwd or config.cwd,
            user=spec.user or sandbox.user or config.user,
            deadline_s=self._policy.execution_deadline_s(spec.deadline_s) if spec.attached else spec.deadline_s,
        )
