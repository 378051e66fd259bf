"""`sandboxd exec`: runs a command in a sandbox as if it ran here."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import nullcontext
from typing import Annotated

import typer

from sandboxd.cli import terminal as terminals
from sandboxd.cli.api import DEFAULT_SERVER, Api, Authority, Server, Since, encoded, offsets, path_of, since_query
from sandboxd.cli.telling import INTERRUPTED, tell
from sandboxd.core.errors import Invalid, SandboxdError
from sandboxd.surfaces.native.wire import Base64, ExecBody, ExitedMessage, as_text

OUR_FAILURE = 125
"""Exit code for what went wrong outside the command, which has all others for itself."""
_OF_ITS_OWN = ("exited", "asked")


def execute(
    sandbox: Annotated[str, typer.Argument(metavar="ID", help="The sandbox, or how its id begins.")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND...", help="Program and arguments, run without a shell.")
    ] = None,
    *,
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Pass on stdin.")] = False,
    terminal: Annotated[bool, typer.Option("--terminal", "--tty", "-t", help="Give it a terminal.")] = False,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env", "-e", metavar="KEY[=VALUE]", help="Set a variable, to our own value where none is given."
        ),
    ] = None,
    workdir: Annotated[str, typer.Option("--workdir", "-w", metavar="DIR", help="Run in this folder.")] = "",
    user: Annotated[str, typer.Option("--user", "-u", metavar="USER[:GROUP]", help="Run as this user.")] = "",
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Kill it, and all it started, after so long.")
    ] = None,
    collect: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Run nothing, but go on with process N, whose server died; `inspect` lists processes."
        ),
    ] = None,
    since: Since = "",
    server: Server = DEFAULT_SERVER,
    ca: Authority = None,
) -> None:
    """Run a command in a sandbox: its output, its exit code and our signals pass as if it ran here.

    The exit code is that of the command, 128 + the signal that ended it, 126 or 127 where it could not be run, and 125
    for what went wrong outside it. The command is killed when this program ends first.
    """
    if command and command[0] == "--":
        del command[0]
    try:
        if (collect is None) == (not command):
            raise Invalid("either a command or --collect must be given")
        if terminal and interactive and not os.isatty(0):
            raise Invalid("-t needs a terminal, and stdin is none", hint="leave -t out")
        if since and collect is None:
            raise Invalid("--since goes with --collect")
        path = "/exec" if collect is None else f"/processes/{collect}"
        if since:
            path += encoded(since_query(offsets(since)))
        first = None
        if command:
            first = ExecBody(
                argv=[_word(word) for word in command],
                env=_environment(env or [], terminal=terminal),
                cwd=workdir,
                user=user,
                stdin=interactive,
                terminal=terminals.size() if terminal else None,
                deadline_s=timeout,
            )
        code = _run(server, ca, sandbox, path, first, reads_stdin=interactive, is_raw=terminal and interactive)
    except SandboxdError as error:
        tell(error)
        code = OUR_FAILURE
    except KeyboardInterrupt:
        code = INTERRUPTED
    raise typer.Exit(code)


def _run(
    server: str,
    ca: Authority,
    sandbox: str,
    path: str,
    first: ExecBody | None,
    *,
    reads_stdin: bool,
    is_raw: bool,
) -> int:
    from sandboxd.cli.talk import Ended, talk  # noqa: PLC0415 - slow to load, and of no use to a wrong request

    with Api(server, ca) as api:
        path = path_of(api.find(sandbox)) + path
    talking = talk(api.place, path, first, reads_stdin=reads_stdin, is_raw=is_raw)
    try:
        with terminals.raw(0) if is_raw else nullcontext():
            exited = asyncio.run(talking)
    except Ended as ended:
        return 128 + ended.number
    _explain(exited)
    return exited.code


def _explain(exited: ExitedMessage) -> None:
    if exited.cause not in _OF_ITS_OWN:
        sys.stderr.write(f"sandboxd: the command was killed: {_CAUSES.get(exited.cause, exited.cause)}\n")


_CAUSES = {
    "deadline": "its time ran out",
    "oom": "the sandbox is out of memory",
    "pids": "the sandbox is out of process ids",
    "disk": "the sandbox is out of disk",
}


def _word(word: str) -> str | Base64:
    text, base64 = as_text(word)
    return Base64(base64) if base64 else text


def _environment(given: list[str], *, terminal: bool) -> dict[str, str]:
    env = {"TERM": os.environ.get("TERM", "xterm")} if terminal else {}
    for item in given:
        key, equals, value = item.partition("=")
        if not key:
            raise Invalid(f"`{item}` is not KEY=VALUE")
        if equals:
            env[key] = value
        elif key in os.environ:
            env[key] = os.environ[key]
    if any(as_text(text)[1] for pair in env.items() for text in pair):
        raise Invalid("a variable is not UTF-8")
    return env
