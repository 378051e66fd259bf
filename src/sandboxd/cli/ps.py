"""`sandboxd ps`: the sandboxes of a server."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from sandboxd.cli.api import DEFAULT_SERVER, Api, Authority, Server
from sandboxd.cli.telling import legible

if TYPE_CHECKING:
    from sandboxd.surfaces.native.wire import LimitsBody, SandboxBody

COLUMNS = ("ID", "AGE", "OWNER", "RUNTIME", "STATE", "LIMITS", "EXPIRES", "CAUSE", "IMAGE")
ELASTIC = ("IMAGE", "CAUSE", "OWNER")
"""What is shortened, in this order, where a terminal is too narrow."""
_NARROWEST = 8
_GAP = "  "
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_SIZES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def ps(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list, with everything that is known.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print ids only.")] = False,
    running: Annotated[bool, typer.Option("--running", help="Leave out what does not run.")] = False,
    server: Server = DEFAULT_SERVER,
    ca: Authority = None,
) -> None:
    """List sandboxes, oldest first. Those that ended are listed until they are removed or their retention is over."""
    with Api(server, ca) as api:
        sandboxes = api.sandboxes()
    if running:
        sandboxes = [sandbox for sandbox in sandboxes if sandbox.state == "running"]
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(sandboxes), indent=2))
    elif quiet:
        for sandbox in sandboxes:
            typer.echo(sandbox.id)
    else:
        now = datetime.now(UTC)
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        for line in table([row(sandbox, now) for sandbox in sandboxes], width):
            typer.echo(line)


def row(sandbox: SandboxBody, now: datetime) -> tuple[str, ...]:
    """Return a sandbox as the cells of its line."""
    flavour = f" ({sandbox.flavour})" if sandbox.flavour else ""
    expires = sandbox.expires_at
    cells = (
        sandbox.id,
        span((now - sandbox.created_at).total_seconds()),
        sandbox.owner,
        sandbox.runtime + flavour,
        sandbox.state,
        _limits(sandbox.limits),
        "never" if expires is None else "in " + span((expires - now).total_seconds()),
        _cause(sandbox),
        sandbox.image,
    )
    return tuple(legible(cell) for cell in cells)


def table(rows: list[tuple[str, ...]], width: int | None) -> list[str]:
    """Return the lines under their headings, no wider than `width` where that is given and possible."""
    lines = [COLUMNS, *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(COLUMNS))]
    surplus = 0 if width is None else sum(widths) + len(_GAP) * (len(widths) - 1) - width
    for name in ELASTIC:
        index = COLUMNS.index(name)
        less = min(max(surplus, 0), max(widths[index] - _NARROWEST, 0))
        widths[index] -= less
        surplus -= less
    return [_GAP.join(_fitted(cell, size) for cell, size in zip(line, widths, strict=True)).rstrip() for line in lines]


def span(seconds: float) -> str:
    """Return a time in its two largest units."""
    left = max(0, int(seconds))
    for index, (size, unit) in enumerate(_UNITS):
        if left >= size:
            text = f"{left // size}{unit}"
            finer = _UNITS[index + 1] if index + 1 < len(_UNITS) else (1, "")
            rest = left % size // finer[0]
            return f"{text}{rest}{finer[1]}" if rest else text
    return "0s"


def _limits(limits: LimitsBody) -> str:
    cpus = "all cpus" if limits.cpus is None else f"{limits.cpus:g} cpu"
    texts = [_size(limits.memory_bytes), cpus, f"{limits.pids} pids"]
    if limits.disk_bytes is not None:
        texts.append(f"{_size(limits.disk_bytes)} disk")
    return ", ".join(texts)


def _size(count: int) -> str:
    for size, unit in _SIZES:
        if count >= size:
            return f"{count / size:.3g} {unit}" if count % size else f"{count // size} {unit}"
    return f"{count} B"


def _cause(sandbox: SandboxBody) -> str:
    if sandbox.cause is None:
        return "-"
    return sandbox.cause if sandbox.exit_code is None else f"{sandbox.cause} ({sandbox.exit_code})"


def _fitted(cell: str, size: int) -> str:
    return cell.ljust(size) if len(cell) <= size else cell[: size - 1] + "…"
