"""Short-lived programs of the host: started without fork's cost, awaited by descriptor, killed on cancellation."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxd.core.errors import Unavailable
from sandboxd.host.pidfd import PidFd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_CAUGHT_OR_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD)


@dataclass(frozen=True, slots=True)
class Streams:
    """Descriptors that become a program's stdin, stdout and stderr; they stay the caller's to close."""

    stdin: int
    stdout: int
    stderr: int


def start(argv: Sequence[str], streams: Streams, *, environment: Mapping[str, str] | None = None) -> int:
    """Start a program in a session of its own and return its pid; it is our child, to be reaped by us.

    It inherits the calling thread's namespaces and nothing else: no other descriptor, no signal setting.

    Raises:
        Unavailable: there is no such program, or it cannot be executed.
    """
    actions = [
        (os.POSIX_SPAWN_DUP2, streams.stdin, 0),
        (os.POSIX_SPAWN_DUP2, streams.stdout, 1),
        (os.POSIX_SPAWN_DUP2, streams.stderr, 2),
    ]
    try:
        return os.posix_spawnp(
            argv[0],
            list(argv),
            dict(ENVIRONMENT if environment is None else environment),
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_CAUGHT_OR_IGNORED,
        )
    except OSError as error:
        raise Unavailable(f"`{argv[0]}` cannot be started: {error.strerror}") from error


async def wait(pid: int) -> int:
    """Wait for a child started by `start`, reap it and return its exit code, or minus the signal that ended it.

    Cancellation kills the child and reaps it before it goes on.
    """
    process = PidFd(pid)
    try:
        try:
            await process.wait()
        except BaseException:
            process.send(signal.SIGKILL)
            os.waitpid(pid, 0)  # noqa: ASYNC222 - SIGKILL leaves nothing to wait for
            raise
        status = process.reap()
        assert status is not None, "an ended child of ours was reaped by somebody else"  # noqa: S101 - our invariant
        return status
    finally:
        process.close()


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended: its exit code (or minus its signal) and the ends of what it said."""

    status: int
    output: str
    errors: str


async def run(argv: Sequence[str]) -> Result:
    """Run a program without input to its end.

    Raises:
        Unavailable: there is no such program, or it cannot be executed.
    """
    with ExitStack() as opened:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        opened.callback(os.close, null)
        output, errors = (os.memfd_create(name, os.MFD_CLOEXEC) for name in ("output", "errors"))
        opened.callback(os.close, output)
        opened.callback(os.close, errors)
        status = await wait(start(argv, Streams(null, output, errors)))
        return Result(status, _end_of(output), _end_of(errors))


def _end_of(file: int, limit: int = 2000) -> str:
    text = os.pread(file, limit, max(0, os.fstat(file).st_size - limit)).decode(errors="replace")
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def tail(path: Path) -> str:
    """Return the end of what a program wrote into a file, its lines joined by `; `; empty where there is no file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        return _end_of(fd)
    finally:
        os.close(fd)
