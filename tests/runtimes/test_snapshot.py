"""What a snapshot of an instance's files holds, and what it leaves out."""

from __future__ import annotations

import asyncio
import json
import os
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.runtimes.inside import shell_in

from sandboxd.core.errors import Conflict, Unsupported
from sandboxd.core.spec import MIB

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runtimes.conftest import Bench

    from sandboxd.ports.images import Rootfs
    from sandboxd.ports.runtime import Instance


async def _saved(instance: Instance, folder: Path) -> dict[str, tarfile.TarInfo]:
    os.mkdir(folder)  # noqa: PTH102 - of the two, the one that may be called here
    await instance.pause()
    parts = await instance.snapshot(folder)
    await instance.resume()
    assert (parts.parts, parts.memory_captured) == (("rootfs.tar", "memory.json"), False)
    with tarfile.open(folder / "rootfs.tar") as tar:
        return {info.name: info for info in tar}


async def test_everything_written_is_saved_in_the_form_of_a_layer(
    bench: Bench, instance: Instance, tmp_path: Path
) -> None:
    told = await shell_in(
        instance,
        "set -e; mkdir -p /data/deep; echo hello > /data/deep/file; chown -R 1000:1001 /data\n"
        "chmod 4755 /data/deep/file; ln /data/deep/file /data/again; ln -s /etc/passwd /data/link; mkfifo /data/fifo\n"
        "rm /usr/lib/linked; rm -r /usr/share; mkdir /usr/share; echo new > /usr/share/new; rm /etc/group",
    )
    assert told.errors == ""
    saved = await _saved(instance, tmp_path / "snapshot")
    links = {saved["data/deep/file"].islnk(), saved["data/again"].islnk()}
    assert links == {True, False}
    whole = saved["data/deep/file"] if saved["data/deep/file"].isreg() else saved["data/again"]
    assert (whole.uid, whole.gid, whole.mode, whole.size) == (1000, 1001, 0o4755, 6)
    assert saved["data/link"].linkname == "/etc/passwd"
    assert ("data/fifo" in saved) != bench.has_own_kernel  # where pipes with names exist in its memory only
    assert bench.has_own_kernel or saved["data/fifo"].isfifo()
    assert saved["usr/lib/.wh.linked"].size == 0
    assert {"usr/share/.wh..wh..opq", "usr/share/new", "etc/.wh.group"} <= set(saved)
    assert not any(name.startswith((".sandboxd", "proc", "sys", "dev")) for name in saved)
    with tarfile.open(tmp_path / "snapshot" / "rootfs.tar") as tar:
        content = tar.extractfile("data/deep/file")
        assert content is not None
        assert content.read() == b"hello\n"


async def test_what_the_image_had_is_not_saved(bench: Bench, instance: Instance, tmp_path: Path) -> None:
    saved = await _saved(instance, tmp_path / "snapshot")
    names = {"etc", "etc/hostname", "etc/hosts", "etc/resolv.conf"}
    assert set(saved) == (set() if bench.kit.lends_names else names)


@pytest.mark.usefixtures("lends")
async def test_attributes_are_saved_without_the_overlays_own(bench: Bench, instance: Instance, tmp_path: Path) -> None:
    await shell_in(instance, "echo x > /file; mkdir /usr/lib/inner")
    upper = bench.upper(instance)
    os.setxattr(upper / "file", "user.note", b"kept")
    os.setxattr(upper / "file", "user.bytes", b"\xff\x00\x01")
    saved = await _saved(instance, tmp_path / "snapshot")
    headers = saved["file"].pax_headers
    assert headers["SCHILY.xattr.user.note"] == "kept"
    assert headers["SCHILY.xattr.user.bytes"].encode(errors="surrogateescape") == b"\xff\x00\x01"
    assert not any("trusted" in key for info in saved.values() for key in info.pax_headers)


async def test_every_tree_is_saved_below_its_target(bench: Bench, two_trees: Rootfs, tmp_path: Path) -> None:
    instance = await bench.create(rootfs=two_trees)
    await shell_in(instance, "echo x > /opt/tools/new")
    saved = await _saved(instance, tmp_path / "snapshot")
    assert "opt/tools/new" in saved
    await instance.destroy()


async def test_the_other_part_says_that_memory_was_not_captured(
    bench: Bench, instance: Instance, tmp_path: Path
) -> None:
    await _saved(instance, tmp_path / "snapshot")
    memory = json.loads((tmp_path / "snapshot" / "memory.json").read_text())
    assert memory["memory_captured"] is False
    assert (memory["runtime"], memory["flavour"]) == (bench.runtime.name, bench.kit.recorded)


async def test_only_a_paused_instance_is_saved(instance: Instance, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="paused"):
        await instance.snapshot(tmp_path)


async def test_directories_nested_a_thousand_deep_are_saved_and_removed(bench: Bench, tmp_path: Path) -> None:
    instance = await bench.create()
    told = await shell_in(
        instance, "set -e; mkdir /d; cd /d; i=0; while [ $i -lt 1200 ]; do mkdir d; cd d; i=$((i+1)); done"
    )
    assert told.errors == ""
    saved = await _saved(instance, tmp_path / "snapshot")
    assert len(saved) > 1200
    await instance.destroy()


@pytest.mark.usefixtures("lends")
async def test_a_cancelled_snapshot_stops_writing(instance: Instance, tmp_path: Path) -> None:
    await shell_in(instance, "dd if=/dev/zero of=/big bs=1M count=200")
    await instance.pause()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await instance.snapshot(tmp_path)
    size = (tmp_path / "rootfs.tar").stat().st_size
    assert not (tmp_path / "memory.json").exists()
    await asyncio.sleep(0.1)
    assert (tmp_path / "rootfs.tar").stat().st_size == size
    await instance.resume()


@pytest.mark.usefixtures("lends")
async def test_a_hole_takes_no_room_and_reads_as_zeros(instance: Instance, tmp_path: Path) -> None:
    await shell_in(instance, "truncate -s 300M /data; printf end >> /data; truncate -s 40000001 /other")
    saved = await _saved(instance, tmp_path / "snapshot")
    assert (saved["data"].size, saved["other"].size) == (300 * MIB + 3, 40_000_001)
    tarball = tmp_path / "snapshot" / "rootfs.tar"
    assert tarball.stat().st_size > 300 * MIB
    assert tarball.stat().st_blocks * 512 < MIB
    with tarfile.open(tarball) as tar:
        content = tar.extractfile("data")
        assert content is not None
        content.seek(300 * MIB - 5)
        assert content.read() == bytes(5) + b"end"


async def test_a_name_that_would_read_as_a_removal_is_refused(instance: Instance, tmp_path: Path) -> None:
    await shell_in(instance, "mkdir /data; echo x > /data/file; echo x > /data/.wh.file")
    with pytest.raises(Unsupported, match=r"data/\.wh\.file"):
        await _saved(instance, tmp_path / "snapshot")
