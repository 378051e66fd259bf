"""Every runtime flavour that starts on this machine, a small image for it, and a guard against leaks."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.leaks import Possessions, possessions
from tests.runtimes.docker.daemons import Daemon, daemon, need_dockerd
from tests.runtimes.kits import DockerKit, Kit, OciKit

from sandboxd.core.ids import new_internal_id
from sandboxd.core.records import ImageConfig, ImageRecord
from sandboxd.core.spec import Limits
from sandboxd.ports.images import Rootfs, Tree
from sandboxd.ports.runtime import InstanceSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sandboxd.ports.runtime import Instance, Runtime

FLAVOURS = tuple(os.environ.get("SANDBOXD_TEST_FLAVOURS", "runc crun runsc docker").split())
EVERYWHERE = ("runc", "runsc", "docker")
"""Flavours that every CI machine has."""
BUSYBOX = Path("/bin/busybox")
COMMANDS = """
awk cat chmod chown cp dd dirname echo env expr false find grep head hostname id ifconfig kill ln ls mkdir mkfifo mknod
mount mv nc ps rm rmdir sed seq setsid sh sleep sort stat su test touch true umount unshare wc
""".split()  # noqa: SIM905 - read as one would type it


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image layer: busybox and little else, with a setuid copy of it and a file of user 1000."""
    folder = tmp_path_factory.mktemp("layer")
    folder.chmod(0o755)
    for name in ("bin", "etc", "root", "tmp", "usr/lib", "usr/share"):
        (folder / name).mkdir(parents=True)
    (folder / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, folder / "bin" / "busybox")
    for command in COMMANDS:
        (folder / "bin" / command).symlink_to("busybox")
    shutil.copy(BUSYBOX, folder / "bin" / "busybox-setuid")
    (folder / "bin" / "busybox-setuid").chmod(0o4755)
    (folder / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")
    (folder / "etc" / "group").write_text("root:x:0:\nuser:x:1000:\n")
    (folder / "usr" / "lib" / "theirs").write_text("a file of the image\n")
    os.chown(folder / "usr" / "lib" / "theirs", 1000, 1000)
    os.link(folder / "usr" / "lib" / "theirs", folder / "usr" / "lib" / "linked")
    return folder


@pytest.fixture
def rootfs(layer: Path) -> Rootfs:
    image = ImageRecord("test", "sha256:0", ImageConfig(), layers=(), size_bytes=0, created_at=0.0)
    return Rootfs(image, (Tree("/", (layer,)),), python=())


@dataclass
class Bench:
    """A runtime under test with a state folder of its own."""

    runtime: Runtime
    state: Path
    node: str
    rootfs: Rootfs
    kit: Kit

    @property
    def has_own_kernel(self) -> bool:
        return self.kit.has_own_kernel

    def pid(self, instance: Instance) -> int:
        """Return the process whose end is the instance's: the agent, or the kernel that it runs on."""
        return self.kit.pid(self.state, instance)

    def upper(self, instance: Instance) -> Path:
        """Return where what the instance wrote lies on this machine."""
        return self.kit.upper(self.state, instance)

    def spec(self, *, limits: Limits | None = None, rootfs: Rootfs | None = None) -> InstanceSpec:
        return InstanceSpec(
            new_internal_id(), "box", rootfs or self.rootfs, limits or Limits(memory_bytes=64 << 20, cpus=1.0, pids=64)
        )

    async def create(self, *, limits: Limits | None = None, rootfs: Rootfs | None = None) -> Instance:
        return await self.runtime.create(self.spec(limits=limits, rootfs=rootfs))

    def successor(self) -> Runtime:
        """Return what a new server on the same state folder would have."""
        return self.kit.runtime(self.state, self.node)


@pytest.fixture(scope="session")
def docker_daemon() -> Iterator[Daemon]:
    """A Docker daemon that runs for as long as any test may want one."""
    need_dockerd()
    with daemon() as started:
        started.start()
        yield started


@pytest.fixture
def kit(flavour: str, request: pytest.FixtureRequest) -> Kit:
    if flavour.startswith("docker"):
        return DockerKit(flavour, request.getfixturevalue("docker_daemon"))
    return OciKit(flavour)


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def bench(flavour: str, kit: Kit, tmp_path: Path, rootfs: Rootfs) -> AsyncIterator[Bench]:
    """A bench whose every instance is destroyed at the end; nothing at all may be left then."""
    state, node = tmp_path / "state", secrets.token_hex(6)
    state.mkdir(mode=0o700)
    before = possessions(state, node)
    runtime = kit.runtime(state, node)
    probe = await runtime.probe()
    if not probe.available:
        runtime.close()
        if flavour in EVERYWHERE and os.environ.get("CI"):
            pytest.fail(probe.sentence)
        pytest.skip(probe.sentence)
    try:
        yield Bench(runtime, state, node, rootfs, kit)
    finally:
        for internal_id in await runtime.list():
            await (await runtime.adopt(internal_id)).destroy()
        await _until_reaped(state, node, before)
        runtime.close()
    assert not possessions(state, node).left_since(before)


async def _until_reaped(state: Path, node: str, before: Possessions) -> None:
    """Wait for what a runtime's program left behind, which dies a little later than the program itself."""
    for _ in range(200):
        if not possessions(state, node).processes - before.processes:
            return
        await asyncio.sleep(0.01)


@pytest.fixture
async def instance(bench: Bench) -> AsyncIterator[Instance]:
    """A running instance, destroyed afterwards."""
    made = await bench.create()
    try:
        yield made
    finally:
        await made.destroy()


@pytest.fixture
def lends(kit: Kit) -> None:
    """Skip where folders of the machine cannot be shown inside."""
    if not kit.lends:
        pytest.skip("this machine's files are not seen there")


@pytest.fixture
def two_trees(rootfs: Rootfs, tmp_path: Path, lends: None) -> Rootfs:
    """The image with another tree under `/opt/tools` and a host folder shown at `/lent`."""
    tools, lent = tmp_path / "tools", tmp_path / "lent"
    for folder in (tools, lent):
        folder.mkdir()
        (folder / "file").write_text(f"{folder.name}\n")
    trees = (*rootfs.trees, Tree("/opt/tools", (tools,), nosuid=True))
    return replace(rootfs, trees=trees, binds=((lent, "/lent"),))
