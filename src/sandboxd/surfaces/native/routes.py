"""The native part of the server's table of routes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sandboxd.ports.surface import Reply, Route, SocketRoute
from sandboxd.surfaces.native import wire
from sandboxd.surfaces.native.conversation import Conversations
from sandboxd.surfaces.native.errors import render as render_error
from sandboxd.surfaces.native.files import Files
from sandboxd.surfaces.native.life import Life
from sandboxd.surfaces.native.logs import Logs
from sandboxd.surfaces.native.query import SINCE

if TYPE_CHECKING:
    from sandboxd.ports.engine import Engine

SURFACE = "native"
ROOT = "/api/v1/sandboxes"
ONE = ROOT + "/{id}"

_ASKING = (404, 410, 500, 503)
_DOING = (404, 409, 410, 500, 503)
_FILES = (400, 403, 404, 409, 410, 422, 500, 503)
_PATH = "Absolute path; bytes that are not UTF-8 are escaped like all others."
_MODE = "Permission bits in octal."
_PARENTS = "`true`: make missing directories above it."

_route = partial(Route, errors=render_error, error_body=wire.ErrorBody, surface=SURFACE)


def routes(engine: Engine) -> list[Route | SocketRoute]:
    """Return the routes, served by `engine`."""
    return [*_life(Life(engine)), *_logs(Logs(engine)), *_files(Files(engine)), *_sockets(Conversations(engine))]


def _life(calls: Life) -> list[Route]:
    return [
        _route(
            method="GET",
            path=ROOT,
            summary="List sandboxes",
            description="The caller's sandboxes, on whatever wire they were made, oldest first. Those that ended are "
            "listed until they are removed.",
            handler=calls.list,
            replies={200: Reply("All of them.", wire.SandboxesBody)},
        ),
        _route(
            method="GET",
            path=ONE,
            summary="Examine a sandbox",
            description="What is known of it; while it runs also its processes and what it uses.",
            handler=calls.get,
            replies={200: Reply("What is known.", wire.SandboxBody)},
            error_statuses=_ASKING,
        ),
        _route(
            method="DELETE",
            path=ONE,
            summary="Remove a sandbox",
            description="Ends it where it runs. On return nothing of it is left and its id is unknown.",
            handler=calls.destroy,
            replies={204: Reply("It is gone.")},
            error_statuses=(404, 500, 503),
        ),
        _route(
            method="POST",
            path=ONE + "/pause",
            summary="Freeze a sandbox",
            description="Stops every process where it is. Does nothing to a paused one.",
            handler=calls.pause,
            replies={204: Reply("It is frozen.")},
            error_statuses=(*_DOING, 501),
        ),
        _route(
            method="POST",
            path=ONE + "/resume",
            summary="Continue a paused sandbox",
            description="Does nothing to a running one.",
            handler=calls.resume,
            replies={204: Reply("It runs.")},
            error_statuses=(*_DOING, 501),
        ),
    ]


def _logs(calls: Logs) -> list[Route]:
    return [
        _route(
            method="GET",
            path=ONE + "/logs",
            summary="Read what the sandbox's own command wrote",
            description="Lines of JSON: `output` with bytes as Base64, `gap` where some are no longer kept, and "
            "`ended` last where a sandbox that is followed has ended. Offsets count all bytes of a channel, so that a "
            "caller who was cut off goes on from where it was, also with the next server.",
            handler=calls.tell,
            replies={200: Reply("What is kept, in order.", wire.LogLine, wire.LINES)},
            error_statuses=(400, *_DOING),
            query={
                "follow": "`true`: go on with what is written later, until the sandbox has ended.",
                **SINCE,
            },
        )
    ]


def _files(calls: Files) -> list[Route]:
    return [
        _route(
            method="GET",
            path=ONE + "/files",
            summary="Read a file",
            description="Its bytes as they come; a file that is cut off ends without the end of the body. The headers "
            "`X-File-Mode`, `X-File-Size` and `X-File-Modified-Ns` tell what it was before.",
            handler=calls.read,
            replies={200: Reply("The bytes.", bytes, wire.OCTETS)},
            error_statuses=_FILES,
            query={"path": _PATH},
        ),
        _route(
            method="PUT",
            path=ONE + "/files",
            summary="Write a file",
            description="Takes the bytes as they come. The file is replaced as a whole once all are there; a caller "
            "that hangs up before leaves the old one.",
            handler=calls.write,
            replies={204: Reply("It is written.")},
            error_statuses=_FILES,
            query={
                "path": _PATH,
                "mode": _MODE + " Absent: those of the old file, or 0644 for a new one.",
                "parents": _PARENTS,
            },
            streams=True,
            dies_with_caller=True,
        ),
        _route(
            method="GET",
            path=ONE + "/files/status",
            summary="Look at a file, a directory or a symlink",
            description="What is at a path.",
            handler=calls.status,
            replies={200: Reply("What it is.", wire.FileBody)},
            error_statuses=_FILES,
            query={"path": _PATH, "follow": "`false`: of a symlink itself."},
        ),
        _route(
            method="GET",
            path=ONE + "/directory",
            summary="List a directory",
            description="A line of JSON for each entry, in no particular order.",
            handler=calls.list,
            replies={200: Reply("Its entries.", wire.FileBody, wire.LINES)},
            error_statuses=_FILES,
            query={"path": _PATH},
        ),
        _route(
            method="PUT",
            path=ONE + "/directory",
            summary="Make a directory",
            description="With `parents`, one that is there already is right.",
            handler=calls.make_directory,
            replies={204: Reply("It is there.")},
            error_statuses=_FILES,
            query={"path": _PATH, "mode": _MODE + " Absent: 0755.", "parents": _PARENTS},
        ),
        _route(
            method="PUT",
            path=ONE + "/symlink",
            summary="Make a symlink",
            description="Replaces a file or symlink that is in the way. Needs the program `ln` in the image.",
            handler=calls.make_symlink,
            replies={204: Reply("It is there.")},
            error_statuses=(*_FILES, 501),
            query={"path": _PATH, "target": "What the symlink says."},
        ),
    ]


_TALK = (
    "Binary messages are one byte that names the channel (0 stdin, from the caller; 1 stdout, 2 stderr) and the bytes. "
    "Text messages are JSON with a `type`. From the caller: `signal` (`number`, `descendants`), `resize` (`rows`, "
    "`columns`), `close_stdin`. From the server: `started` (`process`, `pid`), `accepted` (`total`: how many bytes of "
    "input the process took; a caller sends at most 1 MiB ahead of it), `stdin_closed`, `truncated` (`channel`, "
    "`dropped`), `refused` (a signal or size; `code`, `message`, `hint`), and last `exited` (`code`, `signal`, "
    "`cause`) or `failed` (`code`, `message`, `hint`). The process is killed when its caller goes."
)


def _sockets(calls: Conversations) -> list[SocketRoute]:
    return [
        SocketRoute(
            path=ONE + "/exec",
            summary="Run a command and talk with it",
            description="The first message says what to run: `argv` (texts, or objects with `base64`), `env`, `cwd`, "
            "`user`, `stdin` (whether there is any input), `terminal` (`rows` and `columns`, or null), `deadline_s`. "
            + _TALK,
            handler=calls.execute,
            errors=render_error,
            surface=SURFACE,
        ),
        SocketRoute(
            path=ONE + "/processes/{process}",
            summary="Collect a process whose server died",
            description="Goes on with an uncertain process. Some of what its first caller heard may be told again, "
            "unless the query says what it has. Once. " + _TALK,
            handler=calls.collect,
            errors=render_error,
            query=SINCE,
            surface=SURFACE,
        ),
    ]
