"""Short ways to ask a guest for things, for tests."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from sandboxd.core.events import Channel, Exited, Output, ProcessEvent, Started
from sandboxd.core.spec import ProcessSpec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from sandboxd.ports.guest import Guest, GuestProcess

MIB = 1024 * 1024


def sh(script: str, **more: Any) -> ProcessSpec:
    """Return a shell that runs the script."""
    return ProcessSpec(("/bin/sh", "-c", script), **more)


def events_of(process: GuestProcess) -> aclosing[AsyncGenerator[ProcessEvent, None]]:
    """Return the events as a context that closes them."""
    return aclosing(process.events())  # type: ignore[arg-type]


async def told(process: GuestProcess) -> list[ProcessEvent]:
    """Return all events."""
    return [event async for event in process.events()]


def text(events: list[ProcessEvent], channel: Channel = Channel.STDOUT) -> bytes:
    """Return the bytes of one channel."""
    return b"".join(event.data for event in events if isinstance(event, Output) and event.channel is channel)


async def run(guest: Guest, spec: ProcessSpec) -> tuple[bytes, bytes, Exited]:
    """Run a process to its end and forget it; return what it wrote and how it ended."""
    process = await guest.start(spec)
    events = await told(process)
    await process.forget()
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Exited)
    return text(events), text(events, Channel.STDERR), events[-1]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody announces."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def until_output(process: GuestProcess, ending: bytes) -> None:
    """Read stdout or stderr until it ends so, then leave the rest."""
    seen = b""
    async with events_of(process) as events:
        async for event in events:
            if isinstance(event, Output):
                seen += event.data
                if seen.endswith(ending):
                    return
