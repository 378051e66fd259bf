"""Both generations of cgroups are read alike, and real ones are frozen, killed and removed."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandboxd.core.errors import Unavailable
from sandboxd.host.cgroup_tree import detect
from sandboxd.host.cgroup_v1 import CgroupV1
from sandboxd.host.cgroup_v2 import CgroupV2
from sandboxd.host.cgroups import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandboxd.host.cgroups import Cgroup

V1_MOUNTS = """\
tmpfs {root} tmpfs rw 0 0
cgroup {root}/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup {root}/memory cgroup rw,relatime,memory 0 0
cgroup {root}/pids cgroup rw,relatime,pids 0 0
cgroup {root}/freezer cgroup rw,relatime,freezer 0 0
cgroup {root}/blkio cgroup rw,relatime,blkio 0 0
cgroup {root}/systemd cgroup rw,relatime,name=systemd 0 0
cgroup2 {root}/unified cgroup2 rw,relatime 0 0
"""


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _mounts(tmp_path: Path, text: str) -> Path:
    mounts = tmp_path / "mounts"
    mounts.write_text(text.format(root=tmp_path))
    return mounts


def test_v1_controllers_win_over_a_v2_mount_beside_them(tmp_path: Path) -> None:
    tree = detect("sandboxd-n", _mounts(tmp_path, V1_MOUNTS), tmp_path)
    assert tree.v1["cpuacct"] == tmp_path / "cpu,cpuacct"
    assert tree.v1["name=systemd"] == tmp_path / "systemd"
    assert tree.v2 == tmp_path / "unified"
    assert not tree.limits_swap


def test_a_missing_controller_is_named(tmp_path: Path) -> None:
    mounts = _mounts(tmp_path, V1_MOUNTS.replace("cgroup {root}/pids cgroup rw,relatime,pids 0 0\n", ""))
    with pytest.raises(Unavailable, match="missing: pids"):
        detect("sandboxd-n", mounts, tmp_path)


def test_v2_alone_is_taken_where_it_has_the_controllers(tmp_path: Path) -> None:
    mounts = _mounts(tmp_path, "cgroup2 {root} cgroup2 rw 0 0\n")
    _write(tmp_path, {"cgroup.controllers": "cpuset cpu io memory pids\n"})
    tree = detect("sandboxd-n", mounts, tmp_path)
    assert isinstance(tree.cgroup("x"), CgroupV2)
    assert tree.limits_swap


def test_no_hierarchy_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no cgroup hierarchy"):
        detect("sandboxd-n", _mounts(tmp_path, "tmpfs {root} tmpfs rw 0 0\n"), tmp_path)


def test_v1_is_read(tmp_path: Path) -> None:
    tree = detect("p", _mounts(tmp_path, V1_MOUNTS), tmp_path)
    _write(
        tmp_path,
        {
            "memory/p/x/memory.usage_in_bytes": "1000\n",
            "memory/p/x/memory.limit_in_bytes": "5000\n",
            "memory/p/x/memory.stat": "cache 1\ntotal_inactive_file 300\n",
            "memory/p/x/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            "cpu,cpuacct/p/x/cpuacct.usage": "77\n",
            "pids/p/x/pids.current": "3\n",
            "blkio/p/x/blkio.throttle.io_service_bytes_recursive": (
                "254:0 Read 10\n254:0 Write 20\n254:0 Sync 0\n8:0 Read 1\nTotal 31\n"
            ),
        },
    )
    cgroup = tree.cgroup("x")
    assert cgroup.usage() == Usage(700, 5000, 77, 3, 11, 20)
    assert cgroup.oom_kills() == 2


def test_v2_is_read(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "memory.current": "1000\n",
            "memory.max": "max\n",
            "memory.stat": "anon 1\ninactive_file 300\n",
            "memory.events": "low 0\noom 1\noom_kill 2\n",
            "cpu.stat": "usage_usec 5\nuser_usec 1\n",
            "pids.current": "3\n",
            "io.stat": "254:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:0 rbytes=1\n",
        },
    )
    cgroup = CgroupV2(tmp_path)
    assert cgroup.usage() == Usage(700, 0, 5000, 3, 11, 20)
    assert cgroup.oom_kills() == 2


def _real_v1(name: str) -> Cgroup:
    tree = detect("sandboxd-test")
    if not tree.v1:
        pytest.skip("this machine has no cgroup v1")
    roots = {controller: root for controller, root in tree.v1.items() if controller != "cpuset"}  # wants setting up
    return CgroupV1(roots, f"sandboxd-test-{name}")


def _real_v2(name: str) -> Cgroup:
    tree = detect("sandboxd-test")
    if tree.v2 is None:
        pytest.skip("this machine has no cgroup v2")
    return CgroupV2(tree.v2 / f"sandboxd-test-{name}")


@pytest.fixture(params=[_real_v1, _real_v2], ids=["v1", "v2"])
def populated(request: pytest.FixtureRequest) -> Iterator[tuple[Cgroup, int]]:
    """A real cgroup with a sleeper, gone afterwards whatever the test does."""
    name = secrets.token_hex(4)
    cgroup: Cgroup = request.param(name)
    folders = [cgroup._folder] if isinstance(cgroup, CgroupV2) else list(cgroup._folders.values())  # type: ignore[attr-defined]
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    try:
        for folder in dict.fromkeys(folders):
            folder.mkdir()
            (folder / "cgroup.procs").write_text(str(pid))
        yield cgroup, pid
    finally:
        os.kill(pid, signal.SIGKILL)
        asyncio.run(cgroup.remove())
        os.waitpid(pid, 0)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_a_real_cgroup_is_frozen_and_thawed(populated: tuple[Cgroup, int]) -> None:
    cgroup, _ = populated
    assert not cgroup.is_frozen()
    await cgroup.freeze()
    assert cgroup.is_frozen()
    cgroup.thaw()
    async with asyncio.timeout(5):
        while cgroup.is_frozen():
            await asyncio.sleep(0.001)


@pytest.fixture
def starters(populated: tuple[Cgroup, int]) -> Iterator[Cgroup]:
    """A real cgroup with processes that do nothing but start others."""
    cgroup, _ = populated
    line = "import os\nwhile True: os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)"
    pids = [os.posix_spawn(sys.executable, ["python3", "-c", line], {}) for _ in range(4)]
    try:
        for folder in cgroup.folders():
            for pid in pids:
                (folder / "cgroup.procs").write_text(str(pid))
        yield cgroup
    finally:
        cgroup.thaw()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


async def test_processes_that_are_starting_others_are_frozen_too(starters: Cgroup) -> None:
    for _ in range(100):
        await starters.freeze()
        starters.thaw()
        await asyncio.sleep(0.003)


async def test_what_is_left_in_a_real_cgroup_dies_with_it_frozen_or_not(populated: tuple[Cgroup, int]) -> None:
    cgroup, pid = populated
    await cgroup.freeze()
    await cgroup.remove()
    assert _state(pid) == "Z"
    assert not cgroup.folders()
    await cgroup.remove()
