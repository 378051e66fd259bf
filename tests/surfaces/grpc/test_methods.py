"""Paths and messages: what is found, what is decoded, and what is told about the rest."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc import StatusCode
from tests.surfaces.rpc import RpcClient, refused

from sandboxd.surfaces.grpc import sandbox_pb2 as wire
from sandboxd.surfaces.grpc.methods import methods

if TYPE_CHECKING:
    from tests.surfaces.live import Caller

    from sandboxd.surfaces.grpc.calls import Calls

SKIP_CLEANUP = b"\x10\x01"
"""Field 2 of a later StopRequest, true."""
NON_INTERACTIVE = b"\x18\x01"
"""Field 3 of a later ExecRequest, true."""


@pytest.mark.parametrize("prefix", ["", "/v1/service/sandbox", "/v1//x", "/a%20b", "/sandbox.SandboxService"])
def test_any_prefix_is_served(server: Caller, prefix: str) -> None:
    for address in (server.grpc, server.host_port):
        with RpcClient(address, prefix) as client:
            sandbox = client.start()
            assert client.execute(sandbox, "echo", "hi").stdout == "hi\n"
            client.stop(sandbox)


@pytest.mark.parametrize(
    "path",
    [
        "/sandbox.SandboxService/ReadFile",
        "/sandbox.SandboxService/",
        "/sandbox.SandboxService/GetStatus/",
        "/x.sandbox.SandboxService/GetStatus",
        "/grpc.health.v1.Health/Check",
    ],
)
def test_another_path_is_unimplemented(fake: RpcClient, path: str) -> None:
    assert refused(fake.channel.unary_unary(path), b"").status is StatusCode.UNIMPLEMENTED


def test_every_method_of_the_description_is_served() -> None:
    described = {method.name: method.input_type.name for method in _service()}
    served = {name: method.takes.DESCRIPTOR.name for name, method in methods(cast("Calls", _Anything())).items()}
    assert served == described


def test_the_description_is_that_of_the_published_wire() -> None:
    description = FileDescriptorProto()
    wire.DESCRIPTOR.CopyToProto(description)
    assert (description.name, description.package, description.syntax) == ("sandbox.proto", "sandbox", "proto3")
    assert not description.HasField("options")
    assert not any(message.reserved_range for message in description.message_type)


def test_bytes_that_are_no_message_are_refused_with_a_sentence(fake: RpcClient) -> None:
    told = refused(fake.method("GetStatus", wire.StatusResponse), b"\xff\xff\xff")
    assert (told.status, "GetStatus" in told.text) == (StatusCode.INVALID_ARGUMENT, True)


def test_what_later_clients_ask_for_and_we_lack_is_refused_by_name(fake: RpcClient) -> None:
    sandbox = fake.start()
    stop = wire.StopRequest(id=sandbox).SerializeToString()
    told = refused(fake.method("StopSandbox", wire.StopResponse), stop + SKIP_CLEANUP)
    assert (told.status, "`skip_cleanup`" in told.text) == (StatusCode.INVALID_ARGUMENT, True)
    fake.stop(sandbox)


def test_what_later_clients_ask_for_and_we_do_anyway_is_done(fake: RpcClient) -> None:
    request = wire.ExecRequest(id=fake.start(), command=["echo", "hi"]).SerializeToString() + NON_INTERACTIVE
    reply, call = _with_call(fake, "ExecCommand", wire.ExecResponse, request)
    assert (reply.stdout, call.trailing_metadata()) == ("hi\n", ())


def test_a_field_that_nobody_knows_is_named_beside_the_answer(fake: RpcClient) -> None:
    request = wire.StatusRequest(id=fake.start()).SerializeToString() + b"\x4a\x02ab" + b"\x4a\x01c"
    reply, call = _with_call(fake, "GetStatus", wire.StatusResponse, request)
    assert reply.status == "running"
    assert call.trailing_metadata() == (("sandboxd-warning", "unknown field 9 was not acted on"),)


def test_a_request_larger_than_the_node_takes_is_refused(fake: RpcClient) -> None:
    told = refused(fake.run_python, "sb-1", "#" * (17 << 20))
    assert told.status is StatusCode.RESOURCE_EXHAUSTED


def test_calls_are_counted_by_method_and_status(fake_server: Caller, fake: RpcClient) -> None:
    fake.start()
    refused(fake.status, "sb-bogus")
    figures = fake_server.ask("GET", "/metrics").text
    for method, status in (("StartSandbox", "OK"), ("GetStatus", "NOT_FOUND")):
        labels = f'method="gRPC",route="/sandbox.SandboxService/{method}",status="{status}"'
        assert re.search(rf"sandboxd_requests_total{{{re.escape(labels)}}} [1-9]", figures), figures


class _Anything:
    def __getattr__(self, name: str) -> Any:
        return name


def _service() -> Any:
    return wire.DESCRIPTOR.services_by_name["SandboxService"].methods


def _with_call(client: RpcClient, name: str, reply: Any, request: bytes) -> Any:
    return client.method(name, reply).with_call(request)  # type: ignore[attr-defined]
