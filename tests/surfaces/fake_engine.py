"""An engine without sandboxes: records in memory, commands as plain processes of this machine."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.surfaces.fake_files import HostFiles

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Conflict, Invalid, NotFound, Unsupported
from sandboxd.core.events import Channel, Exited, Output, Started
from sandboxd.core.ids import new_internal_id, new_sandbox_id
from sandboxd.core.lifecycle import State, Verb, after
from sandboxd.core.records import Metrics, SandboxRecord, SnapshotRecord
from sandboxd.core.spec import ProcessSpec
from sandboxd.ports.engine import Engine, RunningProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from sandboxd.core.events import ProcessEvent, Truncated
    from sandboxd.core.output import Finished
    from sandboxd.core.spec import PythonSource, SandboxSpec, TerminalSize
    from sandboxd.ports.engine import ProcessFacts
    from sandboxd.ports.files import Files

AT_ONCE = {"/bin/true": 0, "/bin/false": 1}
"""Programs whose end is known without running them, so that what is around them can be measured."""
ABSENT = ("firecracker",)
PRESENT = ("gvisor", "container", "docker")


class FakeEngine(Engine):
    """Keeps the promises of the port that a surface can see."""

    def __init__(self, folder: Path) -> None:
        self.records: dict[tuple[str, str], SandboxRecord] = {}
        self.living: set[int] = set()
        self.creating = 0
        self.listed: list[ProcessFacts] = []
        """What every sandbox remembers; those that are uncertain can be collected."""
        self.logged: list[Output | Truncated] = []
        """What every sandbox's own command wrote."""
        self.asked_for_logs = 0
        self._folder = folder

    async def create(self, owner: str, spec: SandboxSpec, *, key: str = "") -> SandboxRecord:  # noqa: ARG002 - the port's signature
        if spec.runtime in ABSENT:
            raise Unsupported(f"runtime `{spec.runtime}` is not available here yet", hint="use `container`")
        if spec.runtime not in ("", "auto", *PRESENT):
            raise Invalid(f"unknown sandbox type `{spec.runtime}`", hint=f"this node offers: {', '.join(PRESENT)}")
        if spec.image.startswith("no-such"):
            raise Invalid(f"no image `{spec.image}`", hint="import it")
        if spec.mem_file_path and not spec.snapshot_path:
            raise Invalid("`mem_file_path` is set without `snapshot_path`")
        if spec.snapshot_path and spec.snapshot_path != str(self._folder / "state"):
            raise Invalid(f"there is no snapshot `{spec.snapshot_path}`")
        await self._be_born(spec)
        ended = spec.command == ("true",)
        record = SandboxRecord(
            internal_id=new_internal_id(),
            public_id=new_sandbox_id("aa"),
            owner=owner,
            node="fake",
            state=State.STOPPED if ended else State.RUNNING,
            spec=spec,
            runtime=spec.runtime if spec.runtime in PRESENT else "container",
            flavour="fake",
            image_digest="sha256:" + "0" * 64,
            cause=Cause.EXITED if ended else None,
            reason="its command ended with code 0" if ended else "",
            exit_code=0 if ended else None,
            created_at=time.time(),
        )
        self.records[owner, record.public_id] = record
        return record

    async def _be_born(self, spec: SandboxSpec) -> None:
        if spec.image == "slow":
            self.creating += 1
            try:
                await asyncio.sleep(3600)
            finally:
                self.creating -= 1

    async def get(self, owner: str, sandbox_id: str) -> SandboxRecord:
        record = self.records.get((owner, sandbox_id))
        if record is None:
            raise NotFound(f"sandbox {sandbox_id} not found")
        return record

    async def list(self, owner: str) -> list[SandboxRecord]:
        return [record for (of, _), record in self.records.items() if of == owner]

    async def destroy(self, owner: str, sandbox_id: str) -> None:
        await self.get(owner, sandbox_id)
        del self.records[owner, sandbox_id]

    async def start_process(self, owner: str, sandbox_id: str, spec: ProcessSpec) -> RunningProcess:
        await self._act(owner, sandbox_id, Verb.EXECUTE)
        return HostProcess(spec, self.living)

    async def start_python(self, owner: str, sandbox_id: str, code: str) -> RunningProcess:
        await self._act(owner, sandbox_id, Verb.EXECUTE)
        return HostProcess(ProcessSpec((sys.executable, "-c", code)), self.living)

    async def execute_once(
        self,
        owner: str,
        sandbox_id: str,
        command: ProcessSpec | PythonSource,
        *,
        key: str,  # noqa: ARG002 - the port's signature
        limit: int,
    ) -> Finished:
        return await self.execute(owner, sandbox_id, command, limit=limit)

    async def processes(self, owner: str, sandbox_id: str) -> Sequence[ProcessFacts]:
        await self._act(owner, sandbox_id, Verb.MEASURE)
        return self.listed

    async def collect(self, owner: str, sandbox_id: str, process_id: int) -> RunningProcess:
        await self._act(owner, sandbox_id, Verb.EXECUTE)
        for facts in self.listed:
            if facts.process_id == process_id and facts.is_uncertain:
                return HostProcess(ProcessSpec(("echo", "collected")), self.living)
        raise NotFound(f"there is no uncertain process {process_id} in this sandbox")

    async def logs(self, owner: str, sandbox_id: str) -> Sequence[Output | Truncated]:
        record = await self._act(owner, sandbox_id, Verb.EXECUTE)
        if not record.spec.command:
            raise NotFound("the sandbox has no command of its own")
        self.asked_for_logs += 1
        return self.logged

    async def files(self, owner: str, sandbox_id: str) -> Files:
        await self._act(owner, sandbox_id, Verb.USE_FILES)
        folder = self._folder / sandbox_id
        folder.mkdir(exist_ok=True)
        return HostFiles(folder)

    async def platform_info(self, owner: str, sandbox_id: str) -> dict[str, str]:
        await self._act(owner, sandbox_id, Verb.EXECUTE)
        return dict(platform.uname()._asdict()) | {"processor": platform.machine()}

    async def metrics(self, owner: str, sandbox_id: str) -> Metrics:
        record = await self._act(owner, sandbox_id, Verb.MEASURE)
        return Metrics(memory_usage_bytes=1 << 20, memory_limit_bytes=record.spec.limits.memory_bytes, pids_current=1)

    async def pause(self, owner: str, sandbox_id: str) -> None:
        await self._act(owner, sandbox_id, Verb.PAUSE)

    async def resume(self, owner: str, sandbox_id: str) -> None:
        await self._act(owner, sandbox_id, Verb.RESUME)

    async def snapshot(self, owner: str, sandbox_id: str) -> SnapshotRecord:
        record = await self._act(owner, sandbox_id, Verb.SNAPSHOT)
        state, memory = self._folder / "state", self._folder / "memory.json"
        for part in (state, memory):
            part.write_text("{}")
        return SnapshotRecord(
            snapshot_id="snap-1",
            sandbox_internal_id=record.internal_id,
            owner=owner,
            runtime=record.runtime,
            image_digest=record.image_digest,
            snapshot_path=str(state),
            mem_file_path=str(memory),
            memory_captured=False,
            size_bytes=4,
            created_at=time.time(),
        )

    async def _act(self, owner: str, sandbox_id: str, verb: Verb) -> SandboxRecord:
        record = await self.get(owner, sandbox_id)
        try:
            state = after(record.state, verb)
        except Conflict as conflict:
            if record.cause is None:
                raise
            raise Conflict(f"{conflict.message} (cause: {record.cause}: {record.reason})") from conflict
        self.records[owner, sandbox_id] = record = replace(record, state=state)
        return record


class HostProcess(RunningProcess):
    """A plain process of this machine, in a group of its own."""

    process_id = 7

    def __init__(self, spec: ProcessSpec, living: set[int]) -> None:
        self._argv = spec.argv
        self._has_stdin = spec.stdin
        self._started = asyncio.Event()
        self._living = living
        self._process: asyncio.subprocess.Process | None = None
        self._output: asyncio.Queue[tuple[Channel, bytes]] = asyncio.Queue(maxsize=16)

    async def events(self) -> AsyncIterator[ProcessEvent]:
        yield Started(7)
        if self._argv[0] in AT_ONCE:
            yield Exited(AT_ONCE[self._argv[0]], 0, Cause.EXITED)
            return
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.PIPE if self._has_stdin else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError:
            yield Output(Channel.STDERR, f"{self._argv[0]}: not found\n".encode(), 0)
            yield Exited(127, 0, Cause.EXITED)
            return
        self._living.add(self._process.pid)
        self._started.set()
        async for event in self._read(self._process):
            yield event
        code = await self._process.wait()
        self._living.discard(self._process.pid)
        yield Exited(code if code >= 0 else 128 - code, max(-code, 0), Cause.EXITED)

    async def _read(self, process: asyncio.subprocess.Process) -> AsyncIterator[ProcessEvent]:
        async def pump(channel: Channel, pipe: asyncio.StreamReader | None) -> None:
            assert pipe is not None
            while data := await pipe.read(65536):
                await self._output.put((channel, data))
            await self._output.put((channel, b""))

        async with asyncio.TaskGroup() as group:
            group.create_task(pump(Channel.STDOUT, process.stdout))
            group.create_task(pump(Channel.STDERR, process.stderr))
            offsets = {Channel.STDOUT: 0, Channel.STDERR: 0}
            while offsets:
                channel, data = await self._output.get()
                if not data:
                    del offsets[channel]
                    continue
                yield Output(channel, data, offsets[channel])
                offsets[channel] += len(data)

    async def write_stdin(self, data: bytes) -> None:
        await self._started.wait()
        pipe = None if self._process is None else self._process.stdin
        if pipe is None or pipe.is_closing():
            raise Conflict("stdin is closed")
        try:
            pipe.write(data)
            await pipe.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Conflict("stdin was closed") from error

    async def close_stdin(self) -> None:
        await self._started.wait()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    async def signal(self, number: int, *, descendants: bool = False) -> None:  # noqa: ARG002 - the port's signature
        await self._started.wait()
        if self._process is not None:
            os.killpg(self._process.pid, number)

    async def resize(self, size: TerminalSize) -> None:  # noqa: ARG002 - the port's signature
        raise Conflict("there is no terminal")

    async def __aenter__(self) -> RunningProcess:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._living.discard(self._process.pid)
        await self._process.wait()
