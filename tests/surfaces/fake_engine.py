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

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Conflict, Invalid, NotFound, Unsupported
from sandboxd.core.events import Channel, Exited, Output, Started
from sandboxd.core.ids import new_internal_id, new_sandbox_id
from sandboxd.core.lifecycle import State, Verb, after
from sandboxd.core.records import Metrics, SandboxRecord, SnapshotRecord
from sandboxd.ports.engine import Engine, RunningProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sandboxd.core.events import ProcessEvent
    from sandboxd.core.spec import ProcessSpec, SandboxSpec, TerminalSize

AT_ONCE = {"/bin/true": 0, "/bin/false": 1}
"""Programs whose end is known without running them, so that what is around them can be measured."""
ABSENT = ("docker", "firecracker")
PRESENT = ("gvisor", "container")


class FakeEngine(Engine):
    """Keeps the promises of the port that a surface can see."""

    def __init__(self, folder: Path) -> None:
        self.records: dict[tuple[str, str], SandboxRecord] = {}
        self.processes: set[int] = set()
        self.creating = 0
        self._folder = folder

    async def create(self, owner: str, spec: SandboxSpec) -> SandboxRecord:
        if spec.runtime in ABSENT:
            raise Unsupported(f"runtime `{spec.runtime}` is not available here yet", hint="use `container`")
        if spec.runtime not in ("", "auto", *PRESENT):
            raise Invalid(f"unknown sandbox type `{spec.runtime}`", hint=f"this node offers: {', '.join(PRESENT)}")
        if spec.image.startswith("no-such"):
            raise Invalid(f"no image `{spec.image}`", hint="import it")
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
        return HostProcess(spec.argv, self.processes)

    async def start_python(self, owner: str, sandbox_id: str, code: str) -> RunningProcess:
        await self._act(owner, sandbox_id, Verb.EXECUTE)
        return HostProcess((sys.executable, "-c", code), self.processes)

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

    def __init__(self, argv: tuple[str, ...], living: set[int]) -> None:
        self._argv = argv
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
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError:
            yield Output(Channel.STDERR, f"{self._argv[0]}: not found\n".encode(), 0)
            yield Exited(127, 0, Cause.EXITED)
            return
        self._living.add(self._process.pid)
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

    async def write_stdin(self, data: bytes) -> None:  # noqa: ARG002 - the port's signature
        raise Conflict("stdin is closed")

    async def close_stdin(self) -> None:
        return

    async def signal(self, number: int, *, descendants: bool = False) -> None:
        raise NotImplementedError

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
