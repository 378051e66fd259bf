"""How the command line tells what went wrong: a line on stderr, a hint below it, and an exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from sandboxd.core.errors import Invalid

if TYPE_CHECKING:
    from sandboxd.core.errors import SandboxdError

FAILED = 1
MISUSED = 2
INTERRUPTED = 130


def tell(error: SandboxdError, *, about: str = "") -> None:
    """Write an error for people; `about` names what it concerns where a command does several things."""
    typer.echo(f"error: {about}{': ' if about else ''}{legible(error.message)}", err=True)
    if error.hint:
        typer.echo(f"hint: {legible(error.hint)}", err=True)


def exit_code(error: SandboxdError) -> int:
    """Return 2 for a request that is wrong, 1 for what did not work."""
    return MISUSED if isinstance(error, Invalid) else FAILED


def legible(text: str) -> str:
    """Show what would change the terminal, or is no text, as what it is."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
