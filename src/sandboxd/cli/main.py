"""The command `sandboxd`: one file a subcommand, loaded when it is asked for, and one way to fail."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from sandboxd.cli.telling import exit_code, tell
from sandboxd.core.errors import SandboxdError

COMMANDS = {
    "serve": "serve:serve",
    "doctor": "doctor:doctor",
    "image": "image:app",
    "ps": "ps:ps",
    "inspect": "inspect:inspect",
    "exec": "exec:execute",
    "logs": "logs:logs",
    "cp": "cp:cp",
    "rm": "rm:rm",
    "version": "version:version",
}
"""Where each subcommand is: a function, or an application of its own."""
TAKES_WORDS = {"exec"}
"""Subcommands whose options end with the first argument: what follows belongs to another program."""


class Subcommands(TyperGroup):
    """Loads the subcommand that runs, and turns our errors into a line on stderr and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature of its parent
        """Return all names."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the signature of its parent
        """Load a subcommand; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        found = getattr(import_module(f"sandboxd.cli.{module}"), name)
        if not isinstance(found, typer.Typer):
            alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            settings = {"allow_interspersed_args": False} if cmd_name in TAKES_WORDS else {}
            alone.command(cmd_name, context_settings=settings)(found)
            found = alone
        command = get_command(found)
        command.name = cmd_name
        return command

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except SandboxdError as error:
            tell(error)
            raise typer.Exit(exit_code(error)) from error


app = typer.Typer(
    name="sandboxd",
    cls=Subcommands,
    help="One server that gives untrusted code a place to run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def sandboxd() -> None:
    """One server that gives untrusted code a place to run."""
