"""The application: every surface's routes over one engine, and the program that serves it."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from importlib import metadata
from itertools import chain
from typing import TYPE_CHECKING

import structlog
import uvloop

from sandboxd.core.errors import Invalid
from sandboxd.core.spec import Limits
from sandboxd.ports.surface import Bounds
from sandboxd.server import logs
from sandboxd.server.certificate import renewed_by_hangup
from sandboxd.server.doors import Doors
from sandboxd.server.http import Application, Attributed
from sandboxd.server.listen import stopped_by_signals
from sandboxd.server.neighbours import judging
from sandboxd.server.own import own_routes
from sandboxd.server.routes import RouteTable
from sandboxd.server.telemetry import Telemetry
from sandboxd.server.wiring import open_engine
from sandboxd.surfaces.flash import routes as flash
from sandboxd.surfaces.grpc.calls import Calls
from sandboxd.surfaces.grpc.serving import Patience, Served, Serving
from sandboxd.surfaces.native import routes as native

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxd.ports.engine import Engine
    from sandboxd.server.neighbours import Neighbours
    from sandboxd.server.settings import Settings

OWNER = "local"
"""Everybody, until there are keys."""

_log = structlog.get_logger()


def build_app(engine: Engine, settings: Settings, telemetry: Telemetry | None = None) -> Attributed:
    """Return the ASGI application that serves `engine` as the settings say."""
    telemetry = telemetry or Telemetry()
    surfaces = [*flash.routes(engine, _bounds(settings)), *native.routes(engine)]
    own = own_routes(engine, telemetry, surfaces, owner=OWNER, version=metadata.version("sandboxd"))
    application = Application(
        RouteTable(chain(surfaces, own), prefixes=settings.http.prefixes),
        neighbours=_neighbours(settings),
        most_body_bytes=settings.http.max_body_bytes,
        telemetry=telemetry,
    )
    return Attributed(application, OWNER)


async def serve(engine: Engine, doors: Doors, settings: Settings, *, listening: Callable[[], None]) -> None:
    """Serve `engine` at the doors until they are stopped; `listening` is called once callers are answered."""
    telemetry = Telemetry()
    calls = Calls(engine, _bounds(settings), owner=OWNER)
    neighbours = _neighbours(settings)
    async with Serving(
        calls,
        patience=_patience(settings),
        note=partial(_note_grpc, telemetry),
        foreign=neighbours.foreign if neighbours else lambda _: "",
    ) as serving:
        await doors.serve(build_app(engine, settings, telemetry), serving, listening=listening)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; sandboxes run on unless the settings say otherwise.

    Raises:
        Invalid: no port is on, or the certificate or its key is no good.
        Conflict: another server has the state folder open.
        Unavailable: a port or the state cannot be had.
    """
    if not settings.http.port and not settings.grpc.port:
        raise Invalid("`http.port` and `grpc.port` are 0, and there is nothing else to serve", hint="set a port")
    logs.configure(settings.log)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(settings))


async def _run(settings: Settings) -> None:
    async with Doors(settings, grace_s=settings.http.grace_s) as doors, open_engine(settings) as engine:
        with stopped_by_signals(doors), renewed_by_hangup(doors.certificate):
            await serve(engine, doors, settings, listening=lambda: _tell(doors.addresses))
            if settings.stop_sandboxes:
                await engine.destroy_all("the server was asked to end with all its sandboxes")


def _tell(addresses: list[str]) -> None:
    sys.stderr.write("".join(f"listening on {address}\n" for address in addresses))
    sys.stderr.flush()


def _note_grpc(telemetry: Telemetry, served: Served) -> None:
    telemetry.observe("gRPC", served.path, served.status.name, served.seconds)
    _log.info(
        "request",
        method="gRPC",
        path=served.path,
        status=served.status.name,
        ms=round(served.seconds * 1000, 3),
        owner=OWNER,
        sandbox=served.sandbox[:300],
    )


def _neighbours(settings: Settings) -> Neighbours | None:
    http = settings.http
    return judging(http.host, http.allowed_hosts, http.allowed_origins)


def _bounds(settings: Settings) -> Bounds:
    limits = settings.limits
    return Bounds(
        output_bytes=settings.exec.max_output_bytes,
        limits=Limits(memory_bytes=limits.memory_bytes, cpus=limits.cpus or None, pids=limits.pids),
    )


def _patience(settings: Settings) -> Patience:
    call_s, command_s = settings.grpc.max_call_s, settings.exec.max_s
    return Patience(
        command_s=command_s + call_s if command_s and call_s else None,
        other_s=call_s or None,
    )
