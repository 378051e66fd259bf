"""Layers out of tar archives, friendly and hostile."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandboxd.core.errors import Invalid, LimitExceeded, SandboxdError
from sandboxd.images import entry, tarball
from sandboxd.images.entry import Allowance
from sandboxd.images.layer import LayerWriter

if TYPE_CHECKING:
    from sandboxd.images.store import ImageStore

MakeTar = Callable[..., Path]
LayerOf = Callable[[Path], Path]
FOLDER: dict[str, Any] = {"type": tarfile.DIRTYPE, "mode": 0o755}


def link(target: str, **more: Any) -> dict[str, Any]:
    return {"type": tarfile.SYMTYPE, "linkname": target, **more}


def hard(target: str) -> dict[str, Any]:
    return {"type": tarfile.LNKTYPE, "linkname": target}


def test_owners_modes_times_and_attributes_are_kept(make_tar: MakeTar, layer_of: LayerOf) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    pax = {
        "SCHILY.xattr.security.capability": capability.decode(errors="surrogateescape"),
        "SCHILY.xattr.user.note": "kept",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.other": "no",
    }
    layer = layer_of(
        make_tar(
            ("d", {**FOLDER, "mode": 0o1770, "uid": 7, "gid": 8, "mtime": 1000, "pax_headers": pax}, b""),
            ("d/su", {"mode": 0o6755, "uid": 1000, "gid": 1001, "mtime": 1234567890.5, "pax_headers": pax}, b"x"),
            ("d/l", link("/nowhere", uid=5, gid=6, mtime=77), b""),
        )
    )
    folder, file, symlink = (layer / name for name in ("d", "d/su", "d/l"))
    facts = file.stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid) == (0o6755, 1000, 1001)
    assert facts.st_mtime_ns == 1234567890_500000000
    assert os.getxattr(file, "security.capability") == capability
    assert {*os.listxattr(file)} == {"security.capability", "user.note"}
    assert {*os.listxattr(folder)} == {"security.capability", "user.note"}
    facts = folder.stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid, facts.st_mtime) == (0o1770, 7, 8, 1000)
    facts = symlink.lstat()
    assert (facts.st_uid, facts.st_gid, facts.st_mtime, str(symlink.readlink())) == (5, 6, 77, "/nowhere")


def test_devices_fifos_and_hard_links_are_made(make_tar: MakeTar, layer_of: LayerOf) -> None:
    layer = layer_of(
        make_tar(
            ("null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "mode": 0o666}, b""),
            ("disk", {"type": tarfile.BLKTYPE, "devmajor": 7, "devminor": 0, "mode": 0o660}, b""),
            ("pipe", {"type": tarfile.FIFOTYPE, "mode": 0o622}, b""),
            ("a/one", {}, b"same"),
            ("b/two", hard("a/one"), b""),
            ("three", hard("/b/two"), b""),
            ("l", link("a/one"), b""),
            ("l2", hard("l"), b""),
        )
    )
    null = (layer / "null").stat()
    assert stat.S_ISCHR(null.st_mode)
    assert (null.st_rdev, stat.S_IMODE(null.st_mode)) == (os.makedev(1, 3), 0o666)
    assert stat.S_ISBLK((layer / "disk").stat().st_mode)
    assert stat.S_ISFIFO((layer / "pipe").stat().st_mode)
    assert len({(layer / name).stat().st_ino for name in ("a/one", "b/two", "three")}) == 1
    assert (layer / "l2").is_symlink()


def test_whiteouts_become_what_overlayfs_knows(make_tar: MakeTar, layer_of: LayerOf) -> None:
    layer = layer_of(
        make_tar(
            ("gone/.wh.file", {}, b""),
            ("fresh", FOLDER, b""),
            ("fresh/.wh..wh..opq", {}, b""),
            ("fresh/new", {}, b"1"),
            (".wh..wh.plnk", FOLDER, b""),
        )
    )
    hidden = (layer / "gone/file").lstat()
    assert stat.S_ISCHR(hidden.st_mode)
    assert hidden.st_rdev == 0
    assert os.getxattr(layer / "fresh", "trusted.overlay.opaque") == b"y"
    assert (layer / "fresh/new").read_text() == "1"
    assert sorted(path.name for path in layer.iterdir()) == ["fresh", "gone"]


def test_a_thing_that_is_hidden_and_made_anew_is_there_without_its_past(make_tar: MakeTar, layer_of: LayerOf) -> None:
    layer = layer_of(
        make_tar(
            (".wh.a", {}, b""),
            ("a/b", {}, b"new"),
            ("c", FOLDER, b""),
            ("c/d", {}, b"new"),
            (".wh.c", {}, b""),
            (".wh.e", {}, b""),
            ("e", {}, b"new"),
            ("f", {}, b"new"),
            (".wh.f", {}, b""),
        )
    )
    assert os.getxattr(layer / "a", "trusted.overlay.opaque") == b"y"
    assert os.getxattr(layer / "c", "trusted.overlay.opaque") == b"y"
    assert [(layer / name).read_text() for name in ("a/b", "c/d", "e", "f")] == ["new"] * 4


def test_a_later_entry_replaces_an_earlier_one(make_tar: MakeTar, layer_of: LayerOf) -> None:
    layer = layer_of(
        make_tar(
            ("file", {"mode": 0o600}, b"old and long"),
            ("file", {"mode": 0o644}, b"new"),
            ("was-folder/below", {}, b""),
            ("was-folder", {}, b"file"),
            ("was-file", {}, b""),
            ("was-file", FOLDER, b""),
            ("was-file/below", {}, b"1"),
            ("was-link", link("/etc/passwd"), b""),
            ("was-link", {}, b"mine"),
            ("device", {}, b""),
            ("device", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}, b""),
            ("twice", {**FOLDER, "mode": 0o700}, b""),
            ("twice/kept", {}, b""),
            ("twice", {**FOLDER, "mode": 0o711}, b""),
        )
    )
    assert (layer / "file").read_text() == "new"
    assert (layer / "was-folder").read_text() == "file"
    assert (layer / "was-file/below").read_text() == "1"
    assert (layer / "was-link").read_text() == "mine"
    assert not (layer / "was-link").is_symlink()
    assert stat.S_ISCHR((layer / "device").stat().st_mode)
    assert stat.S_IMODE((layer / "twice").stat().st_mode) == 0o711
    assert (layer / "twice/kept").exists()


def test_absolute_paths_are_taken_from_the_layers_root(make_tar: MakeTar, layer_of: LayerOf) -> None:
    layer = layer_of(
        make_tar(("/etc/passwd", {}, b"inside"), ("./././x", {}, b"1"), ("./", {**FOLDER, "mode": 0o700}, b""))
    )
    assert (layer / "etc/passwd").read_text() == "inside"
    assert stat.S_IMODE(layer.stat().st_mode) == 0o700
    assert stat.S_IMODE((layer / "etc").stat().st_mode) == 0o755


def test_names_with_newlines_and_bytes_that_are_no_text_are_kept(make_tar: MakeTar, layer_of: LayerOf) -> None:
    layer = layer_of(make_tar(("a\nb", {}, b"1"), ("c\udcff", {}, b"2")))
    assert sorted(os.listdir(os.fsencode(layer))) == [b"a\nb", b"c\xff"]  # noqa: PTH208 - names as bytes


HOSTILE: dict[str, tuple[list[tuple[str, dict[str, Any], bytes]], str]] = {
    "climbing": ([("../../escaped", {}, b"x")], "climbs"),
    "climbing in the middle": ([("a/../../escaped", {}, b"x")], "climbs"),
    "through an absolute link": ([("l", link("/var"), b""), ("l/escaped", {}, b"x")], "`l`, which is a link"),
    "through a climbing link": ([("l", link("../.."), b""), ("l/escaped", {}, b"x")], "`l`, which is a link"),
    "whiteout through a link": ([("l", link("/var"), b""), ("l/.wh.x", {}, b"")], "`l`, which is a link"),
    "opaque through a link": ([("l", link("/var"), b""), ("l/.wh..wh..opq", {}, b"")], "`l`, which is a link"),
    "folder below a link": ([("l", link("/var"), b""), ("l/d", FOLDER, b"")], "`l`, which is a link"),
    "through a file": ([("f", {}, b""), ("f/x", {}, b"x")], "`f`, which is a link or a file"),
    "hard link out": ([("h", hard("../../../etc/passwd"), b"")], "climbs"),
    "hard link to the machine": ([("h", hard("/etc/passwd"), b"")], "which is not there"),
    "hard link through a link": ([("l", link("/etc"), b""), ("h", hard("l/passwd"), b"")], "`l`, which is a link"),
    "hard link to a folder": ([("d", FOLDER, b""), ("h", hard("d"), b"")], "hard link to a folder"),
    "hard link to itself": ([("f", {}, b""), ("f", hard("./f"), b"")], "to itself"),
    "hard link to what it replaces": ([("d/f", {}, b""), ("d", hard("d/f"), b"")], "which is not there"),
    "root as a file": ([("./", {}, b"x")], "root of the image"),
    "root as a link": ([(".", link("/"), b"")], "root of the image"),
    "NUL in a name": ([("x", {"pax_headers": {"path": "a\0b"}}, b"")], "NUL"),
    "NUL in a target": (
        [("x", {"type": tarfile.SYMTYPE, "pax_headers": {"linkpath": "a\0b"}}, b"")],
        "link to nothing",
    ),
    "a link to nothing": ([("x", link(""), b"")], "link to nothing"),
    "a whiteout of nothing": ([("d/.wh.", {}, b"")], "whiteout of nothing"),
    "a whiteout of the parent": ([("d/.wh...", {}, b"")], "whiteout of nothing"),
    "a name too long": ([("x" * 256, {}, b"")], "file system cannot"),
    "a path too long": ([("/".join(["x" * 200] * 30), {}, b"")], "longer than"),
    "a path too deep": ([("/".join(["x"] * 300), {}, b"")], "deeper than"),
    "an owner that cannot be": ([("x", {"pax_headers": {"uid": "4294967295"}}, b"")], "cannot be"),
    "a negative owner": ([("x", {"pax_headers": {"uid": "-1"}}, b"")], "cannot be"),
    "a device that cannot be": ([("x", {"type": tarfile.CHRTYPE, "devmajor": 2000000}, b"")], "cannot be"),
    "an unknown kind": ([("x", {"type": b"V"}, b"")], "unknown kind"),
    "huge": ([("x", {"pax_headers": {"size": str(2**62)}}, b"")], "larger than an import may be"),
    "a huge hole": (
        [("x", {"pax_headers": {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**50)}}, b"1")],
        "larger than an import may be",
    ),
    "holes that overlap": (
        [("x", {"pax_headers": {"GNU.sparse.map": "4,1,0,1", "GNU.sparse.size": "9"}}, b"12")],
        "holes wrongly",
    ),
    "holes past the end": (
        [("x", {"pax_headers": {"GNU.sparse.map": "8,2", "GNU.sparse.size": "9"}}, b"12")],
        "holes wrongly",
    ),
    "a large header": ([("x", {"pax_headers": {"comment": "x" * 5_000_000}}, b"")], "header takes more"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_entries_are_refused_and_leave_nothing(
    case: str, make_tar: MakeTar, store: ImageStore, images: Path, tmp_path: Path
) -> None:
    members, sentence = HOSTILE[case]
    source = make_tar(("good", {}, b"fine"), *members)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SandboxdError, match=sentence) as refused:
        store.add("hostile", source)
    assert "\n" not in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert not store.records()
    assert not [*(images / "layers").iterdir()]


def test_sparse_files_keep_their_holes(tmp_path: Path, layer_of: LayerOf) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"middle")
        file.truncate(9_000_000)
    for form in ("gnu", "posix"):
        archive = tmp_path / f"{form}.tar"
        subprocess.run(["tar", f"--format={form}", "-S", "-cf", archive, "-C", source, "."], check=True)
        assert archive.stat().st_size < 100_000
        found = layer_of(archive) / "sparse"
        assert found.stat().st_size == 9_000_000
        assert found.stat().st_blocks < 1000
        assert found.read_bytes() == (source / "sparse").read_bytes()


def test_what_tar_itself_packs_comes_out_the_same(tmp_path: Path, layer_of: LayerOf) -> None:
    source = tmp_path / "source"
    (source / "a" / ("long" * 40) / ("name" * 40)).mkdir(parents=True)
    (source / "a" / ("long" * 40) / ("name" * 40) / "x").write_bytes(b"1" * 3000)
    (source / "a" / "link").symlink_to("t" * 200)
    for form in ("gnu", "posix"):
        archive = tmp_path / f"{form}.tar"
        subprocess.run(["tar", f"--format={form}", "-cf", archive, "-C", source, "."], check=True)
        subprocess.run(["diff", "-r", "--no-dereference", source, layer_of(archive)], check=True)


def test_compressed_archives_have_the_digest_of_what_is_in_them(make_tar: MakeTar, store: ImageStore) -> None:
    member = ("f", {"mtime": 1}, b"x" * 100_000)
    digests = {store.add("x", make_tar(member, mode=mode)).digest for mode in ("w", "w:gz", "w:xz", "w:bz2")}
    assert len(digests) == 1


def test_a_zstd_archive_of_several_frames_is_read_whole(make_tar: MakeTar, store: ImageStore, tmp_path: Path) -> None:
    plain = make_tar(("f", {"mtime": 1}, os.urandom(300_000)), ("g", {}, b"2"))
    data = plain.read_bytes()
    packed = tmp_path / "x.tar.zst"
    packed.write_bytes(b"".join(zstandard.compress(part) for part in (data[:100_000], data[100_000:])))
    assert store.add("x", packed).digest == store.add("y", plain).digest


@pytest.mark.parametrize("kept", [30, 5_000, 70_000, 131_100, 140_000, -4, -1])
def test_a_cut_zstd_archive_is_refused_wherever_it_was_cut(
    kept: int, make_tar: MakeTar, store: ImageStore, tmp_path: Path
) -> None:
    members: list[tuple[str, dict[str, object], bytes]] = [
        (f"f{number}", {}, os.urandom(512 * 3)) for number in range(100)
    ]
    packed = tmp_path / "x.tar.zst"
    packed.write_bytes(zstandard.compress(make_tar(*members).read_bytes())[:kept])
    with pytest.raises(Invalid, match=r"damaged|ends"):
        store.add("x", packed)


def test_a_damaged_zstd_archive_is_refused(tmp_path: Path, store: ImageStore) -> None:
    source = tmp_path / "x.tar.zst"
    source.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    with pytest.raises(Invalid, match="damaged"):
        store.add("x", source)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_cut_archive_is_refused(mode: str, make_tar: MakeTar, store: ImageStore) -> None:
    source = make_tar(("a", {}, b"1"), ("b", {}, os.urandom(60_000)), mode=mode)
    source.write_bytes(source.read_bytes()[:30_000])
    with pytest.raises(Invalid, match=r"damaged|ends"):
        store.add("x", source)


def test_a_damaged_header_is_not_taken_for_the_end(make_tar: MakeTar, store: ImageStore) -> None:
    source = make_tar(("a", {}, b"1" * 512), ("b", {}, b"2"))
    data = bytearray(source.read_bytes())
    at = data.index(b"b\0\0\0", 1024)
    data[at + 3] = 0x41
    source.write_bytes(data)
    with pytest.raises(Invalid, match="damaged header"):
        store.add("x", source)


@pytest.mark.parametrize("content", [b"", b"no tar at all", os.urandom(4096)])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path, store: ImageStore) -> None:
    source = tmp_path / "source"
    source.write_bytes(content)
    with pytest.raises(Invalid, match="damaged or no tar"):
        store.add("x", source)


def test_an_archive_that_unpacks_to_too_much_is_stopped(
    tmp_path: Path, make_tar: MakeTar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tarball, "_SLACK", 10_000)
    source = make_tar(("a", {}, b""), mode="w:gz")
    with tarfile.open(tmp_path / "bomb", "w:gz") as archive:
        info = tarfile.TarInfo("zeros")
        info.size = 3_000_000
        archive.addfile(info, io.BytesIO(bytes(3_000_000)))
    for path, most in ((tmp_path / "bomb", 1_000_000), (source, 0)):
        where = tmp_path / f"layer-{path.name}"
        where.mkdir()
        allowance = Allowance(bytes_left=most, entries_left=0 if path == source else 10)
        with path.open("rb") as file, LayerWriter(where, allowance) as layer, pytest.raises(LimitExceeded):
            tarball.unpack(file, layer, allowance)
    assert Allowance().bytes_left == 64 * entry.GIB


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), min_size=1, max_size=8))
def test_any_damage_ends_in_a_layer_or_a_refusal(
    changes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory, make_tar: MakeTar
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    source = make_tar(
        ("a", {"pax_headers": {"SCHILY.xattr.user.x": "y"}}, b"1" * 700),
        ("d", FOLDER, b""),
        ("d/l", link("../a"), b""),
        ("d/.wh.x", {}, b""),
        ("h", hard("a"), b""),
        ("x" * 150, {}, b"2"),
        name="fuzz.tar",
    )
    data = bytearray(source.read_bytes())
    for position, value in changes:
        data[position % len(data)] = value
    inside = folder / "in" / "layer"
    inside.mkdir(parents=True)
    allowance = Allowance(bytes_left=10_000_000, entries_left=100)
    with LayerWriter(inside, allowance) as layer, suppress(SandboxdError, OSError):
        tarball.unpack(io.BytesIO(data), layer, allowance)
    assert [path.name for path in folder.iterdir()] == ["in"]
    assert [path.name for path in (folder / "in").iterdir()] == ["layer"]
    subprocess.run(["rm", "-rf", folder], check=True)
