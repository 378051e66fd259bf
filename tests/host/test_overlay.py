"""Overlays in the private mount tree show shifted ids and store plain ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandboxd.host import syscalls
from sandboxd.host.overlay import mount_overlay
from sandboxd.host.private_mounts import WORKSPACE, PrivateMounts
from sandboxd.host.userns import UserNamespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BASE = 0x7FFC_0000


@pytest.fixture
def mounts() -> Iterator[PrivateMounts]:
    mounts = PrivateMounts()
    yield mounts
    mounts.close()


@pytest.fixture
def namespaces() -> Iterator[UserNamespaces]:
    namespaces = UserNamespaces()
    yield namespaces
    namespaces.close()


async def _in_overlay(
    mounts: PrivateMounts, namespaces: UserNamespaces, tmp_path: Path, act: Callable[[Path], None]
) -> None:
    for name in ("lower", "lower/folder", "disk", "disk/upper", "disk/work"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "file").write_text("of the image\n")
    os.chown(tmp_path / "lower" / "file", 1000, 1000)

    def work() -> None:
        root = WORKSPACE / "test"
        root.mkdir()
        mount_overlay(
            root, lowers=[tmp_path / "lower"], upper=tmp_path / "disk", userns_fd=namespaces.fd(BASE), base=BASE
        )
        try:
            act(root)
        finally:
            syscalls.unmount(root)
            root.rmdir()

    await mounts.run(work)


async def test_ids_are_shifted_in_the_overlay_and_plain_on_disk(
    mounts: PrivateMounts, namespaces: UserNamespaces, tmp_path: Path
) -> None:
    seen: list[int] = []

    def act(root: Path) -> None:
        seen.append((root / "file").stat().st_uid)
        os.chown(root / "file", BASE + 7, BASE + 8)
        with syscalls.filesystem_ids(BASE + 5, BASE + 5):
            (root / "folder" / "new").write_text("")

    await _in_overlay(mounts, namespaces, tmp_path, act)
    assert seen == [BASE + 1000]
    assert (tmp_path / "lower" / "file").stat().st_uid == 1000
    upper = tmp_path / "disk" / "upper"
    assert (upper / "file").stat().st_uid == 7
    assert (upper / "folder" / "new").stat().st_uid == 5


async def test_an_id_outside_the_range_cannot_write(
    mounts: PrivateMounts, namespaces: UserNamespaces, tmp_path: Path
) -> None:
    def act(root: Path) -> None:
        with pytest.raises(OSError, match="too large"):
            (root / "new").write_text("")

    await _in_overlay(mounts, namespaces, tmp_path, act)


async def test_the_machine_sees_nothing_of_it(
    mounts: PrivateMounts, namespaces: UserNamespaces, tmp_path: Path
) -> None:
    before = _mounts()
    seen: list[str] = []
    await _in_overlay(mounts, namespaces, tmp_path, lambda _: seen.append(_mounts("thread-self")))
    assert str(WORKSPACE / "test") in seen[0]
    assert str(WORKSPACE / ".layers") not in seen[0]
    assert _mounts() == before


async def test_a_layer_that_is_not_there_is_named_and_nothing_stays_mounted(
    mounts: PrivateMounts, namespaces: UserNamespaces, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()

    def work() -> str:
        with pytest.raises(FileNotFoundError, match=r"clone the mount of .*nowhere"):
            mount_overlay(
                WORKSPACE,
                lowers=[tmp_path / "nowhere"],
                upper=tmp_path / "disk",
                userns_fd=namespaces.fd(BASE),
                base=BASE,
            )
        return _mounts("thread-self")

    assert ".layers" not in await mounts.run(work)


def test_descriptors_of_ranges_are_kept_in_bounds() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
    namespaces = UserNamespaces(kept=2)
    fds = [namespaces.fd(BASE - index * 65_536) for index in range(4)]
    assert namespaces.fd(BASE - 3 * 65_536) == fds[3]
    assert len(os.listdir("/proc/self/fd")) == before + 2  # noqa: PTH208 - a count
    namespaces.close()


def _mounts(who: str = "self") -> str:
    return Path(f"/proc/{who}/mountinfo").read_text()
