"""`sandboxd logs`: what a sandbox's own command wrote."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from sandboxd.cli.api import DEFAULT_SERVER, Api, Authority, Server, Since, offsets, path_of, since_query
from sandboxd.cli.telling import INTERRUPTED
from sandboxd.core.errors import Unavailable
from sandboxd.surfaces.native.wire import LoggedEnd, LoggedGap, LoggedOutput, log_line

PATIENCE_S = 60.0
"""How long a server that went away while it was followed may take to come back."""
RETRY_S = 0.25
_NAMES = {1: "stdout", 2: "stderr"}


def logs(
    sandbox: Annotated[str, typer.Argument(metavar="ID", help="The sandbox, or how its id begins.")],
    *,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on until the sandbox has ended, also over restarts of the server."),
    ] = False,
    since: Since = "0",
    server: Server = DEFAULT_SERVER,
    ca: Authority = None,
) -> None:
    """Print what is kept of the output of a sandbox's own command: stdout to stdout, stderr to stderr.

    The last 256 KiB of each are kept. What is missing is told on stderr.
    """
    told = offsets(since)
    with Api(server, ca) as api:
        reading = Reading(api, api.find(sandbox), told, follow=follow)
        try:
            reading.run()
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


class Reading:
    """Reads the log of one sandbox and knows how far it came."""

    def __init__(self, api: Api, sandbox_id: str, told: dict[int, int], *, follow: bool) -> None:
        self._api = api
        self._path = path_of(sandbox_id) + "/logs"
        self._told = told
        self._follow = follow
        self._is_over = False

    def run(self) -> None:
        """Write what there is, and where it is followed, what comes."""
        deadline = 0.0
        while not self._is_over:
            try:
                for line in self._api.lines(self._path, self._query()):
                    self._write(line)
                    deadline = time.monotonic() + PATIENCE_S
                self._is_over = self._is_over or not self._follow
            except Unavailable:
                if not self._follow or time.monotonic() > deadline:
                    raise
            if not self._is_over:
                time.sleep(RETRY_S)

    def _query(self) -> dict[str, str]:
        return {"follow": str(self._follow).lower(), **since_query(self._told)}

    def _write(self, line: bytes) -> None:
        match log_line.decode(line):
            case LoggedOutput(channel, offset, data):
                stream = sys.stdout.buffer if channel == 1 else sys.stderr.buffer
                stream.write(data)
                stream.flush()
                self._told[channel] = offset + len(data)
            case LoggedGap(channel, _, dropped):
                sys.stderr.write(f"[sandboxd: {dropped} bytes of {_NAMES.get(channel)} are no longer kept]\n")
                sys.stderr.flush()
            case LoggedEnd():
                self._is_over = True
