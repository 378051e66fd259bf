"""Files of a sandbox, moved in one piece or as they come."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar, cast

from sandboxd.core.errors import Bug, Conflict, Unsupported
from sandboxd.core.spec import ProcessSpec
from sandboxd.ports.surface import Answer
from sandboxd.surfaces.native import query, render
from sandboxd.surfaces.native.wire import LINES, OCTETS, encode

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from sandboxd.ports.engine import Engine
    from sandboxd.ports.files import Files as InsideFiles
    from sandboxd.ports.files import FileStatus
    from sandboxd.ports.surface import Request

_Item = TypeVar("_Item")
_BATCH_BYTES = 32 * 1024
_NO_PROGRAM = 127


class Files:
    """The calls about files."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def read(self, request: Request) -> Answer:
        """GET /sandboxes/{id}/files."""
        path = query.path(request)
        files = await self._of(request)
        status = await files.status(path)
        if status.kind != "file":
            raise Conflict(f"`{path}` is no file but of the kind `{status.kind}`", hint=_OTHERWISE.get(status.kind, ""))
        headers = (
            ("x-file-mode", render.octal(status.mode)),
            ("x-file-size", str(status.size)),
            ("x-file-modified-ns", str(status.modified_ns)),
        )
        return Answer(200, await _begun(files.read_file(path)), OCTETS, headers)

    async def write(self, request: Request) -> Answer:
        """PUT /sandboxes/{id}/files."""
        path, mode, parents = query.path(request), query.mode(request), query.flag(request, "parents")
        if request.pieces is None:
            raise Bug("the body of a file came in one piece")
        files = await self._of(request)
        await files.write_file(path, request.pieces, mode=mode, parents=parents)
        return Answer(204)

    async def status(self, request: Request) -> Answer:
        """GET /sandboxes/{id}/files/status."""
        path, follow = query.path(request), query.flag(request, "follow", default=True)
        files = await self._of(request)
        return Answer(200, encode(render.file(await files.status(path, follow=follow))))

    async def list(self, request: Request) -> Answer:
        """GET /sandboxes/{id}/directory."""
        path = query.path(request)
        files = await self._of(request)
        return Answer(200, _lines(await _begun(files.list_directory(path))), LINES)

    async def make_directory(self, request: Request) -> Answer:
        """PUT /sandboxes/{id}/directory."""
        path, mode, parents = query.path(request), query.mode(request), query.flag(request, "parents")
        files = await self._of(request)
        await files.make_directory(path, mode=0o755 if mode is None else mode, parents=parents)
        return Answer(204)

    async def make_symlink(self, request: Request) -> Answer:
        """PUT /sandboxes/{id}/symlink."""
        path, target = query.path(request), query.path(request, "target")
        spec = ProcessSpec(argv=("ln", "-sfT", "--", target, path), cwd="/", user="0")
        made = await self._engine.execute(request.owner, request.params["id"], spec, limit=_BATCH_BYTES)
        if made.exit_code == _NO_PROGRAM:
            raise Unsupported(f"`{path}` cannot become a symlink: the image has no program `ln`")
        if made.exit_code:
            raise Conflict(f"`{path}` cannot become a symlink: {made.texts()[1].strip()}")
        return Answer(204)

    async def _of(self, request: Request) -> InsideFiles:
        return await self._engine.files(request.owner, request.params["id"])


_OTHERWISE = {"directory": "ask for it as a directory"}


async def _begun(items: AsyncIterator[_Item]) -> AsyncIterator[_Item]:
    """Return the same items, the first of them already taken: what goes wrong at once is raised here."""
    source = cast("AsyncGenerator[_Item, None]", items)
    try:
        first = [await anext(source)]
    except StopAsyncIteration:
        first = []
    return _continued(first, source)


async def _continued(first: list[_Item], source: AsyncGenerator[_Item, None]) -> AsyncIterator[_Item]:
    async with aclosing(source):
        for item in first:
            yield item
        async for item in source:
            yield item


async def _lines(entries: AsyncIterator[FileStatus]) -> AsyncIterator[bytes]:
    async with aclosing(cast("AsyncGenerator[FileStatus, None]", entries)):
        batch = bytearray()
        async for entry in entries:
            batch += encode(render.file(entry)) + b"\n"
            if len(batch) >= _BATCH_BYTES:
                yield bytes(batch)
                batch.clear()
        yield bytes(batch)
