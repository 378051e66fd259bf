"""Imported images as the kernel merges them, mounted in a mount namespace of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxd.images.merged import resolve
from sandboxd.images.place import default_images_folder
from sandboxd.images.python import LENT_AT, find_python
from sandboxd.images.store import ImageStore
from sandboxd.ports.images import Rootfs

MakeTar = Callable[..., Path]
FOLDER = {"type": tarfile.DIRTYPE, "mode": 0o755}


def inside(rootfs: Rootfs, work: Path, script: str, *, chroot: tuple[str, ...] = ()) -> str:
    """Mount a rootfs with a writable layer in a new mount namespace; run a shell script at its root."""
    lines = ["set -e"]
    work.mkdir()
    lines.append(f"mount -t tmpfs none {work}")
    for number, tree in enumerate(rootfs.trees):
        upper = f"{work}/{number}"
        lowers = ":".join(str(lower) for lower in tree.lowers)
        options = f"lowerdir={lowers},upperdir={upper}/upper,workdir={upper}/work"
        lines.append(f"mkdir -p {upper}/upper {upper}/work {work}/root")
        lines.append(f"mount -t overlay -o {options} none {work}/root{tree.target.rstrip('/')}")
    for source, target in rootfs.binds:
        lines.append(f"mkdir -p {work}/root{target}; mount --bind -o ro {source} {work}/root{target}")
    lines.append(f"cd {work}/root; mkdir -p dev proc; mount --bind /dev dev; mount -t proc none proc")
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join([*lines, script]), "sh", *chroot]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_root(rootfs: Rootfs, work: Path, *command: str) -> str:
    return inside(
        rootfs, work, 'exec env -i PATH=/usr/local/bin:/usr/bin:/bin "$(command -v chroot)" . "$@"', chroot=command
    )


async def test_whiteouts_and_opaque_folders_hide_what_is_below(
    store: ImageStore, make_tar: MakeTar, images: Path, tmp_path: Path
) -> None:
    lower = make_tar(
        ("gone", {}, b"1"),
        ("dir/a", {}, b"1"),
        ("dir/b", {}, b"1"),
        ("replaced/old", {}, b"1"),
        ("emptied/old", {}, b"1"),
        ("kept", {}, b"1"),
        ("tree/x/y", {}, b"1"),
    )
    upper = make_tar(
        (".wh.gone", {}, b""),
        ("dir/.wh.a", {}, b""),
        ("dir/c", {}, b"2"),
        (".wh.replaced", {}, b""),
        ("replaced/new", {}, b"2"),
        ("emptied", FOLDER, b""),
        ("emptied/.wh..wh..opq", {}, b""),
        ("tree/.wh.x", {}, b""),
    )
    first, second = store.add("lower", lower), store.add("upper", upper)
    folders = [images / "layers" / record.layers[0].removeprefix("sha256:") for record in (second, first)]
    rootfs = await store.rootfs("upper", user="u")
    stacked = Rootfs(rootfs.image, (type(rootfs.trees[0])("/", tuple(folders)),), ())
    found = inside(stacked, tmp_path / "work", "umount dev proc; rmdir dev proc; find . | sort").split()
    assert found == [
        ".",
        "./dir",
        "./dir/b",
        "./dir/c",
        "./emptied",
        "./kept",
        "./replaced",
        "./replaced/new",
        "./tree",
    ]
    for path in ("gone", "dir/a", "replaced/old", "emptied/old", "tree/x", "tree/x/y"):
        assert resolve(folders, path) is None
    for path in found[1:]:
        assert resolve(folders, path)


def test_looking_into_layers_follows_links_inside_only(tmp_path: Path) -> None:
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    (lower / "usr/bin").mkdir(parents=True)
    (lower / "usr/bin/python3.11").write_text("#!")
    (lower / "usr/bin/python3.11").chmod(0o755)
    upper.mkdir()
    (upper / "bin").symlink_to("/usr/bin")
    (lower / "usr/bin/python3").symlink_to("../../../../bin/python3.11")
    assert resolve([upper, lower], "/bin/python3") == lower / "usr/bin/python3.11"
    assert find_python([upper, lower]) == ("/usr/bin/python3",)
    (upper / "loop").symlink_to("loop")
    (upper / "out").symlink_to("/etc/passwd")
    assert resolve([upper, lower], "loop") is None
    assert resolve([upper, lower], "out") is None
    assert resolve([upper, lower], "/usr/bin/python3.11/x") is None
    (lower / "usr/bin/python3.11").chmod(0o644)
    assert find_python([upper, lower]) == ()


PROGRAM = """
import ctypes, json, os, sqlite3, ssl, subprocess, sys, zlib, encodings.idna, hashlib
assert not [key for key in os.environ if key.startswith(("PYTHON", "LD_"))], os.environ
assert sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)
assert ctypes.CDLL(None).getpid() == os.getpid()
env = subprocess.run(["/bin/sh", "-c", "env; echo $0"], capture_output=True, text=True, check=True).stdout
assert "PYTHON" not in env and "LD_" not in env, env
subprocess.run(["ls", "/"], check=True, stdout=subprocess.DEVNULL)
print(json.dumps([sys.version_info[0], sys.prefix, sys.argv[1:]]))
"""


async def test_a_lent_python_works_where_there_is_none(images: Path, tmp_path: Path) -> None:
    store = ImageStore(default_images_folder())
    user = f"test-{tmp_path.name}"
    if not (await store.has("sandboxd-base") and await store.has("alpine")):
        pytest.skip("the images of `./dev images` are not built")
    ImageStore(images).close()
    try:
        rootfs = await store.rootfs("alpine", user=user)
        assert rootfs.python
        assert rootfs.binds[0][1] == LENT_AT
        out = in_root(rootfs, tmp_path / "work", *rootfs.python, "-c", PROGRAM, "x y")
        assert out.strip() == f'[3, "{LENT_AT}/usr", ["x y"]]'
    finally:
        await store.release(user)
        store.close()


async def test_without_an_image_to_lend_from_there_is_no_python(store: ImageStore, make_tar: MakeTar) -> None:
    store.add("bare", make_tar(("f", {}, b"")))
    rootfs = await store.rootfs("bare", user="u")
    assert (rootfs.python, rootfs.binds) == ((), ())


def this_python() -> bytes:
    return Path(sys.executable).resolve().read_bytes()


async def test_a_lender_that_comes_later_is_noticed(store: ImageStore, make_tar: MakeTar, images: Path) -> None:
    """The loader and the program are this machine's, so what is lent can be told from what is not."""
    store.add("bare", make_tar(("f", {}, b"")))
    await store.rootfs("bare", user="u")
    python = this_python()
    lender = make_tar(
        ("usr/bin/python3", {"mode": 0o755}, python),
        ("lib64", {"type": tarfile.SYMTYPE, "linkname": "usr/lib"}, b""),
        ("usr/lib/ld-linux-x86-64.so.2", {"mode": 0o755}, b"x"),
        ("lib", {"type": tarfile.SYMTYPE, "linkname": "usr/lib"}, b""),
        ("usr/lib/ld-linux-aarch64.so.1", {"mode": 0o755}, b"x"),
    )
    record = store.add("sandboxd-base", lender)
    rootfs = await store.rootfs("bare", user="u")
    layer = images / "layers" / record.layers[0].removeprefix("sha256:")
    assert rootfs.binds == ((layer, LENT_AT),)
    assert rootfs.python[0].startswith(f"{LENT_AT}/usr/lib/ld-linux-")
    store.remove("sandboxd-base")
    assert layer.exists()
    await store.release("u")
    store.collect()
    assert not layer.exists()


HOST_SCRIPT = """
set -e
id -un
ls /home
test -z "$(ls -A /usr/src /usr/local/bin /usr/local/share | grep -v :)"
for path in shadow machine-id environment ssh ssl/private; do test ! -e /etc/$path; done
test ! -e /root/.ssh
test ! -e "$(echo /usr/lib/python3*/EXTERNALLY-MANAGED)"
touch /usr/bin/made /usr/local/bin/made /etc/made /tmp/made /root/made
echo | awk '{print "awk"}'
cd /
python -c 'import json, ssl; print(json.__name__, len(ssl.create_default_context().get_ca_certs()) > 0)'
git config user.email
getent services ssh >/dev/null
date >/dev/null
"""


async def test_the_host_image_runs_this_machines_programs_with_nothing_of_its_data(
    store: ImageStore, tmp_path: Path
) -> None:
    rootfs = await store.rootfs("host", user="u")
    assert rootfs.image.name == "host"
    assert rootfs.trees[1].target == "/usr"
    assert rootfs.trees[1].nosuid
    out = in_root(rootfs, tmp_path / "work", "/bin/bash", "-c", HOST_SCRIPT)
    assert out.splitlines() == ["root", "user", "awk", "json True", "sandbox@localhost"]
    assert "made" not in os.listdir("/usr/bin")  # noqa: PTH208 - quick enough for the loop


async def test_the_host_image_stays_the_same_until_the_machine_changes(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch, images: Path
) -> None:
    first = (await store.rootfs("host", user="u")).image
    again = ImageStore(images)
    assert (await again.rootfs("host", user="v")).image == first
    again.close()
    monkeypatch.setattr("sandboxd.images.skeleton._OWN", {"etc/hostname": "other\n"})
    changed = ImageStore(images)
    second = (await changed.rootfs("host", user="w")).image
    changed.close()
    assert second.digest != first.digest
    assert len([*(images / "layers").iterdir()]) == 3
    for user in "uv":
        await store.release(user)
    store.collect()
    assert len([*(images / "layers").iterdir()]) == 2
    assert not store.records()


async def test_the_host_image_holds_no_secret(store: ImageStore, images: Path) -> None:
    rootfs = await store.rootfs("host", user="u")
    base = rootfs.trees[0].lowers[0]
    names = {str(path.relative_to(base)) for path in base.rglob("*")}
    for forbidden in ("etc/shadow", "etc/gshadow", "etc/machine-id", "etc/environment", "etc/ssh", "etc/ssl/private"):
        assert forbidden not in names
    for path in base.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert b"PRIVATE KEY" not in path.read_bytes(), path
