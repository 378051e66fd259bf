"""What an instance cannot see or do, and what its root can."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.runtimes.inside import run, shell, shell_in

if TYPE_CHECKING:
    from tests.runtimes.conftest import Bench

    from sandboxd.ports.images import Rootfs
    from sandboxd.ports.runtime import Instance

FIRST_SANDBOX_ID = 0x7000_0000


def _text(path: str) -> str:
    return Path(path).read_text()


def _host_status(bench: Bench, instance: Instance) -> dict[str, str]:
    """What the machine's kernel says of the process that the instance is to it."""
    lines = _text(f"/proc/{bench.pid(instance)}/status").splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


@pytest.fixture
def own_ids(bench: Bench) -> None:
    """Skip where ids inside are those outside."""
    if not bench.kit.has_own_ids:
        pytest.skip("ids inside are those outside")


@pytest.mark.usefixtures("own_ids")
async def test_root_inside_is_nobody_outside(bench: Bench, instance: Instance) -> None:
    assert (await shell_in(instance, "id -u; id -g")).output.split() == ["0", "0"]
    status = _host_status(bench, instance)
    uids, gids = ({int(word) for word in status[kind].split()} for kind in ("Uid", "Gid"))
    assert len(uids) == 1
    assert uids == gids
    assert min(uids) >= FIRST_SANDBOX_ID
    inside, outside, count = (int(word) for word in _text(f"/proc/{bench.pid(instance)}/uid_map").split())
    assert (inside, outside, count) == (0, *uids, 65536)


@pytest.mark.usefixtures("own_ids")
async def test_two_instances_have_different_ids(bench: Bench, instance: Instance) -> None:
    other = await bench.create()
    assert _host_status(bench, instance)["Uid"] != _host_status(bench, other)["Uid"]
    await other.destroy()


async def test_the_hosts_files_processes_and_mounts_are_not_there(bench: Bench, instance: Instance) -> None:
    guest = await instance.enter()
    for path in (bench.state, bench.rootfs.trees[0].lowers[0], Path("/run/sandboxd"), Path("/home")):
        assert (await run(guest, "/bin/ls", str(path))).code != 0
    told = await shell(guest, "ls -d /proc/[0-9]* | wc -l; cat /proc/mounts")
    count, *mounts = told.output.splitlines()
    assert int(count) <= 5
    assert {line.split()[1] for line in mounts if "ext4" in line} <= bench.kit.machine_files


async def test_no_descriptor_of_the_host_is_left_to_a_process(instance: Instance) -> None:
    told = await shell_in(instance, "ls /proc/self/fd; ls -l /proc/self/fd")
    assert told.output.split()[:4] == ["0", "1", "2", "3"]
    assert "from-guest" not in told.output


async def test_confinement_is_on(bench: Bench, instance: Instance) -> None:
    told = await shell_in(instance, "cat /proc/self/status")
    status = dict(line.split(":\t", 1) for line in told.output.splitlines() if ":\t" in line)
    outside = _host_status(bench, instance)
    assert status["NoNewPrivs"] == outside["NoNewPrivs"] == "1"
    assert outside["Seccomp"] == "2"
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0x8004_05FB
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0


async def test_there_is_only_loopback_and_it_is_up(instance: Instance) -> None:
    guest = await instance.enter()
    assert (await shell(guest, "awk -F: '/:/ {print $1}' /proc/net/dev")).output == "lo"
    assert "UP LOOPBACK" in (await shell(guest, "ifconfig lo")).output
    told = await shell(guest, "nc -l -p 5000 -e /bin/echo hello & until nc 127.0.0.1 5000; do true; done 2> /dev/null")
    assert told.output == "hello"


async def test_root_inside_cannot_mount_unshare_or_make_devices(bench: Bench, instance: Instance) -> None:
    guest = await instance.enter()
    for script in (
        "mount -t tmpfs none /tmp",
        "umount /proc",
        "mknod /dev/x b 8 0",
        "mknod /x c 1 3",
        *(() if bench.has_own_kernel else ("unshare -U true",)),
    ):
        told = await shell(guest, script)
        assert told.code != 0, script
        assert "ermi" in told.errors, told


async def test_what_the_kernel_tells_of_the_host_is_masked_or_read_only(instance: Instance) -> None:
    guest = await instance.enter()
    assert (await shell(guest, "cat /proc/keys | wc -c; ls /sys/firmware | wc -l")).output.split() == ["0", "0"]
    for path in (
        "/proc/sys/kernel/hostname",
        "/proc/sysrq-trigger",
        "/sys/kernel/profiling",
        "/proc/sys/vm/drop_caches",
    ):
        assert (await shell(guest, f"echo 1 > {path}")).code != 0, path


async def test_a_setuid_program_of_the_image_gains_nothing(instance: Instance) -> None:
    told = await shell_in(instance, "/bin/busybox-setuid id -u", user="user")
    assert told.output == "1000"


async def test_the_agent_cannot_be_replaced_or_looked_into(bench: Bench, instance: Instance) -> None:
    guest = await instance.enter()
    # An agent that was uploaded is a file like any other; the one that runs is out of reach all the same.
    files = ("rm /.sandboxd/agent",) if bench.kit.lends else ()
    for script in ("echo x > /.sandboxd/agent", *files, "echo x > /proc/1/fd/1", "cat /proc/1/mem"):
        assert (await shell(guest, script)).code != 0, script
    assert (await shell(guest, "kill -9 -1; echo alive")).output == "alive"
    if not bench.has_own_kernel:  # which protects its first process from no one
        assert (await shell(guest, "kill -9 1; echo alive")).output == "alive"


async def test_root_inside_can_write_everywhere_and_give_files_away(instance: Instance) -> None:
    told = await shell_in(
        instance,
        "set -e; echo x > /new; echo x > /usr/new; cp /bin/busybox /bin/new; mkdir /opt; rm /usr/lib/linked\n"
        "chown 1000:1000 /new; chmod 4755 /bin/new; ln /new /hard; echo more >> /usr/lib/theirs\n"
        "mv /usr/lib /usr/lib2; echo box2 > /etc/hostname; echo > /etc/resolv.conf\n"
        "stat -c '%u:%g %h %a' /new /usr/lib2/theirs; stat -c %a /bin/new",
    )
    assert told.errors == ""
    assert told.output.splitlines() == ["1000:1000 2 644", "1000:1000 1 644", "4755"]


async def test_a_user_inside_owns_only_what_is_theirs(instance: Instance) -> None:
    guest = await instance.enter()
    assert (await shell(guest, "echo more >> /usr/lib/theirs", user="user")).code == 0
    assert (await shell(guest, "echo x > /etc/passwd", user="user")).code != 0
    assert (await shell(guest, "echo x > /tmp/x && cat /tmp/x", user="user")).output == "x"


async def test_our_own_umask_takes_nothing_from_the_users_inside(bench: Bench, two_trees: Rootfs) -> None:
    mask = os.umask(0o077)
    try:
        instance = await bench.create(rootfs=two_trees)
    finally:
        os.umask(mask)
    guest = await instance.enter()
    assert (await shell(guest, "ls /.sandboxd; cat /opt/tools/file /etc/hosts /lent/file", user="user")).code == 0
    await instance.destroy()


async def test_ids_on_disk_are_those_seen_inside(bench: Bench, instance: Instance) -> None:
    await shell_in(instance, "echo x > /root-owned; echo x > /theirs; chown 1000 /theirs")
    upper = bench.upper(instance)
    assert [(upper / name).stat().st_uid for name in ("root-owned", "theirs")] == [0, 1000]


async def test_a_link_in_the_image_leads_nobody_out(bench: Bench, layer: Path, tmp_path: Path) -> None:
    """`/etc` of an image may be a link to a folder of the host; nothing may be written through it."""
    victim, image = tmp_path / "victim", tmp_path / "image"
    victim.mkdir()
    image.mkdir()
    (image / "etc").symlink_to(victim)
    (image / "opt").symlink_to(victim)
    rootfs = bench.rootfs
    hostile = type(rootfs)(rootfs.image, (type(rootfs.trees[0])("/", (image, layer)),), python=())
    instance = await bench.create(rootfs=hostile)
    assert (await shell_in(instance, "echo alive")).output == "alive"
    await instance.destroy()
    assert list(victim.iterdir()) == []


async def test_nothing_is_mounted_on_the_host(bench: Bench) -> None:
    before = _text("/proc/self/mountinfo")
    instance = await bench.create()
    assert _text("/proc/self/mountinfo") == before
    await instance.destroy()
