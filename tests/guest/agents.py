"""The real agent, as PID 1 of a PID namespace of its own, at the other end of a channel."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from sandboxd.guest.binary import agent_binary
from sandboxd.guest.connection import connect
from sandboxd.guest.fifo import FifoChannel, make_fifos
from sandboxd.guest.stream import SocketChannel

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxd.guest.agent import AgentGuest
    from sandboxd.guest.channel import Channel

NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


class RealAgent:
    """One agent and the ways to it, until the context ends. `raw` is what a careless host would write to and read."""

    def __init__(self, means: str, folder: Path) -> None:
        self._means = means
        self._folder = folder
        self._guests: list[AgentGuest] = []
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        if self._means == "socket":
            self._ours, theirs = socket.socketpair()
            self._cleanup.callback(self._ours.close)
            self._run(theirs.fileno(), theirs.fileno())
            theirs.close()
            self.raw = self._ours.fileno(), self._ours.fileno()
        else:
            self._fifos = make_fifos(self._folder)
            to_guest, from_guest = (os.open(fifo, os.O_RDWR) for fifo in self._fifos)
            self._cleanup.callback(os.close, to_guest)
            self._cleanup.callback(os.close, from_guest)
            self._run(to_guest, from_guest)
            self.raw = to_guest, from_guest
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._cleanup.close()

    def channel(self) -> Channel:
        """Return a new channel over the same means, as a server that comes after another would open."""
        return SocketChannel(self._ours.dup()) if self._means == "socket" else FifoChannel(*self._fifos)

    async def connect(self) -> AgentGuest:
        """Return the guest as a new host sees it."""
        guest = await connect(self.channel())
        self._guests.append(guest)
        return guest

    async def close(self) -> None:
        """Close every guest."""
        for guest in self._guests:
            await guest.close()

    def kill(self) -> None:
        """End the namespace."""
        self._process.kill()
        self._process.wait()

    def _run(self, stdin: int, stdout: int) -> None:
        command = (*NAMESPACE, str(agent_binary()))
        self._process = subprocess.Popen(command, stdin=stdin, stdout=stdout, cwd="/")


def abandon(guest: AgentGuest) -> None:
    """Drop the guest as a killed server does: its descriptors close and nothing more is said."""
    guest._link._channel.close()
