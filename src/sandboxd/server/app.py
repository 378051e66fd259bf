"""The application: every surface's routes over one engine, and the program that serves it."""

from __future__ import annotations

import asyncio
import sys
from contextlib import closing
from importlib import metadata
from itertools import chain
from typing import TYPE_CHECKING

import uvloop

from sandboxd.core.errors import Invalid
from sandboxd.core.spec import Limits
from sandboxd.server import logs
from sandboxd.server.http import Application, Attributed
from sandboxd.server.listen import bind, listener, stopped_by_signals, url
from sandboxd.server.neighbours import Neighbours, is_loopback
from sandboxd.server.own import own_routes
from sandboxd.server.routes import RouteTable
from sandboxd.server.telemetry import Telemetry
from sandboxd.server.wiring import open_engine
from sandboxd.surfaces.flash import routes as flash

if TYPE_CHECKING:
    from sandboxd.ports.engine import Engine
    from sandboxd.server.settings import Settings

OWNER = "local"
"""Everybody, until there are keys."""
GRACE_S = 5.0
"""How long calls may go on after the server was asked to end; then they are cut off, and their commands killed."""


def build_app(engine: Engine, settings: Settings) -> Attributed:
    """Return the ASGI application that serves `engine` as the settings say."""
    http = settings.http
    telemetry = Telemetry()
    surfaces = flash.routes(engine, _flash_bounds(settings))
    own = own_routes(engine, telemetry, surfaces, owner=OWNER, version=metadata.version("sandboxd"))
    application = Application(
        RouteTable(chain(surfaces, own), prefixes=http.prefixes),
        neighbours=Neighbours(http.allowed_hosts, http.allowed_origins) if is_loopback(http.host) else None,
        most_body_bytes=http.max_body_bytes,
        telemetry=telemetry,
    )
    return Attributed(application, OWNER)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; sandboxes run on unless the settings say otherwise.

    Raises:
        Invalid: no port is on.
        Conflict: another server has the state folder open.
        Unavailable: the port or the state cannot be had.
    """
    if not settings.http.port:
        raise Invalid("`http.port` is 0, and there is nothing else to serve", hint="set a port")
    logs.configure(settings.log)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    with closing(bind(settings.http.host, settings.http.port)) as bound:
        async with open_engine(settings) as engine:
            server = listener(
                build_app(engine, settings),
                listening=lambda: _tell(f"listening on {url(bound)}"),
                grace_s=GRACE_S,
            )
            with stopped_by_signals(server):
                await server.serve(sockets=[bound])
                if settings.stop_sandboxes:
                    await engine.destroy_all("the server was asked to end with all its sandboxes")


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _flash_bounds(settings: Settings) -> flash.Bounds:
    limits = settings.limits
    return flash.Bounds(
        output_bytes=settings.exec.max_output_bytes,
        limits=Limits(memory_bytes=limits.memory_bytes, cpus=limits.cpus or None, pids=limits.pids),
    )
