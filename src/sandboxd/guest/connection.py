"""How a host meets the agent in a guest, be it new or left behind by a former host."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from sandboxd.core.errors import Lost
from sandboxd.guest.agent import AgentGuest
from sandboxd.guest.frames import VERSION
from sandboxd.guest.link import Link

if TYPE_CHECKING:
    from sandboxd.guest.channel import Channel

NONCE_SIZE = 16


async def connect(channel: Channel, *, patience_s: float = 10) -> AgentGuest:
    """Open the channel, which the guest then owns, and return the guest once its agent has answered.

    Raises:
        Lost: the agent did not answer in time, or answered nonsense.
        Unavailable: the channel cannot be opened.
    """
    link = Link(channel, os.urandom(NONCE_SIZE))
    try:
        async with asyncio.timeout(patience_s):
            return await _meet(link)
    except TimeoutError:
        link.close()
        raise Lost(f"the agent did not answer within {patience_s:g} s") from None
    except BaseException:
        link.close()
        raise


async def _meet(link: Link) -> AgentGuest:
    welcome = await link.meet()
    if welcome.version != VERSION:
        raise Lost(
            f"the agent speaks version {welcome.version} of the guest protocol and we speak {VERSION}",
            hint="destroy the sandbox, or run the server that made it",
        )
    guest = AgentGuest(link, welcome.boot)
    if welcome.records:
        await guest.recall()
    return guest
