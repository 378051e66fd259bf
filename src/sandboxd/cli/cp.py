"""`sandboxd cp`: copies files between a sandbox and this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from sandboxd.cli.api import DEFAULT_SERVER, Api, Authority, Server
from sandboxd.cli.telling import FAILED, legible
from sandboxd.cli.trees import Here, Inside, copy
from sandboxd.core.errors import Invalid


def cp(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A path, or `ID:PATH` in a sandbox.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="A path, or `ID:PATH` in a sandbox.")],
    *,
    follow: Annotated[
        bool, typer.Option("--follow-link", "-L", help="Where SRC is a symlink, copy what it leads to.")
    ] = False,
    server: Server = DEFAULT_SERVER,
    ca: Authority = None,
) -> None:
    """Copy a file, a symlink or a directory with all that is in it, into DST where that is a directory.

    SRC/. is what is in the directory SRC. Permissions are kept, but for set-id bits on the way out of a sandbox; owners
    and times are not. Files are replaced as a whole. A local path with a colon is written with a slash before it.
    """
    (from_id, start), (to_id, end) = _taken_apart(source), _taken_apart(target)
    if bool(from_id) == bool(to_id):
        raise Invalid("one of SRC and DST must be in a sandbox, and only one", hint="written `ID:PATH`")
    with Api(server, ca) as api:
        if from_id:
            left_out = copy(Inside(api, api.find(from_id)), start, Here(), end, follow=follow)
        else:
            left_out = copy(Here(), start, Inside(api, api.find(to_id)), end, follow=follow)
    for sentence in left_out:
        typer.echo(f"left out: {legible(sentence)}", err=True)
    if left_out:
        raise typer.Exit(FAILED)


def _taken_apart(argument: str) -> tuple[str, str]:
    """Return sandbox and path; no sandbox where the path is local."""
    sandbox, colon, path = argument.partition(":")
    if not colon or not sandbox or "/" in sandbox or sandbox.startswith("."):
        return "", argument
    return sandbox, "/" + path.lstrip("/")
