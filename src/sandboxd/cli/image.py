"""`sandboxd image`: brings images into the image folder, shows and removes them."""

from __future__ import annotations

import json
import shlex
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sandboxd.core.errors import Invalid, SandboxdError
from sandboxd.images.importing import ConfigChanges
from sandboxd.images.place import default_images_folder
from sandboxd.images.reference import printable
from sandboxd.images.store import ImageStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sandboxd.core.records import ImageRecord

app = typer.Typer(help="Import, list and remove images.", no_args_is_help=True)

Images = Annotated[
    Path | None,
    typer.Option("--images", help="The image folder (default: SANDBOXD_IMAGES, else this user's own).", metavar="DIR"),
]
_MIB = 1024 * 1024


@app.command("import")
def bring(
    name: Annotated[str, typer.Argument(help="What to call it, such as `alpine` or `org/app:1.2`.")],
    source: Annotated[
        Path, typer.Argument(help="A root folder, an OCI layout, or a tar archive.", metavar="DIR|TAR", exists=True)
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
    with _store(images) as store:
        changes = ConfigChanges(
            env=tuple(_assignment(item) for item in env or ()),
            user=user,
            cwd=cwd,
            entrypoint=_words(entrypoint),
            command=_words(command),
        )
        record = store.add(name, source, changes)
    typer.echo(f"{record.name} {record.digest}")


@app.command("tag")
def tag(
    reference: Annotated[str, typer.Argument(help="An image that is there.")],
    name: Annotated[str, typer.Argument(help="Its further name.")],
    *,
    images: Images = None,
) -> None:
    """Give an image another name."""
    with _store(images) as store:
        record = store.tag(reference, name)
    typer.echo(f"{record.name} {record.digest}")


@app.command("ls")
def ls(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    images: Images = None,
) -> None:
    """List images."""
    with _store(images) as store:
        records = store.records()
    if as_json:
        typer.echo(json.dumps([asdict(record) for record in records]))
    else:
        Console().print(_table(records))


@app.command("rm")
def rm(
    name: Annotated[str, typer.Argument(help="The name to forget.")],
    *,
    images: Images = None,
) -> None:
    """Remove a name, and the image with it unless another name or a sandbox needs it."""
    with _store(images) as store:
        store.remove(name)


@contextmanager
def _store(images: Path | None) -> Iterator[ImageStore]:
    """Open the image folder; end the program with a sentence where something is refused."""
    try:
        with closing(ImageStore(images or default_images_folder())) as store:
            yield store
    except SandboxdError as error:
        typer.echo(f"error: {error.message}", err=True)
        if error.hint:
            typer.echo(f"hint: {error.hint}", err=True)
        raise typer.Exit(1) from error


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


def _table(records: Iterable[ImageRecord]) -> Table:
    table = Table("NAME", "DIGEST", "LAYERS", "SIZE", "CREATED", box=None, pad_edge=False)
    for record in records:
        created = datetime.fromtimestamp(record.created_at, tz=UTC).strftime("%Y-%m-%d %H:%M")
        size = f"{record.size_bytes / _MIB:.1f} MiB"
        digest = record.digest.removeprefix("sha256:")[:12]
        table.add_row(Text(record.name), digest, str(len(record.layers)), size, created)
    return table
