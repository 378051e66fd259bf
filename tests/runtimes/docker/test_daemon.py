"""What is found out about a daemon, and the one sentence for each way in which it cannot be used."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.runtimes.inside import shell_in
from tests.runtimes.kits import DockerKit

from sandboxd.core.errors import Conflict, Invalid, SandboxdError, Unavailable
from sandboxd.core.ids import new_internal_id
from sandboxd.core.records import ImageConfig, ImageRecord
from sandboxd.ports.images import Rootfs
from sandboxd.ports.runtime import InstanceSpec
from sandboxd.runtimes.docker.address import DEFAULT, Address
from sandboxd.runtimes.docker.runtime import DockerRuntime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from tests.runtimes.docker.daemons import Daemon

QUICKLY_S = 1.8
VERSION = {"Version": "28.2.2", "ApiVersion": "1.50", "MinAPIVersion": "1.24"}
INFO = {
    "OSType": "linux",
    "Runtimes": {"runc": {"path": "runc"}},
    "DefaultRuntime": "runc",
    "ServerVersion": "28.2.2",
    "Driver": "overlay2",
}
USABLE = {"version": (200, VERSION), "info": (200, INFO), "_ping": (200, "OK")}


@asynccontextmanager
async def played(place: Path, answers: Mapping[str, tuple[int, Any]]) -> AsyncIterator[list[str]]:
    """Have a daemon played: the last word of a path decides what it answers; what was asked is told."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split()[1].partition("?")[0]
            asked.append(f"{head.split()[0]} {path}")
            status, said = answers.get(path.rpartition("/")[2], (404, {"message": "no such thing"}))
            text = json.dumps(said)
            writer.write(f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n".encode())
            writer.write(f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode())
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, place)
    try:
        yield asked
    finally:
        server.close()


def _runtime(tmp_path: Path, *, host: str = "", runtime: str = "", share_files: str = "auto") -> DockerRuntime:
    place = host or f"unix://{tmp_path / 'socket'}"
    return DockerRuntime(
        name="docker", folder=tmp_path / "state", node="n", host=place, runtime=runtime, share_files=share_files
    )


def _spec(image: str = "sha256:0") -> InstanceSpec:
    record = ImageRecord("some:1", image, ImageConfig(), layers=(), size_bytes=0, created_at=0.0)
    return InstanceSpec(new_internal_id(), "box", Rootfs(record, (), python=()))


@pytest.mark.parametrize(
    ("setting", "variable", "means"),
    [
        ("", "", Address(DEFAULT, path="/var/run/docker.sock")),
        ("", "unix:///x/y", Address("unix:///x/y", path="/x/y")),
        ("unix:///a", "unix:///x/y", Address("unix:///a", path="/a")),
        ("tcp://host:99", "", Address("tcp://host:99", host="host", port=99)),
        ("tcp://[::1]", "", Address("tcp://[::1]", host="::1", port=2375)),
    ],
)
def test_an_address_is_the_setting_else_the_usual_variable_else_the_usual_place(
    setting: str, variable: str, means: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", variable)
    assert Address.of(setting) == means


@pytest.mark.parametrize("text", ["ssh://host", "unix://", "tcp://", "tcp://h:x", "/var/run/docker.sock"])
async def test_what_is_no_address_is_said_so(text: str, tmp_path: Path) -> None:
    probe = await _runtime(tmp_path, host=text).probe()
    assert not probe.available
    assert text in probe.sentence
    assert "unix:///PATH" in probe.sentence


async def test_encryption_is_refused_rather_than_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    assert "TLS" in (await _runtime(tmp_path, host="tcp://127.0.0.1:1").probe()).sentence


async def test_a_daemon_that_is_not_there_is_told_quickly_and_looked_for_again(tmp_path: Path) -> None:
    runtime = _runtime(tmp_path)
    started = time.monotonic()
    assert "the socket does not exist" in (await runtime.probe()).sentence
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        assert "refuses connections" in (await runtime.probe()).sentence
        bound.listen()
        assert "did not answer within 1 s" in (await runtime.probe()).sentence
    with pytest.raises(Unavailable, match="Docker daemon"):
        await runtime.create(_spec())
    assert time.monotonic() - started < QUICKLY_S
    assert await runtime.list() == []
    (tmp_path / "socket").unlink()
    async with played(tmp_path / "socket", USABLE):
        assert (await runtime.probe()).sentence == "Docker Engine 28.2.2 with runc, sharing our files"
    assert not (await runtime.probe()).available


@pytest.mark.parametrize(
    ("answers", "settings", "sentence"),
    [
        ({"version": (200, VERSION | {"ApiVersion": "1.40"})}, {}, "too old: version 28.2.2 speaks API 1.40; API 1.41"),
        ({"version": (200, {})}, {}, "too old"),
        ({"version": (403, {"message": "go away"})}, {}, "refuses: go away"),
        ({"info": (200, INFO | {"OSType": "windows"})}, {}, "runs windows, not linux"),
        ({}, {"runtime": "runsc"}, "has no runtime `runsc`; it has: runc"),
        ({"create": (400, {"message": "bind source path does not exist"})}, {}, "to which the agent is uploaded"),
        ({}, {"share_files": "no"}, "to which the agent is uploaded"),
        ({"create": (500, {"message": "x"})}, {"share_files": "yes"}, "sharing our files"),
    ],
)
async def test_one_sentence_says_what_a_daemon_is_good_for(
    answers: dict[str, tuple[int, Any]], settings: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    async with played(tmp_path / "socket", {**USABLE, **answers}):
        assert sentence in (await _runtime(tmp_path, **settings).probe()).sentence
    assert list((tmp_path / "state").iterdir()) == []


async def test_a_daemon_that_has_forgotten_our_version_is_spoken_to_in_its_own(tmp_path: Path) -> None:
    answers = {**USABLE, "version": (200, VERSION | {"MinAPIVersion": "1.44"})}
    async with played(tmp_path / "socket", answers) as asked:
        assert (await _runtime(tmp_path).probe()).available
    assert asked[:3] + asked[-1:] == ["GET /version", "GET /v1.44/info", "POST /v1.44/containers/create", "GET /_ping"]


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        ((404, {"message": "No such image: sha256:0"}), Invalid, "has no image `some:1` any more"),
        ((409, {"message": "the name is in use"}), Conflict, "the name is in use"),
        ((500, {"message": "write /x: no space left on device"}), Unavailable, "the Docker daemon's disk is full"),
        ((400, {"message": "what is this"}), Unavailable, "could not be made: what is this"),
    ],
)
async def test_a_refusal_to_create_is_explained_and_leaves_nothing(
    answer: tuple[int, Any], error: type[SandboxdError], sentence: str, tmp_path: Path
) -> None:
    async with played(tmp_path / "socket", {**USABLE, "create": answer}):
        with pytest.raises(error, match=sentence):
            await _runtime(tmp_path, share_files="yes").create(_spec())
    assert list((tmp_path / "state" / "instances").iterdir()) == []


async def test_a_container_of_somebody_else_that_has_our_name_is_left_alone(
    docker_daemon: Daemon, tmp_path: Path, rootfs: Rootfs
) -> None:
    runtime = DockerKit("docker", docker_daemon).runtime(tmp_path / "state", "n")
    warm = await runtime.create(InstanceSpec(new_internal_id(), "box", rootfs))
    image = docker_daemon.ask("GET", f"containers/sandboxd-{warm.internal_id}/json")["Image"]
    await warm.destroy()
    spec = InstanceSpec(new_internal_id(), "box", rootfs)
    theirs = docker_daemon.ask(
        "POST", f"containers/create?name=sandboxd-{spec.internal_id}", {"Image": image, "Cmd": ["x"]}
    )
    with pytest.raises(Conflict, match="already"):
        await runtime.create(spec)
    assert docker_daemon.ask("GET", f"containers/{theirs['Id']}/json")["Id"] == theirs["Id"]
    assert await runtime.list() == []
    docker_daemon.ask("DELETE", f"containers/{theirs['Id']}")


async def test_a_daemon_is_used_over_tcp(own_daemon: Daemon, tmp_path: Path, rootfs: Rootfs) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own_daemon.start(tcp_port=port)
    kit = DockerKit("docker", own_daemon)
    local = kit.runtime(tmp_path / "state", "n")
    warm = await local.create(InstanceSpec(new_internal_id(), "box", rootfs))
    image = own_daemon.ask("GET", f"containers/sandboxd-{warm.internal_id}/json")["Image"]
    await warm.destroy()
    remote = _runtime(tmp_path, host=f"tcp://127.0.0.1:{port}")
    instance = await remote.create(_spec(image))
    assert (await shell_in(instance, "echo hello")).output == "hello"
    await instance.destroy()
