"""The nine calls of the service: each asks the engine once and renders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sandboxd.core.errors import Invalid
from sandboxd.core.spec import ProcessSpec, PythonSource, SandboxSpec
from sandboxd.surfaces.grpc import sandbox_pb2 as wire

if TYPE_CHECKING:
    from sandboxd.ports.engine import Engine
    from sandboxd.ports.surface import Bounds

SURFACE = "grpc"
OFFLINE = "offline"
MOST_REPLY_BYTES = 4 * 1024 * 1024
"""What clients receive unless they are told otherwise; a larger reply fails there after the command has run."""
_MOST_TEXT_BYTES = MOST_REPLY_BYTES - 64
"""What is left for text when tags, lengths and the exit code have taken theirs."""


class Calls:
    """The calls over one engine, for one owner. `key` is the caller's idempotency key, empty where it gave none."""

    def __init__(self, engine: Engine, bounds: Bounds, *, owner: str) -> None:
        self._engine = engine
        self._bounds = bounds
        self._owner = owner
        self._output_bytes = min(bounds.output_bytes, MOST_REPLY_BYTES)

    async def start_sandbox(self, request: wire.StartRequest, key: str) -> wire.StartResponse:
        """Make a sandbox; returns once it can run commands."""
        if not request.image:
            raise Invalid("`image` is missing", hint="name an imported image")
        limits = self._bounds.limits.adjusted(memory_mb=request.memory_mb, cpu_cores=request.cpu_cores)
        spec = SandboxSpec(
            runtime=request.type,
            image=request.image,
            command=tuple(request.command),
            limits=limits,
            network=OFFLINE,
            surface=SURFACE,
        )
        record = await self._engine.create(self._owner, spec, key=key)
        return wire.StartResponse(id=record.public_id)

    async def stop_sandbox(self, request: wire.StopRequest) -> wire.StopResponse:
        """Stop and remove a sandbox."""
        await self._engine.destroy(self._owner, request.id)
        return wire.StopResponse()

    async def exec_command(self, request: wire.ExecRequest, key: str) -> wire.ExecResponse:
        """Run argv and wait for its end; a command that fails is a success here, with its exit code."""
        command = ProcessSpec(argv=tuple(request.command))
        finished = await self._engine.execute(self._owner, request.id, command, limit=self._output_bytes, key=key)
        stdout, stderr = finished.texts(_MOST_TEXT_BYTES)
        return wire.ExecResponse(stdout=stdout, stderr=stderr, exit_code=finished.exit_code)

    async def get_status(self, request: wire.StatusRequest) -> wire.StatusResponse:
        """Say in which state a sandbox is."""
        record = await self._engine.get(self._owner, request.id)
        return wire.StatusResponse(id=record.public_id, status=record.state.value)

    async def get_metrics(self, request: wire.MetricsRequest) -> wire.MetricsResponse:
        """Measure a sandbox."""
        reading = await self._engine.metrics(self._owner, request.id)
        return wire.MetricsResponse(
            memory_usage_bytes=reading.memory_usage_bytes,
            memory_limit_bytes=reading.memory_limit_bytes,
            memory_percent=reading.memory_percent,
            cpu_percent=reading.cpu_percent,
            pids_current=reading.pids_current,
            net_rx_bytes=reading.net_rx_bytes,
            net_tx_bytes=reading.net_tx_bytes,
            block_read_bytes=reading.block_read_bytes,
            block_write_bytes=reading.block_write_bytes,
        )

    async def snapshot_sandbox(self, request: wire.SnapshotRequest) -> wire.SnapshotResponse:
        """Pause a sandbox and save it."""
        record = await self._engine.snapshot(self._owner, request.id)
        return wire.SnapshotResponse(snapshot_path=record.snapshot_path, mem_file_path=record.mem_file_path)

    async def resume_sandbox(self, request: wire.ResumeRequest) -> wire.ResumeResponse:
        """Let a paused sandbox go on; does nothing to a running one."""
        await self._engine.resume(self._owner, request.id)
        return wire.ResumeResponse()

    async def run_python(self, request: wire.RunPythonRequest, key: str) -> wire.RunPythonResponse:
        """Run source with the sandbox's python3: what it printed, or its stderr where it failed."""
        source = PythonSource(request.code)
        finished = await self._engine.execute(self._owner, request.id, source, limit=self._output_bytes, key=key)
        return wire.RunPythonResponse(result=finished.result(_MOST_TEXT_BYTES))

    async def get_platform_info(self, request: wire.GetPlatformInfoRequest) -> wire.GetPlatformInfoResponse:
        """Describe the platform as seen inside, as the text of a JSON object."""
        info = await self._engine.platform_info(self._owner, request.id)
        return wire.GetPlatformInfoResponse(info=msgspec.json.encode(info).decode())
