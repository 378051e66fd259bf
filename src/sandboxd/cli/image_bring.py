"""`sandboxd image import`: brings what is on this machine into the image folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sandboxd.cli.image_folder import Images, opened
from sandboxd.core.errors import Invalid
from sandboxd.images.fetching import is_transport
from sandboxd.images.importing import ConfigChanges
from sandboxd.images.reference import printable


def bring(
    name: Annotated[str, typer.Argument(help="What to call it, such as `alpine` or `org/app:1.2`.")],
    source: Annotated[
        str,
        typer.Argument(
            help="A root folder, an OCI layout, a tar archive; or `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, "
            "`docker-archive:FILE[:NAME]`, `docker-daemon:NAME`.",
            metavar="SOURCE",
        ),
    ],
    *,
    env: Annotated[list[str] | None, typer.Option(help="Set a variable, KEY=VALUE; may be repeated.")] = None,
    user: Annotated[str | None, typer.Option(help="Run as this user of the image.")] = None,
    cwd: Annotated[str | None, typer.Option(help="Run in this folder.")] = None,
    entrypoint: Annotated[str | None, typer.Option(help="What is put before commands, in shell words.")] = None,
    command: Annotated[str | None, typer.Option(help="What to run by default, in shell words.")] = None,
    images: Images = None,
) -> None:
    """Import a root file system or an image under a name.

    Environment, user, folder, entrypoint and command of an OCI image are kept unless given here.
    """
    with opened(images) as store:
        changes = ConfigChanges(
            env=tuple(_assignment(item) for item in env or ()),
            user=user,
            cwd=cwd,
            entrypoint=_words(entrypoint),
            command=_words(command),
        )
        if Path(source).exists():
            record = store.add(name, Path(source), changes)
        elif is_transport(source):
            record = store.fetch(name, source, changes)
        else:
            raise Invalid(f"there is no file or folder `{printable(source)}`")
    typer.echo(f"{record.name} {record.digest}")


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise Invalid(f"`{printable(text)}` is not KEY=VALUE")
    return key, value


def _words(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise Invalid(f"`{printable(text)}` is not a line of shell words: {str(error).lower()}") from error
