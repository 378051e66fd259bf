"""The JSON of the native wire; from each type come its decoder, its checks and its schema."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from datetime import datetime  # noqa: TC003 - msgspec reads the annotation when it runs
from typing import Annotated, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from sandboxd.core.errors import Invalid

OCTETS = "application/octet-stream"
LINES = "application/x-ndjson"
STDIN_WINDOW = 1 << 20
"""Bytes of input that a caller may send before it is told that some were accepted."""
NO_TEXT = "Base64 of the bytes, where they are not UTF-8."


class ErrorBody(Struct):
    """Why a call failed."""

    code: Annotated[str, Meta(description="A word for programs, from a closed set: `not_found`, `conflict`, …")]
    message: Annotated[str, Meta(description="A sentence.")]
    hint: Annotated[str, Meta(description="What to do about it; may be empty.")] = ""


class LimitsBody(Struct):
    """Ceilings. Null means none."""

    memory_bytes: int
    cpus: float | None
    pids: int
    disk_bytes: int | None


class ProcessBody(Struct):
    """A process that the sandbox remembers."""

    process: Annotated[int, Meta(description="Its number, in paths of this API.")]
    pid: Annotated[int, Meta(description="Its number inside; 0: it could not be executed.")]
    code: Annotated[int | None, Meta(description="Exit status, or 128 + the signal; null: it runs.")]
    signal: int
    is_command: Annotated[bool, Meta(description="Whether it is the sandbox's own command.")]
    is_uncertain: Annotated[bool, Meta(description="Whether nobody was told how it ended, so it can be collected.")]


class MetricsBody(Struct):
    """What a sandbox uses now. Byte counters are cumulative since it started."""

    memory_usage_bytes: int
    memory_limit_bytes: int
    cpu_percent: Annotated[float, Meta(description="Since the last reading; 100 is one core kept busy.")]
    pids_current: int
    net_rx_bytes: int
    net_tx_bytes: int
    block_read_bytes: int
    block_write_bytes: int


class SandboxBody(Struct):
    """A sandbox. Null means: none, never, or not known."""

    id: str
    owner: str
    state: Annotated[str, Meta(description="creating, running, paused, stopped, destroying or lost.")]
    runtime: Annotated[str, Meta(description="Runtime that was chosen.")]
    flavour: Annotated[str, Meta(description="Program that isolates it.")]
    asked_runtime: Annotated[str, Meta(description="Runtime as asked; empty: any.")]
    image: str
    image_digest: str
    command: list[str]
    limits: LimitsBody
    network: str
    surface: Annotated[str, Meta(description="Wire over which it was made.")]
    created_at: datetime
    expires_at: datetime | None
    last_active_at: datetime
    cause: Annotated[str | None, Meta(description="Why it is not running, from a closed set.")]
    reason: Annotated[str, Meta(description="The same as a sentence.")]
    exit_code: Annotated[int | None, Meta(description="Of its own command, once that has ended.")]
    warnings: Annotated[list[str], Meta(description="What was accepted but not acted on.")]
    processes: Annotated[list[ProcessBody] | UnsetType, Meta(description="Where one is asked for and it runs.")] = UNSET
    metrics: Annotated[MetricsBody | UnsetType, Meta(description="Where one is asked for and it runs.")] = UNSET


class SandboxesBody(Struct):
    """The caller's sandboxes, oldest first."""

    sandboxes: list[SandboxBody]


class FileBody(Struct, omit_defaults=True):
    """An entry of the sandbox's file system."""

    name: Annotated[str, Meta(description="Last part of its path.")]
    kind: Annotated[str, Meta(description="file, directory, symlink or other.")]
    mode: Annotated[str, Meta(description="Permission bits in octal.", examples=["0644"])]
    size: int
    modified_ns: Annotated[int, Meta(description="Time of the last change, nanoseconds since 1970.")]
    uid: int
    gid: int
    target: Annotated[str, Meta(description="What a symlink says.")] = ""
    name_base64: Annotated[str, Meta(description=NO_TEXT)] = ""
    target_base64: Annotated[str, Meta(description=NO_TEXT)] = ""


class Base64(Struct, forbid_unknown_fields=True):
    """Bytes that are not UTF-8."""

    base64: str


class TerminalBody(Struct, forbid_unknown_fields=True):
    """A terminal's size."""

    rows: Annotated[int, Meta(ge=0, le=65535)] = 24
    columns: Annotated[int, Meta(ge=0, le=65535)] = 80


class ExecBody(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The first message of a conversation: a command to run."""

    argv: list[str | Base64]
    env: dict[str, str] = {}
    cwd: str = ""
    user: str = ""
    stdin: bool = False
    terminal: TerminalBody | None = None
    deadline_s: float | None = None


class SignalMessage(Struct, tag="signal", forbid_unknown_fields=True):
    """From the caller: send a signal to the process, or to it and all its descendants."""

    number: Annotated[int, Meta(ge=1, le=64)]
    descendants: bool = False


class ResizeMessage(Struct, tag="resize", forbid_unknown_fields=True):
    """From the caller: the terminal has another size."""

    rows: Annotated[int, Meta(ge=0, le=65535)]
    columns: Annotated[int, Meta(ge=0, le=65535)]


class CloseStdinMessage(Struct, tag="close_stdin", forbid_unknown_fields=True):
    """From the caller: there is no more input."""


class StartedMessage(Struct, tag="started"):
    """From the server: the process runs."""

    process: int
    pid: int


class AcceptedMessage(Struct, tag="accepted"):
    """From the server: the process has taken so many bytes of input in all."""

    total: int


class StdinClosedMessage(Struct, tag="stdin_closed"):
    """From the server: the process takes no more input; what was not accepted is lost."""


class TruncatedMessage(Struct, tag="truncated"):
    """From the server: so many bytes of a channel are missing here."""

    channel: int
    dropped: int


class RefusedMessage(ErrorBody, tag="refused"):
    """From the server: a signal or a size could not be passed on; the conversation goes on."""


class ExitedMessage(Struct, tag="exited"):
    """From the server, last: the process has ended."""

    code: Annotated[int, Meta(description="Exit status, or 128 + the signal that ended it.")]
    signal: int
    cause: str


class FailedMessage(ErrorBody, tag="failed"):
    """From the server, last: the conversation cannot go on."""


CallerMessage = SignalMessage | ResizeMessage | CloseStdinMessage
ServerMessage = (
    StartedMessage
    | AcceptedMessage
    | StdinClosedMessage
    | TruncatedMessage
    | RefusedMessage
    | ExitedMessage
    | FailedMessage
)


class LoggedOutput(Struct, tag="output"):
    """A piece of what the sandbox's own command wrote; `offset` counts all bytes of this channel before it."""

    channel: Annotated[int, Meta(description="1: stdout, 2: stderr.")]
    offset: int
    data: Annotated[bytes, Meta(description="Base64.")]


class LoggedGap(Struct, tag="gap"):
    """Bytes that are no longer kept."""

    channel: int
    offset: int
    dropped: int


class LoggedEnd(Struct, tag="ended"):
    """The sandbox has ended; the last line."""

    state: str
    cause: str | None
    reason: str
    exit_code: int | None


LogLine = LoggedOutput | LoggedGap | LoggedEnd

encode = msgspec.json.Encoder().encode
exec_body = msgspec.json.Decoder(ExecBody)
caller_message = msgspec.json.Decoder(CallerMessage)
server_message = msgspec.json.Decoder(ServerMessage)
log_line = msgspec.json.Decoder(LogLine)

_Shape = TypeVar("_Shape", bound=Struct)


def decode(text: str | bytes, shape: msgspec.json.Decoder[_Shape]) -> _Shape:
    """Return JSON as its type. Raises Invalid where it is none."""
    try:
        return shape.decode(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"this message is not what is expected here: {error}") from error


def as_text(text: str) -> tuple[str, str]:
    """Return a name as text and, where its bytes are not UTF-8, as Base64 too; surrogates stand for such bytes."""
    if text.isascii():
        return text, ""
    data = text.encode(errors="surrogateescape")
    shown = data.decode(errors="replace")
    return shown, "" if shown.encode() == data else b64encode(data).decode()


def from_text(shown: str, base64: str) -> str:
    """Return the name that `as_text` was given. Raises Invalid where the Base64 is none."""
    if not base64:
        return shown
    try:
        return b64decode(base64, validate=True).decode(errors="surrogateescape")
    except binascii.Error as error:
        raise Invalid(f"`{base64[:80]}` is not Base64") from error
