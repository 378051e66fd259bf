"""What is put into a writable layer before an instance starts, and what never is."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

import pytest

from sandboxd.core.records import ImageConfig, ImageRecord
from sandboxd.ports.images import Rootfs, Tree
from sandboxd.runtimes.oci.disk import WritableTree, prepare

IMAGE = ImageRecord("image", "sha256:0", ImageConfig(), layers=(), size_bytes=0, created_at=0.0)


def _folder(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    folder.chmod(0o755)
    return folder


def _tree(tmp_path: Path, *lowers: Path) -> WritableTree:
    writable = WritableTree(Tree("/", lowers), tmp_path / "disk")
    writable.upper.mkdir(parents=True)
    return writable


def test_names_are_written_as_ordinary_files(tmp_path: Path) -> None:
    lower = _folder(tmp_path, "lower")
    (lower / "etc").mkdir(mode=0o711)
    (lower / "etc" / "resolv.conf").symlink_to("/run/elsewhere")
    os.chown(lower / "etc", 5, 6)
    [tree] = prepare(tmp_path / "disk", Rootfs(IMAGE, (Tree("/", (lower,)),), python=()), "box")
    etc = tree.upper / "etc"
    status = etc.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o711, 5, 6)
    assert (etc / "hostname").read_text() == "box\n"
    assert (etc / "resolv.conf").read_bytes() == b""
    assert not (etc / "resolv.conf").is_symlink()
    assert "127.0.0.1\tlocalhost\n" in (etc / "hosts").read_text()


def test_the_root_is_like_the_images(tmp_path: Path) -> None:
    lower = _folder(tmp_path, "lower")
    lower.chmod(0o751)
    os.chown(lower, 7, 8)
    [tree] = prepare(tmp_path / "disk", Rootfs(IMAGE, (Tree("/", (lower,)),), python=()), "box")
    status = tree.upper.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o751, 7, 8)


def test_another_tree_gets_its_place_and_may_hold_etc(tmp_path: Path) -> None:
    lower, other = _folder(tmp_path, "lower"), _folder(tmp_path, "other")
    rootfs = Rootfs(IMAGE, (Tree("/", (lower,)), Tree("/etc", (other,))), python=())
    top, inner = prepare(tmp_path / "disk", rootfs, "box")
    assert list((top.upper / "etc").iterdir()) == []
    assert (inner.upper / "hostname").read_text() == "box\n"


def test_a_tree_cannot_lie_at_a_link(tmp_path: Path) -> None:
    lower, other = _folder(tmp_path, "lower"), _folder(tmp_path, "other")
    (lower / "usr").symlink_to("/")
    rootfs = Rootfs(IMAGE, (Tree("/", (lower,)), Tree("/usr", (other,))), python=())
    with pytest.raises(NotADirectoryError):
        prepare(tmp_path / "disk", rootfs, "box")


@pytest.mark.parametrize("kind", ["link", "file", "parent link"])
def test_nothing_is_written_where_the_image_has_no_directory(tmp_path: Path, kind: str) -> None:
    lower, victim = _folder(tmp_path, "lower"), _folder(tmp_path, "victim")
    match kind:
        case "link":
            (lower / "etc").symlink_to(victim)
        case "file":
            (lower / "etc").write_text("")
        case _:
            (lower / "a").symlink_to(victim)
    tree = _tree(tmp_path, lower)
    path = PurePosixPath("/a/b" if kind == "parent link" else "/etc")
    assert tree.make_directory(path) is None
    assert list(victim.iterdir()) == list(tree.upper.iterdir()) == []


def test_a_removed_directory_is_made_anew_and_a_hidden_link_is_not_seen(tmp_path: Path) -> None:
    upper, lower, victim = (_folder(tmp_path, name) for name in ("upper layer", "lower", "victim"))
    (lower / "etc").mkdir(mode=0o700)
    os.mknod(upper / "etc", 0o20000, 0)
    (upper / "opt").mkdir()
    (lower / "opt").symlink_to(victim)
    tree = _tree(tmp_path, upper, lower)
    made = tree.make_directory(PurePosixPath("/etc"))
    assert made is not None
    assert stat.S_IMODE(made.stat().st_mode) == 0o755
    assert tree.make_directory(PurePosixPath("/opt/x")) is not None
    assert list(victim.iterdir()) == []


@pytest.mark.parametrize(("of_image", "own_bytes"), [("0123456789abcdef\n", 16), ("", None), (None, None)])
def test_a_machine_id_that_comes_with_the_image_is_replaced(
    tmp_path: Path, of_image: str | None, own_bytes: int | None
) -> None:
    lower = _folder(tmp_path, "lower")
    (lower / "etc").mkdir()
    if of_image is not None:
        (lower / "etc" / "machine-id").write_text(of_image)
    [tree] = prepare(tmp_path / "disk", Rootfs(IMAGE, (Tree("/", (lower,)),), python=()), "box")
    written = tree.upper / "etc" / "machine-id"
    assert (len(bytes.fromhex(written.read_text())) if written.exists() else None) == own_bytes
