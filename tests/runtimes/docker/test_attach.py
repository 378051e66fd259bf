"""The channel over Docker's attach stream, cut at any byte."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from tests.runtimes.inside import shell

from sandboxd.core.errors import Uncertain
from sandboxd.core.events import Exited, Output, Truncated
from sandboxd.core.spec import ProcessSpec
from sandboxd.guest.codec import PREAMBLE
from sandboxd.guest.connection import NONCE_SIZE
from sandboxd.guest.frames import HEADER, VERSION, Hello
from sandboxd.runtimes.docker.attach import Streams
from sandboxd.runtimes.docker.runtime import DockerRuntime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.runtimes.conftest import Bench
    from tests.runtimes.docker.daemons import Daemon

    from sandboxd.ports.runtime import Instance

LINES = 150_000


def test_stdout_is_told_from_stderr_wherever_the_bytes_are_cut() -> None:
    pieces = [(1, b"hello "), (2, b"oops"), (1, b""), (1, bytes(3000)), (2, b"x"), (1, b"end")]
    wire = b"".join(bytes([stream, 0, 0, 0]) + len(data).to_bytes(4) + data for stream, data in pieces)
    for size in (1, 2, 3, 7, 8, 9, 100, len(wire)):
        came: list[bytes] = []
        streams = Streams(came.append)
        for at in range(0, len(wire), size):
            streams.feed(wire[at : at + size])
        assert b"".join(came) == b"hello " + bytes(3000) + b"end"


@dataclass
class Cutter:
    """Stands between us and the daemon, and cuts attach streams after so many bytes in either direction."""

    target: Path
    to_guest: int = 1 << 60
    from_guest: int = 1 << 60
    cuts: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self.target)
        head = await reader.readuntil(b"\r\n\r\n")
        back.write(head)
        is_attach = b"/attach?" in head
        if is_attach:
            writer.write(await there.readuntil(b"\r\n\r\n"))
        limits = (self.to_guest, self.from_guest) if is_attach else (1 << 60, 1 << 60)
        carrying = [
            asyncio.ensure_future(_carry(reader, back, limits[0])),
            asyncio.ensure_future(_carry(there, writer, limits[1])),
        ]
        try:
            done, _ = await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
            self.cuts += is_attach and any(task.result() for task in done)
        finally:
            for task in carrying:
                task.cancel()
            await asyncio.wait(carrying)
            for end in (writer, back):
                end.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int) -> bool:
    """Pass bytes on; return whether that many went."""
    try:
        while limit:
            piece = await reader.read(min(limit, 65536))
            if not piece:
                return False
            limit -= len(piece)
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        return False
    return True


@pytest.fixture
async def cutter(own_daemon: Daemon, tmp_path: Path) -> AsyncIterator[Cutter]:
    made = Cutter(own_daemon.socket)
    server = await asyncio.start_unix_server(made.serve, tmp_path / "cut")
    yield made
    server.close()


@pytest.fixture
async def instance(bench: Bench, cutter: Cutter, tmp_path: Path) -> AsyncIterator[Instance]:
    """An instance that is reached through the cutter."""
    made = await bench.create()
    through = DockerRuntime(name="docker", folder=bench.state, node=bench.node, host=f"unix://{tmp_path / 'cut'}")
    yield await through.adopt(made.internal_id)
    cutter.to_guest = cutter.from_guest = 1 << 60
    await made.destroy()


async def test_output_that_is_cut_again_and_again_comes_whole(instance: Instance, cutter: Cutter) -> None:
    dice = random.Random(1)  # noqa: S311 - of no secret
    cutter.from_guest = 100_000  # more than the largest frame
    guest = await instance.enter()
    process = await guest.start(ProcessSpec(("/bin/seq", str(LINES))))
    text = b""
    async for event in process.events():
        assert not isinstance(event, Truncated)
        if isinstance(event, Output):
            assert event.offset == len(text)
            text += event.data
            cutter.from_guest = 150_000 + dice.randrange(50_000)  # more than is acknowledged at a time
    assert isinstance(event, Exited)
    assert text.decode() == "".join(f"{number}\n" for number in range(1, LINES + 1))
    assert cutter.cuts > 3


async def test_a_request_that_is_cut_is_uncertain_and_the_next_one_works(instance: Instance, cutter: Cutter) -> None:
    greeting = len(PREAMBLE) + HEADER.size + len(Hello(VERSION, bytes(NONCE_SIZE)).encode())
    listing = HEADER.size
    for into_request in (1, HEADER.size + 5, HEADER.size + 40):
        cutter.to_guest = greeting + listing + into_request
        guest = await instance.enter()
        cutter.to_guest = 1 << 60
        with pytest.raises(Uncertain, match="may or may not have happened"):
            await shell(guest, "echo " + "x" * 1000)
        assert (await shell(guest, "echo alive")).output == "alive"
