"""Sandboxes from images that only a registry has."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.images.layout import Layout, tar
from tests.images.registry import Registry, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Server
    from tests.runtimes.docker.daemons import Daemon

MANY, AT_ONCE = 32, 16
MANY_OF_DOCKERS = int(os.environ.get("DOCKER_CREATES", "48"))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    (tmp_path / "registry").mkdir()
    with running(tmp_path / "registry") as started:
        yield started


@pytest.fixture
def pulling(server: Server, tmp_path: Path) -> Server:
    """The server, which pulls what is missing into an image folder of its own."""
    server.end(signal.SIGTERM)
    server.start("--set", "image.pull=missing", "--images", str(tmp_path / "images"))
    return server


def busybox(folder: Path) -> Path:
    program = Path("/bin/busybox").read_bytes()
    return Layout(folder).image(tar(("bin/busybox", {"mode": 0o755}, program)), config={"Env": ["PATH=/bin"]})


def test_many_creates_of_an_image_that_is_not_here_are_one_pull(
    pulling: Server, registry: Registry, tmp_path: Path
) -> None:
    reference = registry.push(busybox(tmp_path / "layout"), "many:1")
    with ThreadPoolExecutor(AT_ONCE) as threads:
        made = [*threads.map(lambda _: pulling.create(image=reference, cpu_cores=0), range(MANY))]
        assert len(registry.blobs_given("many")) == 2
        assert pulling.execute(made[0], "busybox", "echo", "here")["stdout"] == "here\n"
        record = pulling.request("GET", f"/sandboxes/{made[0]}").json
        inspected = pulling.cli("image", "inspect", reference, "--images", str(tmp_path / "images"))
        found = json.loads(inspected.stdout)
        assert (found["digest"], len(found["users"])) == (record["image_digest"], MANY)
        [*threads.map(pulling.destroy, made)]
    assert not [*(tmp_path / "images/leases").iterdir()]


@pytest.mark.timeout(60 + MANY_OF_DOCKERS)
def test_many_creates_with_docker_of_an_image_that_is_nowhere_here_are_one_pull(
    docker: Daemon, server: Server, registry: Registry, tmp_path: Path
) -> None:
    server.end(signal.SIGTERM)
    settings = ("--set", "image.pull=missing", "--set", f"docker.host={docker.host}")
    server.start(*settings, "--images", str(tmp_path / "images"))
    reference = registry.push(busybox(tmp_path / "layout"), "many:1")
    wishes = {"type": "docker", "image": reference, "cpu_cores": 0}
    with ThreadPoolExecutor(AT_ONCE) as threads:
        made = [*threads.map(lambda _: server.create(**wishes), range(MANY_OF_DOCKERS))]
        assert len(registry.blobs_given("many")) == 2
        assert len(docker.ask("GET", "images/json")) == 1
        said = [*threads.map(lambda each: server.execute(each, "busybox", "hostname")["stdout"], made)]
        assert len(set(said)) == MANY_OF_DOCKERS
        [*threads.map(server.destroy, made)]
    assert docker.ask("GET", "containers/json?all=true") == []
    for left in ("images/leases", "images/staging", "images/pulls", "server/state/docker/instances"):
        assert not [*(tmp_path / left).iterdir()]


def test_a_create_whose_image_cannot_be_had_says_why_and_leaves_nothing(
    pulling: Server, registry: Registry, tmp_path: Path
) -> None:
    body = {"type": "container", "command": [], "memory_mb": 64, "cpu_cores": 1.0}
    unknown = pulling.request("POST", "/sandboxes", {**body, "image": f"{registry.host}/none"})
    assert (unknown.status, f"there is no image `{registry.host}/none:latest` at its registry" in unknown.text) == (
        400,
        True,
    )
    down = pulling.request("POST", "/sandboxes", {**body, "image": "127.0.0.1:1/none"})
    assert (down.status, "cannot be reached" in down.text) == (503, True)
    for room in ("leases", "staging", "pulls"):
        assert not [*(tmp_path / "images" / room).iterdir()]
