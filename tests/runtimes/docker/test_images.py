"""Where a Docker daemon's images come from, and that each comes once and whole."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import secrets
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.runtimes.inside import shell_in
from tests.runtimes.kits import KnownImages

from sandboxd.core.errors import Invalid, Unsupported
from sandboxd.core.ids import new_internal_id
from sandboxd.core.records import ImageConfig
from sandboxd.core.spec import PullPolicy
from sandboxd.ports.images import Images, Rootfs, Tree
from sandboxd.ports.runtime import InstanceSpec
from sandboxd.runtimes.docker import images as images_module
from sandboxd.runtimes.docker.loading import load, tag_of
from sandboxd.runtimes.docker.runtime import DockerRuntime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.runtimes.docker.daemons import Daemon

    from sandboxd.runtimes.docker.api import Api


def _one(rootfs: Rootfs) -> Images:
    return KnownImages({rootfs.image.digest: rootfs, rootfs.image.name: rootfs})


@pytest.fixture
def named(rootfs: Rootfs) -> Rootfs:
    """The image under a digest that no daemon knows."""
    config = ImageConfig(env=(("A", "b=c"),), user="user", cwd="/tmp", entrypoint=("/bin/echo",), command=("hi",))  # noqa: S108 - inside
    return replace(rootfs, image=replace(rootfs.image, digest=f"sha256:{secrets.token_hex(32)}", config=config))


@pytest.fixture
async def made(docker_daemon: Daemon, tmp_path: Path) -> AsyncIterator[list[DockerRuntime]]:
    """Runtimes that a test made, whose instances are destroyed afterwards."""
    runtimes: list[DockerRuntime] = []
    yield runtimes
    for runtime in runtimes:
        for internal_id in await runtime.list():
            await (await runtime.adopt(internal_id)).destroy()
    assert not list(tmp_path.glob("state/loading-*"))


@pytest.fixture
def runtime(docker_daemon: Daemon, tmp_path: Path, made: list[DockerRuntime]) -> DockerRuntime:
    """A runtime without a store of its own: tests say which images there are."""
    made.append(_runtime(docker_daemon, tmp_path, KnownImages()))
    return made[0]


def _runtime(daemon: Daemon, tmp_path: Path, store: Images, share_files: str = "auto") -> DockerRuntime:
    return DockerRuntime(
        name="docker", folder=tmp_path / "state", node="images", host=daemon.host, store=store, share_files=share_files
    )


def _images(runtime: DockerRuntime) -> Images:
    assert runtime.images is not None
    return runtime.images


async def test_an_image_of_the_daemon_alone_needs_nothing_else(docker_daemon: Daemon, runtime: DockerRuntime) -> None:
    await _import(runtime, "theirs:1", {"usr/bin/python3": b"x", "etc/mark": b"theirs"})
    found = await _images(runtime).rootfs("theirs:1", user="u")
    assert found.image.digest.startswith("sha256:")
    assert found.trees == ()
    assert found.python == ("/usr/bin/python3",)
    assert (await _images(runtime).rootfs(found.image.digest, user="u")).image.digest == found.image.digest
    assert docker_daemon.ask("GET", "containers/json?all=true") == []
    await _import(runtime, "theirs:2", {"etc/mark": b"theirs"})
    assert (await _images(runtime).rootfs("theirs:2", user="u")).python == ()
    assert {"theirs:1", "theirs:2"} <= {record.name for record in await _images(runtime).list()}


async def _import(runtime: DockerRuntime, name: str, files: dict[str, bytes]) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    repository, _, tag = name.partition(":")
    await runtime._open().upload("POST", "images/create", out.getvalue(), fromSrc="-", repo=repository, tag=tag)


async def test_what_nobody_has_is_refused(runtime: DockerRuntime) -> None:
    with pytest.raises(Invalid, match="no image `nowhere:1`"):
        await _images(runtime).rootfs("nowhere:1", user="u")
    for strange in ("NOT A NAME", "UPPER:1", "../containers/x", "a?b", "a/../../version", "", "x" * 1000):
        with pytest.raises(Invalid, match=r"is no name of an image|does not understand|no image"):
            await _images(runtime).rootfs(strange, user="u")
    with pytest.raises(Unsupported, match="cannot boot the image `host`"):
        await _images(runtime).rootfs("host", user="u")


async def test_an_image_of_the_store_is_loaded_once_however_many_want_it(
    docker_daemon: Daemon, tmp_path: Path, named: Rootfs, made: list[DockerRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []

    async def counted(api: Api, rootfs: Rootfs, scratch: Path) -> None:
        loads.append(rootfs.image.digest)
        await load(api, rootfs, scratch)

    monkeypatch.setattr(images_module, "load", counted)
    runtime = _runtime(docker_daemon, tmp_path, _one(named))
    made.append(runtime)
    got = await asyncio.gather(*(_images(runtime).rootfs(named.image.digest, user=str(n)) for n in range(16)))
    again = await _images(_runtime(docker_daemon, tmp_path, _one(named))).rootfs(named.image.digest, user="u")
    assert loads == [named.image.digest]
    assert len({rootfs.image.digest for rootfs in (*got, again)}) == 1
    assert got[0].config == named.config
    inspected = docker_daemon.ask("GET", f"images/{tag_of(named.image.digest)}/json")
    assert got[0].image.digest == named.image.digest
    assert inspected["Config"]["Labels"] == {"sandboxd.image": named.image.digest}


async def test_layers_come_with_owners_links_removals_and_modes(
    docker_daemon: Daemon, tmp_path: Path, named: Rootfs, made: list[DockerRuntime]
) -> None:
    upper, tools = tmp_path / "upper", tmp_path / "tools"
    (upper / "usr" / "share").mkdir(parents=True)
    os.setxattr(upper / "usr" / "share", "trusted.overlay.opaque", b"y")
    (upper / "usr" / "lib").mkdir()
    os.mknod(upper / "usr" / "lib" / "linked", 0o20000, 0)
    tools.mkdir()
    (tools / "setuid").write_text("x")
    (tools / "setuid").chmod(0o4755)
    trees = (Tree("/", (upper, *named.trees[0].lowers)), Tree("/opt/deep/tools", (tools,), nosuid=True))
    runtime = _runtime(docker_daemon, tmp_path, _one(replace(named, trees=trees)))
    made.append(runtime)
    rootfs = await _images(runtime).rootfs(named.image.digest, user="u")
    instance = await runtime.create(InstanceSpec(new_internal_id(), "box", rootfs, owner="somebody"))
    told = await shell_in(
        instance,
        "stat -c '%n %u:%g %a %h' /usr/lib/theirs /bin/busybox-setuid /opt/deep /opt/deep/tools/setuid; ls /usr/lib",
        user="user",
    )
    assert told.output.splitlines() == [
        "/usr/lib/theirs 1000:1000 644 2",  # its other name was removed above, and is still there below
        "/bin/busybox-setuid 0:0 4755 1",
        "/opt/deep 0:0 755 3",
        "/opt/deep/tools/setuid 0:0 755 1",
        "theirs",
    ]
    labels = docker_daemon.ask("GET", f"containers/sandboxd-{instance.internal_id}/json")["Config"]["Labels"]
    assert labels["sandboxd.owner"] == "somebody"
    assert labels["sandboxd.node"] == "images"
    await instance.destroy()


async def test_a_loaded_image_is_still_known_to_be_the_stores(
    docker_daemon: Daemon, tmp_path: Path, named: Rootfs, made: list[DockerRuntime]
) -> None:
    """After a restart it is asked for by its digest, and what the store lends must still be held."""
    lent = tmp_path / "lent"
    lent.mkdir()
    lending = replace(named, python=("/lent/python",), binds=((lent, "/lent"),))
    store = _one(lending)
    made.append(_runtime(docker_daemon, tmp_path, store))
    first = await _images(made[0]).rootfs(named.image.digest, user="u")
    assert (first.python, first.binds) == (("/lent/python",), ((lent, "/lent"),))
    again = await _images(_runtime(docker_daemon, tmp_path, store)).rootfs(first.image.digest, user="u")
    assert (again.python, again.binds) == (first.python, first.binds)
    assert again.image.digest == first.image.digest
    without = await _images(_runtime(docker_daemon, tmp_path, KnownImages())).rootfs(first.image.digest, user="u")
    assert (without.python, without.binds) == ((), ())
    far = await _images(_runtime(docker_daemon, tmp_path, store, "no")).rootfs(first.image.digest, user="u")
    assert (far.python, far.binds) == ((), ())


async def test_who_wants_the_newest_is_given_the_stores(
    docker_daemon: Daemon, tmp_path: Path, named: Rootfs, made: list[DockerRuntime]
) -> None:
    made.append(_runtime(docker_daemon, tmp_path, KnownImages()))
    await _import(made[0], "moving:1", {"etc/mark": b"theirs"})
    store = _one(replace(named, image=replace(named.image, name="moving:1")))
    images = _images(_runtime(docker_daemon, tmp_path, store))
    theirs = await images.rootfs("moving:1", user="u")
    newest = await images.rootfs("moving:1", user="u", pull=PullPolicy.ALWAYS)
    assert newest.image.digest != theirs.image.digest
    assert newest.config == named.config


async def test_what_a_dead_server_was_carrying_is_swept_by_the_next(
    docker_daemon: Daemon, tmp_path: Path, made: list[DockerRuntime]
) -> None:
    state = tmp_path / "state"
    (state / "loading-x").mkdir(parents=True)
    (state / "loading-x" / "0.tar").write_text("half")
    (state / "marker-x").touch()
    made.append(_runtime(docker_daemon, tmp_path, KnownImages()))
    await _import(made[0], "sandboxd.local/saving:images-1", {"etc/mark": b"ours"})
    await _import(made[0], "sandboxd.local/saving:others-1", {"etc/mark": b"theirs"})
    assert (await made[0].probe()).available
    assert list(state.iterdir()) == []
    names = {name for image in docker_daemon.ask("GET", "images/json") for name in image["RepoTags"] or ()}
    assert {name for name in names if "saving" in name} == {"sandboxd.local/saving:others-1"}
    docker_daemon.ask("DELETE", "images/sandboxd.local/saving:others-1")


async def test_what_another_runtime_saved_is_put_on_top_of_its_image(
    docker_daemon: Daemon, tmp_path: Path, named: Rootfs, made: list[DockerRuntime]
) -> None:
    layer = tmp_path / "layer.tar"
    with tarfile.open(layer, "w") as tar:
        tar.addfile(tarfile.TarInfo("saved"))
    runtime = _runtime(docker_daemon, tmp_path, _one(named))
    made.append(runtime)
    images = _images(runtime)
    diff_id = f"sha256:{hashlib.sha256(layer.read_bytes()).hexdigest()}"
    with pytest.raises(Invalid, match="no image"):
        await images.derive(f"sha256:{64 * 'e'}", layer, diff_id=diff_id, user="u")
    instance = await runtime.create(_spec(await images.derive(named.image.digest, layer, diff_id=diff_id, user="u")))
    assert (await shell_in(instance, "ls /saved /usr/lib/theirs")).output.split() == ["/saved", "/usr/lib/theirs"]
    await instance.destroy()
    await images.release("u")
    assert "derived" not in _names(docker_daemon)


@pytest.mark.parametrize("share_files", ["auto", "no"])
async def test_what_was_saved_is_the_top_layer_of_an_image_for_as_long_as_anybody_uses_it(
    docker_daemon: Daemon, tmp_path: Path, named: Rootfs, made: list[DockerRuntime], share_files: str
) -> None:
    runtime = _runtime(docker_daemon, tmp_path, _one(named), share_files)
    made.append(runtime)
    images = _images(runtime)
    first = await runtime.create(_spec(await images.rootfs(named.image.digest, user="u")))
    await shell_in(first, "echo saved > /saved; chown 1000 /saved; rm -r /usr/lib; mkdir /usr/lib; rm /etc/group")
    await first.pause()
    folder = tmp_path / "parts"
    folder.mkdir()
    await first.snapshot(folder)
    await first.destroy()
    layer, base = folder / "rootfs.tar", (await images.rootfs(named.image.digest, user="u")).image.digest
    diff_id = f"sha256:{hashlib.sha256(layer.read_bytes()).hexdigest()}"
    with pytest.raises(Invalid, match="not what its digest says"):
        await images.derive(base, layer, diff_id=f"sha256:{64 * '0'}", user="u1")
    await images.release("u1")
    derived = [await images.derive(base, layer, diff_id=diff_id, user=user) for user in ("u1", "u2")]
    assert derived[0].image.digest == derived[1].image.digest != base
    assert derived[0].config == named.config
    instance = await runtime.create(_spec(derived[0]))
    told = await shell_in(instance, "cat /saved; stat -c %u /saved; ls /usr/lib /etc/group; cat /etc/hostname")
    assert told.output.splitlines() == ["saved", "1000", "/usr/lib:", "box"]
    await images.release("u2")
    later = _images(_runtime(docker_daemon, tmp_path, _one(named), share_files))
    assert (await later.rootfs(derived[0].image.digest, user="u1")).image.digest == derived[0].image.digest
    assert "derived" in _names(docker_daemon)
    await instance.destroy()
    await later.release("u1")
    assert "derived" not in _names(docker_daemon)


def _spec(rootfs: Rootfs) -> InstanceSpec:
    return InstanceSpec(new_internal_id(), "box", rootfs)


def _names(daemon: Daemon) -> str:
    return " ".join(name for image in daemon.ask("GET", "images/json") for name in image["RepoTags"] or ())
