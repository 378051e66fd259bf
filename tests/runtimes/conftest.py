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

from sandboxd.core.ids import new_internal_id
from sandboxd.core.records import ImageConfig, ImageRecord
from sandboxd.core.spec import Limits
from sandboxd.ports.images import Rootfs, Tree
from sandboxd.ports.runtime import InstanceSpec
from sandboxd.runtimes.oci.flavours import FLAVOURS as FLAVOUR_TABLE
from sandboxd.runtimes.oci.runtime import OciRuntime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandboxd.ports.runtime import Instance

RUNTIMES = {"runc": "container", "crun": "container", "runsc": "gvisor", "runsc-ptrace": "gvisor"}
"""The flavours, and the name of the runtime that each belongs to."""
FLAVOURS = tuple(os.environ.get("SANDBOXD_TEST_FLAVOURS", "runc crun runsc").split())
EVERYWHERE = ("runc", "runsc")
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

    runtime: OciRuntime
    state: Path
    node: str
    rootfs: Rootfs
    flavour: str

    @property
    def has_own_kernel(self) -> bool:
        return FLAVOUR_TABLE[self.flavour].has_own_kernel

    def pid(self, instance: Instance) -> int:
        """Return the process whose end is the instance's: the agent, or the kernel that it runs on."""
        return int((self.state / "instances" / instance.internal_id / "pid").read_text())

    def spec(self, *, limits: Limits | None = None, rootfs: Rootfs | None = None) -> InstanceSpec:
        return InstanceSpec(
            new_internal_id(), "box", rootfs or self.rootfs, limits or Limits(memory_bytes=64 << 20, cpus=1.0, pids=64)
        )

    async def create(self, *, limits: Limits | None = None, rootfs: Rootfs | None = None) -> Instance:
        return await self.runtime.create(self.spec(limits=limits, rootfs=rootfs))

    def successor(self) -> OciRuntime:
        """Return what a new server on the same state folder would have."""
        return OciRuntime(name=RUNTIMES[self.flavour], folder=self.state, node=self.node, flavours=(self.flavour,))


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def bench(flavour: str, tmp_path: Path, rootfs: Rootfs) -> AsyncIterator[Bench]:
    """A bench whose every instance is destroyed at the end; nothing at all may be left then."""
    state, node = tmp_path / "state", secrets.token_hex(6)
    state.mkdir(mode=0o700)
    before = possessions(state, node)
    runtime = OciRuntime(name=RUNTIMES[flavour], folder=state, node=node, flavours=(flavour,))
    probe = await runtime.probe()
    if not probe.available:
        runtime.close()
        if flavour in EVERYWHERE and os.environ.get("CI"):
            pytest.fail(probe.sentence)
        pytest.skip(probe.sentence)
    try:
        yield Bench(runtime, state, node, rootfs, flavour)
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
def two_trees(rootfs: Rootfs, tmp_path: Path) -> Rootfs:
    """The image with another tree under `/opt/tools` and a host folder shown at `/lent`."""
    tools, lent = tmp_path / "tools", tmp_path / "lent"
    for folder in (tools, lent):
        folder.mkdir()
        (folder / "file").write_text(f"{folder.name}\n")
    trees = (*rootfs.trees, Tree("/opt/tools", (tools,), nosuid=True))
    return replace(rootfs, trees=trees, binds=((lent, "/lent"),))
