"""Flash's JSON bodies, exactly as documented; from each come its decoder, its checks and its schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from sandboxd.core.errors import Invalid
from sandboxd.core.spec import MOST_MEMORY_MB

if TYPE_CHECKING:
    from collections.abc import Mapping


class CreateBody(Struct):
    """A sandbox to make. An optional key that is null counts as absent."""

    image: Annotated[str, Meta(description="Name of an imported image.", examples=["alpine:latest"])]
    type: Annotated[
        str | None,
        Meta(description="Runtime: `container`, `gvisor`, `docker`, …; `auto` or empty lets the node choose."),
    ] = ""
    command: Annotated[
        list[str] | None,
        Meta(description="Main process, run without a shell; when it ends the sandbox is stopped. Empty: none."),
    ] = None
    memory_mb: Annotated[
        Annotated[int, Meta(ge=0, le=MOST_MEMORY_MB)] | None,
        Meta(description="Hard memory limit in MiB; 0 or absent: the node's default, usually 512."),
    ] = None
    cpu_cores: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="Limit in cores, fractions allowed; 0: unbounded, absent: the node's default, usually 1."),
    ] = None
    kernel_image: Annotated[str | None, Meta(description="Refused by runtimes that boot no kernel.")] = None
    initrd_path: Annotated[str | None, Meta(description="Refused by runtimes that boot no kernel.")] = None
    snapshot_path: Annotated[str | None, Meta(description="Restore from this snapshot; refused where unsupported.")] = (
        None
    )
    mem_file_path: Annotated[
        str | None,
        Meta(description="Memory part of the snapshot; without it, the sandbox begins from the files alone."),
    ] = None


class ExecBody(Struct):
    """A command to run."""

    command: Annotated[
        list[str], Meta(description="Program and arguments, run without a shell.", examples=[["echo", "hello"]])
    ]


class PythonBody(Struct):
    """Python source to run."""

    code: Annotated[str, Meta(description="Source text, run by the sandbox's python3.", examples=["print(6 * 7)"])]


class EmptyBody(Struct):
    """Nothing: the body may be absent or an empty object."""


class SandboxBody(Struct, omit_defaults=True):
    """A sandbox. `id` and `status` are always present."""

    id: str
    status: Annotated[str, Meta(description="creating, running, paused, stopped, destroying or lost.")]
    type: Annotated[str | UnsetType, Meta(description="Runtime as asked.")] = UNSET
    runtime: Annotated[str | UnsetType, Meta(description="Runtime that was chosen.")] = UNSET
    flavour: Annotated[str | UnsetType, Meta(description="Program that isolates it.")] = UNSET
    image: str | UnsetType = UNSET
    image_digest: str | UnsetType = UNSET
    command: list[str] | UnsetType = UNSET
    memory_mb: int | UnsetType = UNSET
    cpu_cores: Annotated[float | UnsetType, Meta(description="0 means unbounded.")] = UNSET
    network: str | UnsetType = UNSET
    created_at: Annotated[str | UnsetType, Meta(description="RFC 3339, UTC.")] = UNSET
    expires_at: Annotated[str | UnsetType, Meta(description="RFC 3339, UTC; absent: never.")] = UNSET
    cause: Annotated[str | UnsetType, Meta(description="Why it is not running, from a closed set.")] = UNSET
    reason: Annotated[str | UnsetType, Meta(description="The same as a sentence.")] = UNSET
    exit_code: Annotated[int | UnsetType, Meta(description="Of the main process, once it ended.")] = UNSET
    warnings: Annotated[list[str] | UnsetType, Meta(description="What was accepted but not acted on.")] = UNSET


class SandboxesBody(Struct):
    """The caller's sandboxes, oldest first."""

    sandboxes: list[SandboxBody]


class ExecReply(Struct, omit_defaults=True):
    """How a command ended. Output is UTF-8 with replacement, cut at the node's limit with a sentence that says so."""

    stdout: str
    stderr: str
    exit_code: Annotated[int, Meta(description="Exit status, or 128 + the signal that ended it.")]
    cause: Annotated[str | UnsetType, Meta(description="Why it ended, when it did not end of its own accord.")] = UNSET
    warnings: Annotated[list[str] | UnsetType, Meta(description="What was accepted but not acted on.")] = UNSET


class PythonReply(Struct, omit_defaults=True):
    """How a Python program ended: `result` is its stdout, or its stderr when it failed."""

    result: str
    stdout: str
    stderr: str
    exit_code: int
    cause: Annotated[str | UnsetType, Meta(description="Why it ended, when it did not end of its own accord.")] = UNSET
    warnings: Annotated[list[str] | UnsetType, Meta(description="What was accepted but not acted on.")] = UNSET


class MetricsReply(Struct):
    """A point-in-time reading. Byte counters are cumulative since the sandbox started."""

    memory_usage_bytes: int
    memory_limit_bytes: int
    memory_percent: Annotated[float, Meta(description="100 x usage / limit.")]
    cpu_percent: Annotated[float, Meta(description="Since the last reading; 100 is one core kept busy.")]
    pids_current: int
    net_rx_bytes: int
    net_tx_bytes: int
    block_read_bytes: int
    block_write_bytes: int


class SnapshotReply(Struct, omit_defaults=True):
    """Where the parts of a snapshot lie on the server. Both files exist and are not empty."""

    snapshot_path: str
    mem_file_path: Annotated[str, Meta(description="A small JSON file that says so where no memory was captured.")]
    warnings: Annotated[list[str] | UnsetType, Meta(description="What was accepted but not acted on.")] = UNSET


class EmptyReply(Struct, omit_defaults=True):
    """Done."""

    warnings: Annotated[list[str] | UnsetType, Meta(description="What was accepted but not acted on.")] = UNSET


class PlatformReply(Struct):
    """What the platform looks like from inside."""

    info: Annotated[str, Meta(description="A JSON object as text: system, node, release, version, machine, processor.")]


_ADMISSION: dict[str, object] = {"admission_timeout_ms": None}
_LATER: dict[type[Struct], dict[str, object]] = {
    CreateBody: {
        "vcpu_count": None,
        "memory_request_mb": None,
        "cpu_request_cores": None,
        "cpu_policy": {},
        "ttl_seconds": 0,
        "ephemeral": False,
        "snapshot_node_id": "",
        "template": "",
        "gpu": None,
        "snapshot_opts": {},
        "env": {},
        "bind_mounts": [],
        "expose_ports": [],
        "metadata": {},
        "id": "",
        "setup": None,
        "operation_id": "",
        **_ADMISSION,
    },
    ExecBody: {"script": "", "timeout_ms": 0, "metadata": {}, "interactive": False},
    PythonBody: {},
    EmptyBody: _ADMISSION,
}
"""Keys that later flash clients define and this surface lacks, with the value that asks for nothing; so does null."""


_COMMAND_HINT = 'give a list of strings, for a shell line ["sh", "-c", "…"]'

_Shape = TypeVar("_Shape", bound=Struct)
_keys = msgspec.json.Decoder(dict[str, Any])
_exact: dict[type[Struct], msgspec.json.Decoder[Any]] = {
    shape: msgspec.json.Decoder(msgspec.defstruct(shape.__name__, [], bases=(shape,), forbid_unknown_fields=True))
    for shape in _LATER
}
encode = msgspec.json.Encoder().encode


def decode(body: bytes, shape: type[_Shape]) -> tuple[_Shape, list[str]]:
    """Return a body as its type, with a warning for each key that nobody has ever defined.

    Raises:
        Invalid: it is not such a body, or it asks for something that only a later version of flash defines.
    """
    try:
        return _exact[shape].decode(body), []
    except (ValueError, RecursionError):
        return _decode_inexact(body, shape)


def decode_nothing(body: bytes) -> list[str]:
    """Check the body of a call that takes none; like `decode`, but no body at all is right too."""
    return decode(body, EmptyBody)[1] if body else []


def _decode_inexact(body: bytes, shape: type[_Shape]) -> tuple[_Shape, list[str]]:
    try:
        given = _keys.decode(body)
        known = {key: value for key, value in given.items() if key in shape.__struct_fields__}
        decoded = msgspec.convert(known, shape)
    except RecursionError as error:
        raise Invalid("the body is nested too deeply") from error
    except ValueError as error:
        hint = _COMMAND_HINT if "`$.command" in str(error) else ""
        raise Invalid(f"the body is not what this call takes: {error}", hint=hint) from error
    return decoded, _judge_surplus({key: given[key] for key in given.keys() - known.keys()}, _LATER[shape])


def _judge_surplus(surplus: Mapping[str, object], later: Mapping[str, object]) -> list[str]:
    for key in sorted(surplus.keys() & later.keys()):
        if surplus[key] is not None and surplus[key] != later[key]:
            raise Invalid(f"`{key}` is not supported by this server", hint="leave it out")
    return [f"unknown key `{key[:100]}` was not acted on" for key in sorted(surplus.keys() - later.keys())]
