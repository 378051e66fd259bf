"""Imports of folders, OCI layouts and saved archives."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.images.layout import CONFIG, Layout, sha256

from sandboxd.core.errors import Invalid, SandboxdError, Unavailable
from sandboxd.core.records import ImageConfig
from sandboxd.images import importing
from sandboxd.images.importing import ConfigChanges
from sandboxd.images.store import ImageStore

if TYPE_CHECKING:
    from sandboxd.images.manifest import Layer
    from sandboxd.images.oci import Blob

MakeTar = Callable[..., Path]


@pytest.fixture
def tars(make_tar: MakeTar) -> tuple[bytes, bytes]:
    lower = make_tar(("etc/old", {}, b"old"), ("bin/python3", {"mode": 0o755}, b"#!"))
    upper = make_tar(("etc/.wh.old", {}, b""), ("etc/new", {}, b"new"))
    return lower.read_bytes(), upper.read_bytes()


def test_a_folder_is_copied_with_all_that_belongs_to_it(tmp_path: Path, layer_of: Callable[[Path], Path]) -> None:
    source = tmp_path / "root"
    (source / "d" / "deep").mkdir(parents=True, mode=0o711)
    (source / "f").write_text("1")
    os.chown(source / "f", 12, 34)
    (source / "f").chmod(0o4755)
    os.setxattr(source / "f", "user.note", b"x")
    os.setxattr(source / "d", "trusted.overlay.opaque", b"y")
    os.link(source / "f", source / "d" / "same")
    (source / "d" / "l").symlink_to("/etc/shadow")
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(source / "pipe")
    (source / ".wh.name").write_text("a file like any other")
    os.utime(source / "d", (5, 5))
    source.chmod(0o751)
    layer = layer_of(source)
    facts = (layer / "f").stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid) == (0o4755, 12, 34)
    assert os.getxattr(layer / "f", "user.note") == b"x"
    assert not os.listxattr(layer / "d")
    assert (layer / "d/same").stat().st_ino == facts.st_ino
    assert str((layer / "d/l").readlink()) == "/etc/shadow"
    assert (layer / "null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO((layer / "pipe").stat().st_mode)
    assert (layer / ".wh.name").exists()
    assert (layer / "d").stat().st_mtime == 5
    assert stat.S_IMODE(layer.stat().st_mode) == 0o751


def test_equal_folders_are_one_image_and_unequal_ones_are_not(tmp_path: Path, store: ImageStore) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("same")
        os.utime(tmp_path / name / "f", (9, 9))
        os.utime(tmp_path / name, (9, 9))
    first = store.add("one", tmp_path / "one")
    assert store.add("two", tmp_path / "two").digest == first.digest
    (tmp_path / "two" / "f").chmod(0o600)
    assert store.add("two", tmp_path / "two").digest != first.digest


def test_an_oci_layout_brings_its_layers_and_its_configuration(
    layout: Layout, tars: tuple[bytes, bytes], store: ImageStore, images: Path
) -> None:
    record = store.add("app", layout.image(*tars))
    assert record.layers == tuple(sha256(tar) for tar in tars)
    assert record.config == ImageConfig(
        env=(("PATH", "/bin"), ("EMPTY", ""), ("ODD", "a=b")),
        user="1000:1000",
        cwd="/srv",
        entrypoint=("/entry", "with space"),
        command=("serve",),
    )
    upper = images / "layers" / record.layers[1].removeprefix("sha256:")
    assert stat.S_ISCHR((upper / "etc/old").lstat().st_mode)


def test_what_the_caller_says_goes_before_what_the_image_says(
    layout: Layout, tars: tuple[bytes, bytes], store: ImageStore
) -> None:
    changes = ConfigChanges(env=(("PATH", "/x"), ("MORE", "1")), user="", entrypoint=("/mine",))
    config = store.add("app", layout.image(*tars), changes).config
    assert config == ImageConfig(
        env=(("PATH", "/x"), ("EMPTY", ""), ("ODD", "a=b"), ("MORE", "1")), cwd="/srv", entrypoint=("/mine",)
    )


def test_an_image_that_says_nothing_has_an_empty_configuration(
    layout: Layout, tars: tuple[bytes, bytes], store: ImageStore
) -> None:
    empty = {"Env": None, "Cmd": None, "Entrypoint": None, "User": "", "WorkingDir": ""}
    assert store.add("app", layout.image(*tars, config=empty)).config == ImageConfig()
    assert store.add("app", layout.image(*tars, config=None)).config == ImageConfig()


def test_the_image_for_this_machine_is_chosen(layout: Layout, tars: tuple[bytes, bytes], store: ImageStore) -> None:
    wanted = "arm64" if os.uname().machine == "aarch64" else "amd64"
    mine = layout.blob(json.dumps(layout.manifest(*tars)).encode())
    other = layout.blob(json.dumps(layout.manifest(tars[0], config={})).encode())
    entries = (
        {**other, "platform": {"architecture": "s390x", "os": "linux"}},
        {**mine, "platform": {"architecture": wanted, "os": "linux"}},
        {**other, "platform": {"architecture": "unknown", "os": "unknown"}},
    )
    inner = layout.blob(
        json.dumps({"mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}).encode()
    )
    assert len(store.add("app", layout.index(inner)).layers) == 2
    with pytest.raises(Invalid, match="no variant for this node"):
        store.add("app", layout.index(entries[0], {**entries[0], "platform": {"architecture": "ppc"}}))
    with pytest.raises(Invalid, match="holds 2 images"):
        store.add("app", layout.index(entries[1], entries[1]))


def test_a_layer_that_two_images_have_is_stored_once(
    layout: Layout, tars: tuple[bytes, bytes], store: ImageStore, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add("small", layout.image(tars[0]))
    unpacked: list[str] = []
    unpack = importing._unpack_blob

    def counted(blob: Blob, *rest: Any) -> Layer:
        unpacked.append(blob.diff_id)
        return unpack(blob, *rest)

    monkeypatch.setattr(importing, "_unpack_blob", counted)
    record = store.add("large", layout.image(*tars))
    assert unpacked == [sha256(tars[1])]
    assert record.size_bytes == 8
    assert len([*(images / "layers").iterdir()]) == 2


def test_every_digest_of_a_layout_is_checked(
    layout: Layout, tars: tuple[bytes, bytes], store: ImageStore, images: Path
) -> None:
    source = layout.image(*tars)
    for blob in sorted(layout.blobs.iterdir()):
        good = blob.read_bytes()
        blob.write_bytes(good + b" ")
        with pytest.raises(SandboxdError):
            store.add("app", source)
        blob.unlink()
        with pytest.raises(Invalid, match="lacks its part"):
            store.add("app", source)
        blob.write_bytes(good)
        assert not [*(images / "layers").iterdir()]
    store.add("app", source)


def test_a_layer_that_is_not_what_the_image_says_is_refused(
    layout: Layout, tars: tuple[bytes, bytes], store: ImageStore
) -> None:
    manifest = layout.manifest(*tars)
    manifest["layers"].reverse()
    with pytest.raises(Invalid, match="unpacks to"):
        store.add("app", layout.index(layout.blob(json.dumps(manifest).encode())))


@pytest.mark.parametrize("config", [{"Env": "PATH=/x"}, {"Cmd": [5]}, {"Entrypoint": {"a": 1}}, {"Cmd": ["a\0b"]}])
def test_a_senseless_configuration_is_refused(
    config: object, layout: Layout, tars: tuple[bytes, bytes], store: ImageStore
) -> None:
    with pytest.raises(Invalid, match="list of words"):
        store.add("app", layout.image(*tars, config=config))


@pytest.mark.parametrize(
    "index",
    [
        "",
        "[]",
        "{}",
        '{"manifests": 5}',
        '{"manifests": [5]}',
        '{"manifests": [{"digest": "sha256:../../../../etc/passwd"}]}',
        '{"manifests": [{"digest": 5}]}',
        '{"manifests": []}',
        '{"manifests": [{"platform": "x"}, {"platform": 5}]}',
        "[" * 100_000,
    ],
)
def test_a_senseless_layout_is_refused(index: str, layout: Layout, store: ImageStore) -> None:
    (layout.folder / "index.json").write_text(index)
    with pytest.raises(SandboxdError):
        store.add("app", layout.folder)


def test_an_archived_layout_is_an_image_too(
    layout: Layout, tars: tuple[bytes, bytes], store: ImageStore, tmp_path: Path, images: Path
) -> None:
    archive = tmp_path / "image.tar"
    subprocess.run(["tar", "-cf", archive, "-C", layout.image(*tars), "."], check=True)
    assert store.add("app", archive) == store.add("app", layout.folder)
    assert len([*(images / "layers").iterdir()]) == 2


def test_a_saved_archive_is_an_image_too(tars: tuple[bytes, bytes], store: ImageStore, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    for name, tar in zip("ab", tars, strict=True):
        (saved / name).mkdir(parents=True)
        (saved / name / "layer.tar").write_bytes(tar)
    shutil.copytree(saved / "a", saved / "c")
    (saved / "c/layer.tar").unlink()
    (saved / "c/layer.tar").symlink_to("../a/layer.tar")
    described = {"config": CONFIG, "rootfs": {"diff_ids": [sha256(tar) for tar in tars]}}
    (saved / "0.json").write_text(json.dumps(described))
    (saved / "manifest.json").write_text(json.dumps([{"Config": "0.json", "Layers": ["c/layer.tar", "b/layer.tar"]}]))
    with tarfile.open(tmp_path / "saved.tar", "w") as archive:
        archive.add(saved, "")
    record = store.add("app", tmp_path / "saved.tar")
    assert record.config.command == ("serve",)
    assert record.layers == tuple(sha256(tar) for tar in tars)


def test_a_full_disk_is_told_and_leaves_nothing(
    make_tar: MakeTar, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_tar(("f", {}, os.urandom(3_000_000)))
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], check=True)
    try:
        with pytest.raises(Unavailable, match="full"):
            ImageStore(small / "images").add("x", source)
        assert not [*(small / "images" / "staging").iterdir()]
    finally:
        subprocess.run(["umount", "-l", small], check=True)
    images.mkdir(exist_ok=True)


def test_a_folder_that_a_layer_only_implies_looks_as_it_did_below(
    layout: Layout, make_tar: MakeTar, store: ImageStore, images: Path
) -> None:
    """Such layers made /tmp belong to root alone."""
    lower = make_tar(("tmp", {"type": tarfile.DIRTYPE, "mode": 0o1777, "uid": 5, "mtime": 9}, b"")).read_bytes()
    upper = make_tar(("tmp/x", {}, b"1"), ("other/x", {}, b"1")).read_bytes()
    record = store.add("app", layout.image(lower, upper))
    facts = (images / "layers" / record.layers[1].removeprefix("sha256:") / "tmp").stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_mtime) == (0o1777, 5, 9)
