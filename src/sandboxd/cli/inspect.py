"""`sandboxd inspect`: all that is known of sandboxes."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from sandboxd.cli.api import DEFAULT_SERVER, Api, Authority, Server, path_of
from sandboxd.cli.telling import FAILED, tell
from sandboxd.core.errors import NotFound


def inspect(
    sandboxes: Annotated[list[str], typer.Argument(metavar="ID...", help="Sandboxes, or how their ids begin.")],
    *,
    server: Server = DEFAULT_SERVER,
    ca: Authority = None,
) -> None:
    """Print a JSON list of what is known of sandboxes; of those that run, also their processes and what they use."""
    found: list[msgspec.Raw] = []
    missing = False
    with Api(server, ca) as api:
        for sandbox in sandboxes:
            try:
                found.append(msgspec.Raw(api.ask("GET", path_of(api.find(sandbox)))))
            except NotFound as error:
                tell(error)
                missing = True
    typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    if missing:
        raise typer.Exit(FAILED)
