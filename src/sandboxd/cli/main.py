"""The command `sandboxd`: one file a subcommand, and one way to fail."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import typer
from typer.core import TyperGroup

from sandboxd.cli.doctor import doctor
from sandboxd.cli.image import app as image
from sandboxd.cli.serve import serve
from sandboxd.core.errors import Invalid, SandboxdError

FAILED = 1
MISUSED = 2


class OneSentence(TyperGroup):
    """Turns our errors into a line on stderr: exit code 2 for a request that is wrong, 1 for what did not work."""

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except SandboxdError as error:
            typer.echo(f"error: {error.message}", err=True)
            if error.hint:
                typer.echo(f"hint: {error.hint}", err=True)
            raise typer.Exit(MISUSED if isinstance(error, Invalid) else FAILED) from error


app = typer.Typer(
    name="sandboxd",
    cls=OneSentence,
    help="One server that gives untrusted code a place to run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.command()(doctor)
app.add_typer(image, name="image")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(metadata.version("sandboxd"))
