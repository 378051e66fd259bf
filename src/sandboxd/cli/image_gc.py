"""`sandboxd image gc`: removes what was not used for longest."""

from __future__ import annotations

from typing import Annotated

import typer

from sandboxd.cli.image_folder import Images, opened, told
from sandboxd.cli.options import Changes, Config, settings_from
from sandboxd.server.pulls import registries

_MIB = 1024 * 1024


def gc(
    *,
    max_bytes: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Size of all layers to come to (default: `image.max_bytes`, if any)."),
    ] = None,
    pulled: Annotated[
        bool, typer.Option("--pulled", help="Remove only images that a registry gave and can give again.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    images: Images = None,
    config: Config = None,
    changes: Changes = None,
) -> None:
    """Remove what nobody needs; then, above a size, the images that were not used for longest.

    Images that sandboxes use stay, whichever server of this machine they belong to.
    """
    with told():
        settings = settings_from(config, changes, {"images": images})
    limit = settings.image.max_bytes if max_bytes is None else max_bytes
    most = limit if limit or max_bytes is not None else 2**63
    with opened(settings.images, registries(settings.image), interpreter=settings.image.interpreter) as store:
        collected = store.gc(most, only_pulled=pulled, dry_run=dry_run)
    verb = "would go" if dry_run else "went"
    for image in collected.images:
        typer.echo(f"{image.name} {image.digest} {verb}")
    freed = (collected.bytes_before - collected.bytes_after) / _MIB
    typer.echo(f"{freed:.1f} MiB {verb}, {collected.bytes_after / _MIB:.1f} MiB of layers stay", err=True)
