"""What the subcommands of `image` share: the folder they work on, and one way to fail."""

from __future__ import annotations

from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandboxd.core.errors import SandboxdError
from sandboxd.images.place import default_images_folder
from sandboxd.images.store import INTERPRETER, LOCAL, ImageStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandboxd.images.registries import Registries

Images = Annotated[
    Path | None,
    typer.Option("--images", help="The image folder (default: SANDBOXD_IMAGES, else this user's own).", metavar="DIR"),
]


@contextmanager
def opened(
    images: Path | None, registries: Registries = LOCAL, *, interpreter: str = INTERPRETER
) -> Iterator[ImageStore]:
    """Open the image folder; end the program with a sentence where something is refused."""
    folder = images or default_images_folder()
    with told(), closing(ImageStore(folder, interpreter=interpreter, registries=registries)) as store:
        yield store


@contextmanager
def told() -> Iterator[None]:
    """End the program with a sentence and exit code 1 where something is refused."""
    try:
        yield
    except SandboxdError as error:
        typer.echo(f"error: {error.message}", err=True)
        if error.hint:
            typer.echo(f"hint: {error.hint}", err=True)
        raise typer.Exit(1) from error
