"""The conversation with one agent, taken up again when the daemon was away and the agent lived on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sandboxd.core.errors import Lost, SandboxdError, Unavailable, Uncertain
from sandboxd.guest.connection import connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandboxd.guest.agent import AgentGuest
    from sandboxd.runtimes.docker.attach import AttachChannel

_PATIENCE_S = 10.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


class Line:
    """`attach` opens a channel, and raises Lost once the instance is dead, Unavailable while there is no daemon.

    `first` is a channel that is open already.
    """

    def __init__(self, attach: Callable[[], Awaitable[AttachChannel]], first: AttachChannel) -> None:
        self._attach = attach
        self._first: AttachChannel | None = first
        self._guest: AgentGuest | None = None
        self._channel: AttachChannel | None = None
        self._greeting: AttachChannel | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    async def guest(self) -> AgentGuest:
        """Return the guest, entered again if need be, without waiting for a daemon that is away."""
        async with self._opening:
            if self._guest is None or self._channel is None or self._channel.is_cut:
                await self._open()
            assert self._guest is not None  # noqa: S101 - else it would have raised
            return self._guest

    async def taken_up(self) -> AgentGuest:
        """Return the guest once there is a daemon. Raises Lost when the instance died meanwhile."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await self.guest()
            except Unavailable:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def is_cut_off(self, guest: AgentGuest) -> bool:
        """Whether the daemon went away from under this guest; the next one may know the same processes."""
        return not self._closed and (guest is not self._guest or self._channel is None or self._channel.is_cut)

    async def explained(self, guest: AgentGuest, error: Lost) -> SandboxdError:
        """Return what a caller is told who met `error`: how the instance died, or that it is only out of reach."""
        if not self.is_cut_off(guest):
            return error
        try:
            await self.guest()
        except (Lost, Unavailable) as reason:
            if isinstance(reason, Lost):
                return reason
        return Uncertain(
            "the Docker daemon went away before the answer came: it may or may not have happened",
            hint="the sandbox lives on; look before repeating",
        )

    def lose(self, error: Lost) -> None:
        """The instance died: what its agent had sent is taken in, then all that waits fails with this error."""
        if self._greeting is not None:
            self._greeting.end()
        if self._guest is not None:
            self._guest.lose(error)

    async def close(self) -> None:
        """Let go of the channel."""
        self._closed = True
        if self._first is not None:
            self._first.close()
        if self._guest is not None:
            await self._guest.close()

    async def _open(self) -> None:
        if self._closed:
            raise Lost("the channel to the guest was closed on our side")
        channel, self._first = self._first or await self._attach(), None
        self._greeting = channel
        try:
            self._guest = await connect(channel, patience_s=_PATIENCE_S)
        except Lost as error:
            if not channel.is_cut:
                raise
            self._first = await self._attach()  # which tells why, or works
            raise Unavailable("the Docker daemon went away before the agent answered", hint="ask again") from error
        finally:
            self._greeting = None
        self._channel = channel
