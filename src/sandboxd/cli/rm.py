"""`sandboxd rm`: ends and removes sandboxes."""

from __future__ import annotations

from typing import Annotated

import typer

from sandboxd.cli.api import DEFAULT_SERVER, Api, Authority, Server, path_of
from sandboxd.cli.telling import FAILED, tell
from sandboxd.core.errors import Invalid, SandboxdError, Unavailable


def rm(
    sandboxes: Annotated[
        list[str] | None, typer.Argument(metavar="ID...", help="Sandboxes, or how their ids begin.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Remove all sandboxes of this server.")] = False,
    server: Server = DEFAULT_SERVER,
    ca: Authority = None,
) -> None:
    """End sandboxes and remove all that is left of them; one that fails does not stop the rest."""
    if bool(sandboxes) == every:
        raise Invalid("either ids or --all must be given")
    failed = False
    with Api(server, ca) as api:
        wanted = [sandbox.id for sandbox in api.sandboxes()] if every else sandboxes or []
        for sandbox in wanted:
            try:
                found = api.find(sandbox)
                api.ask("DELETE", path_of(found))
                typer.echo(found)
            except Unavailable:
                raise
            except SandboxdError as error:
                tell(error)
                failed = True
    if failed:
        raise typer.Exit(FAILED)
