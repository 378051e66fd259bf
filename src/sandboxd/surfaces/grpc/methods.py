"""The methods of the service by name: what each takes, what serves it, and what its caller's leaving means for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from sandboxd.core.errors import Invalid
from sandboxd.surfaces.grpc import sandbox_pb2 as wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandboxd.surfaces.grpc.calls import Calls

PATH = "/sandbox.SandboxService"


@dataclass(frozen=True, slots=True)
class Method:
    """One method. Once begun, it runs to its end although its caller left, if it `outlives_caller`.

    What `runs_command` may take as long as commands may. What `takes_key` is called with the request and the caller's
    idempotency key, everything else with the request alone.
    """

    name: str
    takes: type[Message]
    call: Callable[..., Awaitable[Message]]
    runs_command: bool = False
    takes_key: bool = False
    outlives_caller: bool = False


_LATER: dict[type[Message], dict[int, str]] = {wire.StopRequest: {2: "skip_cleanup"}}
"""Fields that later clients define and that ask for something we lack where they are not zero."""
_HARMLESS: dict[type[Message], set[int]] = {
    wire.ExecRequest: {3},  # non_interactive: no command here has a terminal or a stdin
}


def methods(calls: Calls) -> dict[str, Method]:
    """Return every method by name."""
    table = (
        Method("StartSandbox", wire.StartRequest, calls.start_sandbox, takes_key=True),
        Method("StopSandbox", wire.StopRequest, calls.stop_sandbox, outlives_caller=True),
        Method("ExecCommand", wire.ExecRequest, calls.exec_command, runs_command=True, takes_key=True),
        Method("GetStatus", wire.StatusRequest, calls.get_status),
        Method("GetMetrics", wire.MetricsRequest, calls.get_metrics),
        Method("SnapshotSandbox", wire.SnapshotRequest, calls.snapshot_sandbox, outlives_caller=True),
        Method("ResumeSandbox", wire.ResumeRequest, calls.resume_sandbox, outlives_caller=True),
        Method("RunPython", wire.RunPythonRequest, calls.run_python, runs_command=True, takes_key=True),
        Method("GetPlatformInfo", wire.GetPlatformInfoRequest, calls.get_platform_info),
    )
    return {method.name: method for method in table}


def decode(method: Method, body: bytes) -> tuple[Message, list[str]]:
    """Return a request, with a warning for each field that nobody has ever defined.

    Raises:
        Invalid: the bytes are no such message, or they ask for something that only a later version defines.
    """
    try:
        request = method.takes.FromString(body)
    except DecodeError as error:
        raise Invalid(f"the request of {method.name} cannot be decoded: {error}") from error
    surplus = UnknownFieldSet(request)
    return request, _judge_surplus(method, surplus) if len(surplus) else []


def _judge_surplus(method: Method, surplus: UnknownFieldSet) -> list[str]:
    later = _LATER.get(method.takes, {})
    unknown = set()
    for field in (surplus[index] for index in range(len(surplus))):
        if field.field_number not in later:
            unknown.add(field.field_number)
        elif field.data:
            raise Invalid(f"`{later[field.field_number]}` is not supported by this server", hint="leave it out")
    unknown -= _HARMLESS.get(method.takes, set())
    return [f"unknown field {number} was not acted on" for number in sorted(unknown)]
