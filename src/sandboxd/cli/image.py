"""`sandboxd image`: brings images into the image folder, shows and removes them."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sandboxd.cli.image_bring import bring
from sandboxd.cli.image_folder import Images, opened
from sandboxd.cli.image_gc import gc
from sandboxd.cli.image_pull import pull

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxd.core.records import ImageRecord

app = typer.Typer(help="Pull, import, list and remove images.", no_args_is_help=True)
app.command("pull")(pull)
app.command("import")(bring)
app.command("gc")(gc)

_MIB = 1024 * 1024


@app.command("tag")
def tag(
    reference: Annotated[str, typer.Argument(help="An image that is there.")],
    name: Annotated[str, typer.Argument(help="Its further name.")],
    *,
    images: Images = None,
) -> None:
    """Give an image another name."""
    with opened(images) as store:
        record = store.tag(reference, name)
    typer.echo(f"{record.name} {record.digest}")


@app.command("ls")
def ls(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    images: Images = None,
) -> None:
    """List images."""
    with opened(images) as store:
        records = store.records()
    if as_json:
        typer.echo(json.dumps([asdict(record) for record in records]))
    else:
        Console().print(_table(records))


@app.command("inspect")
def inspect(
    reference: Annotated[str, typer.Argument(help="An image that is there, by name or digest.")],
    *,
    images: Images = None,
) -> None:
    """Print all that is known of an image, as JSON."""
    with opened(images) as store:
        found = store.inspect(reference)
    typer.echo(json.dumps(asdict(found), indent=2))


@app.command("rm")
def rm(
    name: Annotated[str, typer.Argument(help="The name to forget.")],
    *,
    images: Images = None,
) -> None:
    """Remove a name, and the image with it unless another name or a sandbox needs it."""
    with opened(images) as store:
        store.remove(name)


def _table(records: Iterable[ImageRecord]) -> Table:
    table = Table("NAME", "DIGEST", "LAYERS", "SIZE", "CREATED", box=None, pad_edge=False)
    for record in records:
        created = datetime.fromtimestamp(record.created_at, tz=UTC).strftime("%Y-%m-%d %H:%M")
        size = f"{record.size_bytes / _MIB:.1f} MiB"
        digest = record.digest.removeprefix("sha256:")[:12]
        table.add_row(Text(record.name), digest, str(len(record.layers)), size, created)
    return table
