"""Flash's REST calls: each decodes, asks the engine once, and renders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from sandboxd.core.calls import check_key
from sandboxd.core.errors import Invalid, Unsupported
from sandboxd.core.spec import ProcessSpec, PythonSource, SandboxSpec
from sandboxd.ports.surface import Answer, Bounds, Reply, Request, Route
from sandboxd.surfaces.flash import render, wire
from sandboxd.surfaces.flash.errors import render as render_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from msgspec import Struct

    from sandboxd.core.output import Finished
    from sandboxd.ports.engine import Engine

SURFACE = "flash"
OFFLINE = "offline"


_CREATE_ERRORS = (400, 409, 410, 500, 501, 503)
_USE_ERRORS = (404, 409, 410, 500, 503)


class Calls:
    """The calls of flash over one engine."""

    def __init__(self, engine: Engine, bounds: Bounds) -> None:
        self._engine = engine
        self._bounds = bounds

    async def create(self, request: Request) -> Answer:
        """POST /sandboxes."""
        body, warnings = wire.decode(request.body, wire.CreateBody)
        record = await self._engine.create(request.owner, self._sandbox_spec(body), key=_key(request))
        return _json(201, render.sandbox(record, warnings))

    async def list(self, request: Request) -> Answer:
        """GET /sandboxes."""
        records = await self._engine.list(request.owner)
        return _json(200, wire.SandboxesBody([render.sandbox(record, []) for record in records]))

    async def get(self, request: Request) -> Answer:
        """GET /sandboxes/{id}."""
        record = await self._engine.get(request.owner, request.params["id"])
        return _json(200, render.sandbox(record, []))

    async def destroy(self, request: Request) -> Answer:
        """DELETE /sandboxes/{id}."""
        _require(request, "cleanup", "true")
        wire.decode_nothing(request.body)
        await self._engine.destroy(request.owner, request.params["id"])
        return Answer(204)

    async def execute(self, request: Request) -> Answer:
        """POST /sandboxes/{id}/exec."""
        if b"text/event-stream" in request.headers.get(b"accept", b""):
            raise Unsupported("streamed output is not supported by this server", hint="accept application/json")
        body, warnings = wire.decode(request.body, wire.ExecBody)
        finished = await self._run(request, ProcessSpec(argv=tuple(body.command)))
        return _json(200, render.executed(finished, warnings))

    async def run_python(self, request: Request) -> Answer:
        """POST /sandboxes/{id}/run_python."""
        body, warnings = wire.decode(request.body, wire.PythonBody)
        finished = await self._run(request, PythonSource(body.code))
        return _json(200, render.python(finished, warnings))

    async def platform_info(self, request: Request) -> Answer:
        """GET /sandboxes/{id}/platform_info."""
        info = await self._engine.platform_info(request.owner, request.params["id"])
        return _json(200, wire.PlatformReply(wire.encode(info).decode()))

    async def metrics(self, request: Request) -> Answer:
        """GET /sandboxes/{id}/metrics."""
        reading = await self._engine.metrics(request.owner, request.params["id"])
        return _json(200, render.metrics(reading))

    async def snapshot(self, request: Request) -> Answer:
        """POST /sandboxes/{id}/snapshot."""
        warnings = wire.decode_nothing(request.body)
        record = await self._engine.snapshot(request.owner, request.params["id"])
        return _json(200, wire.SnapshotReply(record.snapshot_path, record.mem_file_path, warnings or UNSET))

    async def resume(self, request: Request) -> Answer:
        """POST /sandboxes/{id}/resume."""
        _require(request, "in_place", "true")
        warnings = wire.decode_nothing(request.body)
        await self._engine.resume(request.owner, request.params["id"])
        return _json(200, wire.EmptyReply(warnings or UNSET))

    async def _run(self, request: Request, command: ProcessSpec | PythonSource) -> Finished:
        sandbox_id, limit = request.params["id"], self._bounds.output_bytes
        return await self._engine.execute(request.owner, sandbox_id, command, limit=limit, key=_key(request))

    def _sandbox_spec(self, body: wire.CreateBody) -> SandboxSpec:
        _refuse_kernels(body)
        if not body.image and not body.snapshot_path:
            raise Invalid("`image` is missing", hint="name an imported image")
        return SandboxSpec(
            runtime=body.type or "",
            image=body.image or "",
            command=tuple(body.command or ()),
            limits=self._bounds.limits.adjusted(memory_mb=body.memory_mb, cpu_cores=body.cpu_cores),
            network=OFFLINE,
            surface=SURFACE,
            snapshot_path=body.snapshot_path or "",
            mem_file_path=body.mem_file_path or "",
        )


def routes(engine: Engine, bounds: Bounds) -> list[Route]:
    """Return flash's part of the server's table of routes, served by `engine` within `bounds`."""
    calls = Calls(engine, bounds)
    return [*_life(calls), *_inside(calls), *_saving(calls)]


def _life(calls: Calls) -> list[Route]:
    return [
        _route(
            "POST",
            "/sandboxes",
            "Make a sandbox",
            "Returns once the sandbox can run commands. A key that no version of flash defines is accepted and named "
            "in `warnings`; one that a later version defines is refused when it asks for something. Repeating "
            "the `Idempotency-Key` and body of a call that succeeded within a day is answered with the same sandbox.",
            calls.create,
            {201: Reply("The sandbox runs.", wire.SandboxBody)},
            _CREATE_ERRORS,
            body=wire.CreateBody,
            dies_with_caller=True,
        ),
        _route(
            "GET",
            "/sandboxes",
            "List sandboxes",
            "The caller's sandboxes that have not been destroyed, oldest first.",
            calls.list,
            {200: Reply("All of them.", wire.SandboxesBody)},
        ),
        _route(
            "GET",
            "/sandboxes/{id}",
            "Look at a sandbox",
            "Answers for paused and stopped sandboxes too, until they are destroyed.",
            calls.get,
            {200: Reply("What is known of it.", wire.SandboxBody)},
            (404,),
        ),
        _route(
            "DELETE",
            "/sandboxes/{id}",
            "Stop and remove a sandbox",
            "On return nothing of it is left and its id is unknown.",
            calls.destroy,
            {204: Reply("It is gone.")},
            (400, 404),
            query={"cleanup": "Only `true`, the default, is supported."},
        ),
    ]


def _inside(calls: Calls) -> list[Route]:
    return [
        _route(
            "POST",
            "/sandboxes/{id}/exec",
            "Run a command",
            "Runs argv without a shell and waits for its end. A command that fails is a success here, with its exit "
            "code; a missing program exits 127. A command is killed when its caller hangs up, unless the call has an "
            "`Idempotency-Key`: then it runs on, and the same call with the same key is told how it ended.",
            calls.execute,
            {200: Reply("It ended.", wire.ExecReply)},
            (400, *_USE_ERRORS, 501),
            body=wire.ExecBody,
            dies_with_caller=True,
        ),
        _route(
            "POST",
            "/sandboxes/{id}/run_python",
            "Run Python source",
            "Runs the source with the sandbox's python3, or with one lent read-only where its image has none. A "
            "program that fails is a success here, with its stderr as `result`.",
            calls.run_python,
            {200: Reply("It ended.", wire.PythonReply)},
            (400, *_USE_ERRORS, 501),
            body=wire.PythonBody,
            dies_with_caller=True,
        ),
        _route(
            "GET",
            "/sandboxes/{id}/platform_info",
            "Describe the platform",
            "As `platform.uname()` would say inside; needs no Python in the image.",
            calls.platform_info,
            {200: Reply("The platform.", wire.PlatformReply)},
            _USE_ERRORS,
        ),
        _route(
            "GET",
            "/sandboxes/{id}/metrics",
            "Measure a sandbox",
            "What it uses now. Where the host's cgroups are of version 1, block figures miss buffered writes.",
            calls.metrics,
            {200: Reply("A reading.", wire.MetricsReply)},
            _USE_ERRORS,
        ),
    ]


def _saving(calls: Calls) -> list[Route]:
    return [
        _route(
            "POST",
            "/sandboxes/{id}/snapshot",
            "Save a sandbox",
            "Pauses the sandbox and saves what its runtime can save; it stays paused until it is resumed.",
            calls.snapshot,
            {200: Reply("Where it was saved.", wire.SnapshotReply)},
            (400, *_USE_ERRORS, 501),
        ),
        _route(
            "POST",
            "/sandboxes/{id}/resume",
            "Continue a paused sandbox",
            "Does nothing to a running one.",
            calls.resume,
            {200: Reply("It runs.", wire.EmptyReply)},
            (400, *_USE_ERRORS),
            query={"in_place": "Only `true`, the default, is supported."},
        ),
    ]


def _route(
    method: str,
    path: str,
    summary: str,
    description: str,
    call: Callable[[Request], Awaitable[Answer]],
    replies: dict[int, Reply],
    error_statuses: tuple[int, ...] = (),
    *,
    body: type[Struct] | None = None,
    query: dict[str, str] | None = None,
    dies_with_caller: bool = False,
) -> Route:
    return Route(
        method=method,
        path=path,
        summary=summary,
        description=description,
        handler=call,
        errors=render_error,
        replies=replies,
        error_statuses=error_statuses,
        body=body,
        query=query or {},
        dies_with_caller=dies_with_caller,
        surface=SURFACE,
    )


def _refuse_kernels(body: wire.CreateBody) -> None:
    runtime = body.type or "auto"
    for key in ("kernel_image", "initrd_path"):
        if getattr(body, key):
            raise Unsupported(f"`{key}` is set, but runtime `{runtime}` boots no kernel", hint="leave it out")


def _require(request: Request, key: str, value: str) -> None:
    if request.query.get(key, value) != value:
        raise Invalid(f"`{key}={request.query[key]}` is not supported by this server", hint=f"`{key}` may be `{value}`")


def _key(request: Request) -> str:
    """Return the caller's idempotency key, empty where it gave none."""
    key = request.headers.get(b"idempotency-key")
    return "" if key is None else check_key(key.decode("latin-1"))


def _json(status: int, body: Struct) -> Answer:
    return Answer(status, wire.encode(body))
