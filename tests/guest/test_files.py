"""Files in a guest, over every channel: whole, inside their root, and refused with a sentence."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from tests.guest.asking import MIB

from sandboxd.core.errors import Conflict, Denied, Invalid, NotFound, SandboxdError
from sandboxd.ports.files import FileKind, FileStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sandboxd.guest.agent import AgentGuest


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


async def read(guest: AgentGuest, path: str, **more: Any) -> bytes:
    return b"".join([piece async for piece in guest.read_file(path, **more)])


async def listed(guest: AgentGuest, path: str, **more: Any) -> dict[str, FileStatus]:
    return {status.name: status async for status in guest.list_directory(path, **more)}


@pytest.mark.parametrize("size", [0, 1, 4068, 65536, 3 * MIB + 7])
async def test_what_was_written_is_read(guest: AgentGuest, tmp_path: Path, size: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    await guest.write_file("/file", data, root=str(tmp_path))
    assert (tmp_path / "file").read_bytes() == data
    assert await read(guest, "/file", root=str(tmp_path)) == data
    assert _names(tmp_path) == ["file"]


async def test_a_part_of_a_file_can_be_read(guest: AgentGuest, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1000)
    assert await read(guest, str(path), offset=255, length=3) == b"\xff\0\x01"
    assert await read(guest, str(path), offset=255_999) == b"\xff"
    assert await read(guest, str(path), offset=256_000) == b""
    assert await read(guest, str(path), length=0) == b""
    with pytest.raises(Invalid):
        await read(guest, str(path), offset=-1)


async def test_a_file_may_be_written_from_pieces(guest: AgentGuest, tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            await asyncio.sleep(0)
            yield bytes([number]) * 1234

    await guest.write_file(str(tmp_path / "file"), pieces())
    assert (tmp_path / "file").read_bytes() == b"".join(bytes([number]) * 1234 for number in range(100))


async def test_a_write_that_fails_half_way_leaves_the_old_file_and_no_trace(guest: AgentGuest, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(100_000)
        raise KeyError("half way")

    with pytest.raises(KeyError):
        await guest.write_file(str(tmp_path / "file"), pieces())
    await guest.platform()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert _names(tmp_path) == ["file"]


async def test_modes_are_kept_given_or_0644(guest: AgentGuest, tmp_path: Path) -> None:
    path = tmp_path / "file"
    await guest.write_file(str(path), b"")
    assert path.stat().st_mode & 0o7777 == 0o644
    await guest.write_file(str(path), b"", mode=0o4750)
    assert path.stat().st_mode & 0o7777 == 0o4750
    await guest.write_file(str(path), b"x")
    assert path.stat().st_mode & 0o7777 == 0o4750
    with pytest.raises(Invalid):
        await guest.write_file(str(path), b"", mode=0o10000)


async def test_parents_are_made_when_asked_for(guest: AgentGuest, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    with pytest.raises(NotFound):
        await guest.write_file(str(path), b"x")
    await guest.write_file(str(path), b"x", parents=True)
    assert path.read_bytes() == b"x"
    with pytest.raises(Conflict):
        await guest.make_directory(str(path.parent))
    await guest.make_directory(str(path.parent), parents=True)
    await guest.make_directory(str(tmp_path / "c"), mode=0o700)
    assert (tmp_path / "c").stat().st_mode & 0o7777 == 0o700


async def test_a_directory_is_listed_with_what_its_entries_are(guest: AgentGuest, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir(0o750)
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file\udcff")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "bytes\udcfe").touch()
    entries = await listed(guest, str(tmp_path))
    assert {name: entry.kind for name, entry in entries.items()} == {
        "directory": FileKind.DIRECTORY,
        "file": FileKind.FILE,
        "link": FileKind.SYMLINK,
        "fifo": FileKind.OTHER,
        "bytes\udcfe": FileKind.FILE,
    }
    assert (entries["file"].size, entries["link"].target) == (5, "file\udcff")
    real = (tmp_path / "file").stat()
    assert entries["file"] == FileStatus(
        "file", FileKind.FILE, real.st_mode & 0o7777, 5, real.st_mtime_ns, real.st_uid, real.st_gid
    )


async def test_a_large_directory_is_listed_whole_and_may_be_left_early(guest: AgentGuest, tmp_path: Path) -> None:
    names = {f"{number:0200}" for number in range(3000)}
    for name in names:
        (tmp_path / name).touch()
    assert set(await listed(guest, str(tmp_path))) == names
    async with aclosing(guest.list_directory(str(tmp_path))) as entries:  # type: ignore[type-var]
        async for _ in entries:
            break
    assert await listed(guest, str(tmp_path / "..")) != {}


async def test_status_follows_a_symlink_or_not(guest: AgentGuest, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"123")
    (tmp_path / "link").symlink_to("file")
    assert (await guest.status(str(tmp_path / "link"))).size == 3
    link = await guest.status(str(tmp_path / "link"), follow=False)
    assert (link.kind, link.target, link.name) == (FileKind.SYMLINK, "file", "link")
    assert (await guest.status("/")).kind is FileKind.DIRECTORY


async def test_files_are_moved_and_removed(guest: AgentGuest, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"new")
    (tmp_path / "other").write_bytes(b"old")
    await guest.move("/file", "/other", root=str(tmp_path))
    assert (tmp_path / "other").read_bytes() == b"new"
    await guest.remove("/other", root=str(tmp_path))
    (tmp_path / "tree" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").touch()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "kept")
    with pytest.raises(Conflict, match=r"cannot remove `/tree`: directory not empty"):
        await guest.remove("/tree", root=str(tmp_path))
    await guest.remove("/tree", root=str(tmp_path), recursive=True)
    assert _names(tmp_path) == ["kept"]
    assert _names(tmp_path / "kept") == ["file"]


async def test_nothing_outside_the_root_is_reached(guest: AgentGuest, tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "up").symlink_to("../outside")
    (root / "absolute").symlink_to(outside)
    (root / "etc").symlink_to("/")
    for path in ("../outside/secret", "/../../outside/secret", "up/secret", "absolute/secret", f"{outside}/secret"):
        with pytest.raises(NotFound):
            await read(guest, path, root=str(root))
    await guest.write_file("/etc/file", b"inside", root=str(root))
    assert (root / "file").read_bytes() == b"inside"


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda guest, at: read(guest, f"{at}/none"), NotFound, "none`: no such file or directory"),
        (read, Conflict, "is a directory"),
        (lambda guest, at: listed(guest, f"{at}/file"), Conflict, "not a directory"),
        (lambda guest, at: listed(guest, f"{at}/none"), NotFound, "cannot list"),
        (lambda guest, at: guest.status(f"{at}/none"), NotFound, "cannot look at"),
        (lambda guest, at: guest.remove(f"{at}/none"), NotFound, "cannot remove"),
        (lambda guest, at: guest.remove(f"{at}/none", recursive=True), NotFound, "cannot remove"),
        (lambda guest, at: guest.move(f"{at}/none", f"{at}/x"), NotFound, "cannot move"),
        (lambda guest, at: guest.make_directory(f"{at}/file"), Conflict, "file exists"),
        (lambda guest, at: guest.write_file(f"{at}/file/x", bytes(200_000)), Conflict, "not a directory"),
        (lambda guest, at: guest.write_file(at, b"x"), Conflict, "cannot write"),
        (lambda guest, at: guest.status(f"{at}/loop"), Invalid, "symbolic links"),
        (lambda guest, at: guest.status(f"{at}/{'x' * 300}"), Invalid, "too long"),
        (lambda guest, _: guest.write_file("/proc/sys/kernel/ostype-x", b"x"), SandboxdError, "cannot write"),
    ],
)
async def test_a_refusal_says_what_and_why(
    guest: AgentGuest, tmp_path: Path, call: Any, error: type[SandboxdError], sentence: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(error) as caught:
        await call(guest, str(tmp_path))
    assert sentence in str(caught.value)


async def test_what_the_kernel_forbids_is_denied(guest: AgentGuest) -> None:
    with pytest.raises((Denied, NotFound)):
        await guest.make_directory("/proc/1/nothing")


async def test_many_files_at_once(guest: AgentGuest, tmp_path: Path) -> None:
    async def one(number: int) -> None:
        path, data = str(tmp_path / str(number)), bytes([number]) * 300_000
        await guest.write_file(path, data)
        assert await read(guest, path) == data
        await guest.remove(path)

    async with asyncio.TaskGroup() as group:
        for number in range(16):
            group.create_task(one(number))
    assert _names(tmp_path) == []
