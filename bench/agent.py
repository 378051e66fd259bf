"""The agent's own time: a process started and ended through the guest protocol, with no server between."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from bench.worker import answer_forever
from sandboxd.core.events import Exited
from sandboxd.core.spec import ProcessSpec
from sandboxd.guest.connection import connect
from sandboxd.guest.fifo import FifoChannel

if TYPE_CHECKING:
    from sandboxd.ports.guest import Guest

PATIENCE_S = 10.0
TRUE = ProcessSpec(argv=("/bin/true",))
TIMES = 20
MANY_TRUE = ProcessSpec(argv=("/bin/sh", "-c", f"i=0; while [ $i -lt {TIMES} ]; do /bin/true; i=$((i+1)); done"))


async def execute(guest: Guest, spec: ProcessSpec = TRUE) -> float:
    """Run a program to its end and forget it, as the server does; return the milliseconds until it had ended."""
    before = time.perf_counter_ns()
    process = await guest.start(spec)
    code = None
    async for event in process.events():
        if isinstance(event, Exited):
            code = event.code
    taken = (time.perf_counter_ns() - before) / 1e6
    await process.forget()
    if code != 0:
        raise RuntimeError(f"`{spec.argv[0]}` ended with {code}")
    return taken


async def execute_repeatedly(guest: Guest, count: int) -> float:
    """Do it several times, one after another; return the mean."""
    return sum([await execute(guest) for _ in range(count)]) / count


async def execute_within(guest: Guest) -> float:
    """Let a shell inside run `/bin/true` many times; return what one of them took: less is not to be had there."""
    return await execute(guest, MANY_TRUE) / TIMES


def main(to_guest: Path, from_guest: Path) -> None:
    """Answer until told no more."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        guest = runner.run(connect(FifoChannel(to_guest, from_guest), patience_s=PATIENCE_S))
        answer_forever(
            {
                "execute": lambda count=1: runner.run(execute_repeatedly(guest, count)),
                "within": lambda: runner.run(execute_within(guest)),
            }
        )
        runner.run(guest.close())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
