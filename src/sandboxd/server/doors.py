"""The ports of one server: bound before anything else happens, served together, stopped together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sandboxd.server.certificate import GRPC, HTTP, Certificate
from sandboxd.server.listen import BACKLOG, Listener, bind, listener, url
from sandboxd.server.preface import PassingOn, relay
from sandboxd.surfaces.grpc.door import Door

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable
    from typing import Self

    from sandboxd.server.preface import PassOn
    from sandboxd.server.settings import Settings
    from sandboxd.surfaces.grpc.serving import Serving


class Doors:
    """What listens, on one address: HTTP with gRPC beside it, and gRPC alone. Made in the loop that serves.

    Calls that run at `stop` may take `grace_s` until they are cut off. Used as `async with`, for one `serve`.

    Raises:
        Invalid: the certificate or its key is no good.
    """

    def __init__(self, settings: Settings, *, grace_s: float) -> None:
        self.addresses: list[str] = []
        """Where callers find us."""
        self.certificate = Certificate(settings.tls) if settings.tls.cert else None
        """What every port is encrypted with, if anything."""
        self._settings = settings
        self._grace_s = grace_s
        self._stopping = asyncio.Event()
        self._http: Listener | None = None
        self._grpc = Door(most_request_bytes=settings.http.max_body_bytes)
        self._serving: Serving | None = None
        self._for_http: socket.socket | None = None
        self._for_grpc: socket.socket | None = None

    async def __aenter__(self) -> Self:
        """Bind.

        Raises:
            Unavailable: a port is taken, or the address is not ours.
        """
        host, port, grpc_port = self._settings.http.host, self._settings.http.port, self._settings.grpc.port
        try:
            if port:
                self._for_http = bind(host, port)
                self.addresses.append(url(self._for_http, scheme="https" if self.certificate else "http"))
            if grpc_port:
                self._for_grpc = bind(host, grpc_port)
                self.addresses.append(url(self._for_grpc, scheme="grpcs" if self.certificate else "grpc"))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        for bound in (self._for_http, self._for_grpc):
            if bound is not None:
                bound.close()
        await self._grpc.stop(0)

    async def serve(self, application: Any, serving: Serving, *, listening: Callable[[], None]) -> None:
        """Serve an ASGI application and gRPC until `stop`; `listening` is called once callers are answered."""
        self._serving = serving
        await self._grpc.start(serving)
        async with relay(self._grpc.name) as pass_on, asyncio.TaskGroup() as group:
            group.create_task(self._stop_grpc(await self._listen_for_grpc(pass_on)))
            if self._for_http is None:
                listening()
                return
            self._http = listener(
                application,
                listening=listening,
                grace_s=self._grace_s,
                most_message_bytes=self._settings.http.max_message_bytes,
                http2=pass_on,
                tls=self._offer(HTTP),
            )
            if self._stopping.is_set():
                self._http.stop()
            await self._http.serve(sockets=[self._for_http])
            self._stopping.set()

    def stop(self) -> None:
        """End calls within the grace, then `serve` returns; asked twice, without the grace."""
        if self._serving is not None and self._stopping.is_set():
            self._serving.cut()
        if self._http is not None:
            self._http.stop()
        self._stopping.set()

    async def _listen_for_grpc(self, pass_on: PassOn) -> asyncio.Server | None:
        if self._for_grpc is None:
            return None
        loop = asyncio.get_running_loop()
        return await loop.create_server(
            lambda: PassingOn(pass_on), sock=self._for_grpc, backlog=BACKLOG, ssl=self._offer(GRPC)
        )

    def _offer(self, protocols: tuple[str, ...]) -> ssl.SSLContext | None:
        return self.certificate.offer(protocols) if self.certificate else None

    async def _stop_grpc(self, server: asyncio.Server | None) -> None:
        await self._stopping.wait()
        if server is not None:
            server.close()
        await self._grpc.stop(self._grace_s)
