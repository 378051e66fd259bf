"""The gRPC server, behind whoever passes connections on to it; stopped with a grace."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from sandboxd.surfaces.grpc.serving import Serving

FAREWELL_S = 10.0
"""How long calls that were cut off at the end of the grace may take to clean up."""
KEEPALIVE_S = 60
"""While calls are under way, a caller that has been silent for so long is asked whether it is still there."""
KEEPALIVE_ANSWER_S = 20
LEAST_PING_INTERVAL_S = 10
"""How often callers may ask the same of us."""


class Door:
    """A gRPC server in the running loop, without encryption: `start`, then `stop`; use it once.

    `name` is that of the Unix socket, in the abstract namespace, on which it takes connections.
    """

    def __init__(self, *, most_request_bytes: int) -> None:
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", most_request_bytes),
                ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
                ("grpc.keepalive_timeout_ms", KEEPALIVE_ANSWER_S * 1000),
                ("grpc.http2.min_ping_interval_without_data_ms", LEAST_PING_INTERVAL_S * 1000),
            )
        )
        self._serving: Serving | None = None
        self.name = f"sandboxd-{secrets.token_hex(16)}"
        self._server.add_insecure_port(f"unix-abstract:{self.name}")

    async def start(self, serving: Serving) -> None:
        """Serve."""
        self._serving = serving
        self._server.add_generic_rpc_handlers((serving,))
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Take no more calls and return once there are none: after the grace those under way are cut off."""
        if self._serving is None:
            await self._server.stop(None)
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._server.stop(grace_s + FAREWELL_S))
            try:
                async with asyncio.timeout(grace_s):
                    await self._serving.wait_idle()
            except TimeoutError:
                self._serving.cut()
