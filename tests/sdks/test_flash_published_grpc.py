"""The published flash gRPC clients, unmodified, against our server: on the port of gRPC alone and on that of HTTP."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from tests.sdks.venvs import client_python

from sandboxd.surfaces.grpc import sandbox_pb2

if TYPE_CHECKING:
    from tests.surfaces.live import Caller

HERE = Path(__file__).parent
VERSIONS = ("0.1.0", "0.1.1")
CHECKS = re.findall(r"^@check\ndef (\w+)", (HERE / "flash_grpc_driver.py").read_text(), re.MULTILINE)
TELL_DESCRIPTOR = """
import base64
from flash_sandbox.proto import sandbox_pb2
print(base64.b64encode(sandbox_pb2.DESCRIPTOR.serialized_pb).decode())
"""


def _run(version: str, *arguments: str, kind: str = "container") -> str:
    command = [str(client_python(f"flash-sandbox=={version}")), *arguments]
    environment = {**os.environ, "SANDBOX_TYPE": kind}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["container", "gvisor", "docker"])
@pytest.mark.parametrize("prefix", ["", "/v1/service/sandbox"])
@pytest.mark.parametrize("door", ["grpc", "http"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_method_works_and_every_mistake_is_told(
    server: Caller, version: str, door: str, prefix: str, kind: str
) -> None:
    address = (server.grpc if door == "grpc" else server.host_port) + prefix
    assert _run(version, str(HERE / "flash_grpc_driver.py"), address, kind=kind).split() == CHECKS
    assert server.ask("GET", "/sandboxes").json == {"sandboxes": []}


@pytest.mark.timeout(300)
def test_our_description_is_that_of_the_client_apart_from_its_go_package() -> None:
    theirs = FileDescriptorProto.FromString(base64.b64decode(_run("0.1.1", "-c", TELL_DESCRIPTOR)))
    theirs.ClearField("options")
    ours = FileDescriptorProto()
    sandbox_pb2.DESCRIPTOR.CopyToProto(ours)
    assert ours == theirs
