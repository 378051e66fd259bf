"""The engine in a process of its own, and how fast what is written in a sandbox comes out of its port."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from bench.serving import CPU_CORES, IMAGE, MEMORY_MB, settings
from bench.worker import answer_in_loop
from sandboxd.core.events import Channel, Exited, Output
from sandboxd.core.spec import MIB, Limits, ProcessSpec, SandboxSpec
from sandboxd.server import logs
from sandboxd.server.loading import load
from sandboxd.server.wiring import open_engine

if TYPE_CHECKING:
    from sandboxd.ports.engine import Engine

OWNER = "bench"
SIZE_MIB = 64
WRITE = f"dd if=/dev/zero bs=64k count={SIZE_MIB * 16} status=none"
WITHIN = f"{WRITE} | cat >/dev/null"


class Streams:
    """An engine, and one sandbox of it."""

    def __init__(self, engine: Engine, sandbox: str) -> None:
        self._engine = engine
        self._sandbox = sandbox

    async def out(self) -> float:
        """Have bytes written to stdout and take them from the engine; return the milliseconds until the last of all."""
        return await self._run(tuple(WRITE.split()), SIZE_MIB * MIB)

    async def within(self) -> float:
        """Have them written into a pipe between two processes inside: what the way to the agent costs by itself."""
        return await self._run(("/bin/sh", "-c", WITHIN), 0)

    async def _run(self, argv: tuple[str, ...], expected: int) -> float:
        before = time.perf_counter_ns()
        came = 0
        async with await self._engine.start_process(OWNER, self._sandbox, ProcessSpec(argv=argv)) as process:
            async for event in process.events():
                match event:
                    case Output(Channel.STDOUT, data):
                        came += len(data)
                    case Exited(code) if code != 0:
                        raise RuntimeError(f"`{' '.join(argv)}` ended with {code}")
        if came != expected:
            raise RuntimeError(f"{came} bytes came of {expected}")
        return (time.perf_counter_ns() - before) / 1e6


async def serve(state: Path, runtime: str, flavour: str) -> None:
    """Answer until told no more, then leave nothing behind."""
    overrides = [("state", str(state)), ("log.level", "error"), *settings({runtime: flavour})]
    settled = load(environment={}, overrides=overrides)
    logs.configure(settled.log)  # whose words would else be taken for answers
    limits = Limits(memory_bytes=MEMORY_MB * MIB, cpus=CPU_CORES)
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_engine(settled))
        stack.push_async_callback(engine.destroy_all, "the measuring is over")
        sandbox = await engine.create(OWNER, SandboxSpec(runtime=runtime, image=IMAGE, limits=limits))
        streams = Streams(engine, sandbox.public_id)
        await answer_in_loop({"out": streams.out, "within": streams.within})


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1]), *sys.argv[2:]))
