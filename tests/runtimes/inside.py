"""Commands in a guest, run to their end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxd.core.events import Channel, Exited, Output
from sandboxd.core.spec import ProcessSpec

if TYPE_CHECKING:
    from sandboxd.ports.guest import Guest
    from sandboxd.ports.runtime import Instance


@dataclass(frozen=True)
class Ended:
    """What a command left: its code and both outputs."""

    code: int
    output: str
    errors: str


async def run(guest: Guest, *argv: str, user: str = "") -> Ended:
    """Run a program to its end."""
    process = await guest.start(ProcessSpec(argv, user=user, env=(("PATH", "/bin"),)))
    outputs = {Channel.STDOUT: b"", Channel.STDERR: b""}
    code = -1
    async for event in process.events():
        if isinstance(event, Output):
            outputs[event.channel] += event.data
        elif isinstance(event, Exited):
            code = event.code
    await process.forget()
    return Ended(code, outputs[Channel.STDOUT].decode().strip(), outputs[Channel.STDERR].decode().strip())


async def shell(guest: Guest, script: str, *, user: str = "") -> Ended:
    """Run a script with the image's shell."""
    return await run(guest, "/bin/sh", "-c", script, user=user)


async def shell_in(instance: Instance, script: str, *, user: str = "") -> Ended:
    """Enter an instance and run a script there."""
    return await shell(await instance.enter(), script, user=user)
