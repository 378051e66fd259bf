"""Pulls that many wait for, that are given up, and that die."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.images.layout import Layout, sha256, tar

from sandboxd.core.errors import DeadlineExceeded, SandboxdError, Unavailable
from sandboxd.images.registries import Registries
from sandboxd.images.store import ImageStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.images.registry import Registry

LAYER = tar(("f", {}, b"1"))
ROOMS = ("names", "manifests", "layers", "staging", "pulls", "leases", "used")


def left(images: Path) -> list[str]:
    return [f"{room}/{path.name}" for room in ROOMS for path in (images / room).iterdir()]


def skopeos() -> set[int]:
    """Return every skopeo that is alive."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name == "skopeo" and rest.split()[0] != "Z":
            found.add(int(path.parent.name))
    return found


@contextmanager
def mute() -> Iterator[str]:
    """Listen as a registry that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


async def until_asked(before: set[int]) -> int:
    """Wait until a skopeo runs; return its pid."""
    async with asyncio.timeout(10):
        while not (new := skopeos() - before):
            await asyncio.sleep(0.01)
    return new.pop()


async def until_clean(images: Path, before: set[int]) -> None:
    async with asyncio.timeout(10):
        while left(images) or skopeos() - before:
            await asyncio.sleep(0.01)


async def test_sixteen_that_wait_are_one_pull(
    pulling: ImageStore, registry: Registry, layout: Layout, images: Path
) -> None:
    reference = registry.push(layout.image(LAYER), "awaited:1")
    found = await asyncio.gather(*(pulling.rootfs(reference, user=f"u{number}") for number in range(16)))
    assert len({rootfs.image.digest for rootfs in found}) == 1
    assert len(registry.blobs_given("awaited")) == 2
    assert len([*(images / "leases").iterdir()]) == 16


async def test_a_failed_pull_is_told_to_all_and_the_next_is_a_new_one(
    pulling: ImageStore, registry: Registry, layout: Layout, images: Path
) -> None:
    reference = f"{registry.host}/later:1"
    waiting = (pulling.rootfs(reference, user=f"u{number}") for number in range(4))
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(error, SandboxdError) for error in told)
    assert not left(images)
    registry.push(layout.image(LAYER), "later:1")
    assert (await pulling.rootfs(reference, user="u")).image.layers == (sha256(LAYER),)


PULL = """
import asyncio, sys
from contextlib import closing
from pathlib import Path
from sandboxd.images.registries import Registries
from sandboxd.images.store import ImageStore
async def main():
    with closing(ImageStore(Path(sys.argv[1]), registries=Registries())) as store:
        await asyncio.gather(*(store.rootfs(sys.argv[2], user=f"{sys.argv[3]}{n}") for n in range(4)))
asyncio.run(main())
"""


def test_processes_that_wait_are_one_pull_too(
    store: ImageStore, registry: Registry, layout: Layout, images: Path
) -> None:
    reference = registry.push(layout.image(LAYER, tar(("big", {}, os.urandom(3_000_000)))), "between:1")
    command = [sys.executable, "-c", PULL, str(images), reference]
    running = [subprocess.Popen([*command, name], stderr=subprocess.PIPE) for name in "abc"]
    for process in running:
        _, errors = process.communicate(timeout=50)
        assert process.returncode == 0, errors.decode()
    assert len(registry.blobs_given("between")) == 3
    assert len([*(images / "leases").iterdir()]) == 12
    assert not [*(images / "pulls").iterdir()]


async def test_one_that_gives_up_leaves_the_pull_to_the_others(
    pulling: ImageStore, registry: Registry, layout: Layout, images: Path
) -> None:
    reference = registry.push(layout.image(LAYER), "shared:1")
    async with asyncio.TaskGroup() as group:
        first = group.create_task(pulling.rootfs(reference, user="first"))
        second = group.create_task(pulling.rootfs(reference, user="second"))
        async with asyncio.timeout(10):
            while not [*(images / "pulls").iterdir()]:  # while it lasts
                await asyncio.sleep(0.001)
        first.cancel()
    assert second.result().image.layers == (sha256(LAYER),)
    assert [path.name for path in (images / "leases").iterdir()] == ["second"]


async def test_when_the_last_gives_up_the_pull_ends_and_leaves_nothing(pulling: ImageStore, images: Path) -> None:
    before = skopeos()
    with mute() as host:
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(pulling.rootfs(f"{host}/x", user=f"u{number}")) for number in range(3)]
            await until_asked(before)
            for task in waiting:
                task.cancel()
        await until_clean(images, before)


async def test_a_pull_that_takes_too_long_is_given_up(images: Path) -> None:
    before = skopeos()
    hasty = Registries(timeout_s=0.5)
    with mute() as host, closing(ImageStore(images, registries=hasty)) as store:
        with pytest.raises(DeadlineExceeded, match=r"within 0\.5 s"):
            await store.rootfs(f"{host}/x", user="u")
        assert not left(images)
        assert not skopeos() - before


async def test_a_pull_whose_skopeo_is_killed_fails_and_leaves_nothing(pulling: ImageStore, images: Path) -> None:
    before = skopeos()
    with mute() as host:
        waiting = asyncio.ensure_future(pulling.rootfs(f"{host}/x", user="u"))
        os.kill(await until_asked(before), signal.SIGKILL)
        with pytest.raises(Unavailable, match="skopeo was killed"):
            await waiting
    assert not left(images)


async def test_what_a_killed_server_was_pulling_ends_with_it_and_is_swept(store: ImageStore, images: Path) -> None:
    before = skopeos()
    with mute() as host:
        command = [sys.executable, "-c", PULL, str(images), f"{host}/x", "u"]
        process = await asyncio.create_subprocess_exec(*command)
        await until_asked(before)
        process.kill()
        await process.wait()
        store.collect()
        await until_clean(images, before)


def test_a_store_that_closes_ends_its_pulls(images: Path) -> None:
    before = skopeos()
    store = ImageStore(images, registries=Registries())

    async def begin(host: str) -> None:
        waiting = asyncio.ensure_future(store.rootfs(f"{host}/x", user="u"))
        await until_asked(before)
        await asyncio.to_thread(store.close)
        with pytest.raises(SandboxdError):
            await waiting

    with mute() as host:
        asyncio.run(begin(host))
    assert not left(images)
    assert not skopeos() - before


def test_a_download_that_is_given_up_half_way_leaves_nothing(images: Path, tmp_path: Path, layout: Layout) -> None:
    with half_a_registry(layout, tar(("big", {}, os.urandom(2_000_000)))) as host:
        hasty = Registries(timeout_s=1.5)
        with closing(ImageStore(images, registries=hasty)) as store, pytest.raises(DeadlineExceeded):
            store.pull(f"{host}/x")
    assert not left(images)


@contextmanager
def half_a_registry(layout: Layout, layer: bytes) -> Iterator[str]:
    """Serve one image whose layer stops half way and never ends."""
    manifest = layout.manifest(layer, packing="")
    document = json.dumps(manifest).encode()
    config = (layout.blobs / manifest["config"]["digest"].partition(":")[2]).read_bytes()
    over = threading.Event()

    class Half(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(ConnectionError):
                self._answer()

        def _answer(self) -> None:
            kind, body = "application/octet-stream", config
            if "/manifests/" in self.path:
                kind, body = manifest["mediaType"], document
            elif self.path.endswith(manifest["layers"][0]["digest"]):
                body = layer
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if body is layer else body)
            if body is layer:
                over.wait(20)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Half) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        over.set()
        server.shutdown()
        thread.join()
