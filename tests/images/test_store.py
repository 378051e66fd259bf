"""Names, leases and what is removed when, also between processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sandboxd.core.errors import Bug, Invalid, NotFound
from sandboxd.images.store import ImageStore
from sandboxd.ports.images import Images

MakeTar = Callable[..., Path]


def layers(images: Path) -> set[str]:
    return {f"sha256:{path.name}" for path in (images / "layers").iterdir()}


async def test_an_image_is_found_under_every_form_of_its_name(
    store: ImageStore, make_tar: MakeTar, images: Path
) -> None:
    record = store.add("alpine", make_tar(("f", {}, b"1")))
    assert isinstance(store, Images)
    for reference in ("alpine", "alpine:latest", "docker.io/library/alpine", record.digest, f"alpine@{record.digest}"):
        assert await store.has(reference)
        rootfs = await store.rootfs(reference, user="u")
        assert rootfs.image.digest == record.digest
        (tree,) = rootfs.trees
        assert (tree.target, tree.lowers) == ("/", (images / "layers" / record.layers[0].removeprefix("sha256:"),))
    assert await store.list() == [record]


@pytest.mark.parametrize("reference", ["missing", "", "../names", "alpine:other", "sha256:" + "0" * 64, "host/x"])
async def test_what_is_not_there_is_refused_with_a_way_out(reference: str, store: ImageStore) -> None:
    assert not await store.has(reference)
    with pytest.raises(Invalid, match=r"import|look like"):
        await store.rootfs(reference, user="u")
    assert not [*store._shelf.leases.iterdir()]


async def test_a_name_moves_with_a_new_import_and_the_old_image_goes(
    store: ImageStore, make_tar: MakeTar, images: Path
) -> None:
    store.add("app", make_tar(("f", {}, b"1")))
    first = await store.rootfs("app", user="u")
    await store.release("u")
    second = store.add("app", make_tar(("f", {}, b"2")))
    assert (await store.rootfs("app", user="u")).image.digest == second.digest != first.image.digest
    assert layers(images) == {*second.layers}


async def test_a_used_image_outlives_its_name_until_released(
    store: ImageStore, make_tar: MakeTar, images: Path
) -> None:
    record = store.add("app", make_tar(("f", {}, b"1")))
    await store.rootfs("app", user="sandbox-1")
    with closing(ImageStore(images)) as another:
        another.remove("app")
        assert layers(images) == {*record.layers}
        assert (await another.rootfs(record.digest, user="sandbox-2")).image.digest == record.digest
    await store.release("sandbox-1")
    store.collect()
    assert layers(images) == {*record.layers}
    await store.release("sandbox-2")
    await store.release("sandbox-2")
    store.collect()
    assert not layers(images)
    with pytest.raises(Invalid):
        await store.rootfs("app", user="sandbox-3")


def test_a_shared_layer_stays_while_one_image_needs_it(store: ImageStore, make_tar: MakeTar, images: Path) -> None:
    record = store.add("one", make_tar(("f", {}, b"1")))
    assert store.tag("one", "org/two:v2").digest == record.digest
    store.remove("one")
    assert layers(images) == {*record.layers}
    store.remove("org/two:v2")
    assert not layers(images)
    with pytest.raises(NotFound, match="no image named `one:latest`"):
        store.remove("one")


def test_the_lease_of_nobody_knows_whom_keeps_everything(store: ImageStore, make_tar: MakeTar, images: Path) -> None:
    record = store.add("app", make_tar(("f", {}, b"1")))
    (images / "leases" / "torn").write_bytes(b'{"dig')
    store.remove("app")
    assert layers(images) == {*record.layers}


@pytest.mark.parametrize("user", ["", "../x", "a/b", ".", ".hidden"])
async def test_a_user_that_is_no_file_name_is_our_mistake(user: str, store: ImageStore) -> None:
    with pytest.raises(Bug):
        await store.rootfs("host", user=user)


def test_the_folder_is_closed_to_others(store: ImageStore, images: Path) -> None:
    assert images.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["host", "a@sha256:" + "0" * 64, "UPPER"])
def test_names_that_mean_something_else_are_not_imported(name: str, store: ImageStore, make_tar: MakeTar) -> None:
    with pytest.raises(Invalid):
        store.add(name, make_tar(("f", {}, b"1")))


IMPORT = """
import sys
from pathlib import Path
from sandboxd.images.store import ImageStore
store = ImageStore(Path(sys.argv[1]))
for turn in range(6):
    for name, source in zip(("one", "two"), sys.argv[2:]):
        store.add(name, Path(source))
    if turn % 2:
        try:
            store.remove("two")
        except Exception as error:
            assert type(error).__name__ == "NotFound", error
"""


def test_processes_that_import_and_remove_at_once_agree(store: ImageStore, make_tar: MakeTar, images: Path) -> None:
    sources = [make_tar(*((f"{n}/{i}", {}, b"x" * i) for i in range(100))) for n in "ab"]
    command = [sys.executable, "-c", IMPORT, str(images), *map(str, sources)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=50)
        assert process.returncode == 0, errors.decode()
    store.add("two", sources[1])
    assert [record.name for record in store.records()] == ["one:latest", "two:latest"]
    assert len(layers(images)) == 2
    assert all(len([*path.rglob("*")]) == 101 for path in (images / "layers").iterdir())


STUCK = """
import sys, time
from pathlib import Path
from sandboxd.images.shelf import Shelf
with Shelf(Path(sys.argv[1])).staging() as folder:
    (folder / "half").write_text("x")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_import_left_is_swept_and_what_a_live_one_makes_is_not(store: ImageStore, images: Path) -> None:
    command = [sys.executable, "-c", STUCK, str(images)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        store.collect()
        assert len([*(images / "staging").iterdir()]) == 1
        process.send_signal(signal.SIGKILL)
    store.collect()
    assert not [*(images / "staging").iterdir()]


async def test_a_ready_image_is_held_while_another_process_waits_its_turn(
    store: ImageStore, make_tar: MakeTar, images: Path
) -> None:
    store.add("app", make_tar(("f", {}, b"1")))
    await store.rootfs("app", user="u")
    with closing(ImageStore(images)) as another, another._shelf.locked():
        assert store._hold_now("app", "v") is None
    assert store._hold_now("app", "v")


async def test_a_rootfs_takes_less_than_a_millisecond_once_known(store: ImageStore, make_tar: MakeTar) -> None:
    store.add("app", make_tar(("f", {}, b"1")))
    await store.rootfs("app", user="u")
    best = 1.0
    for number in range(50):
        start = time.perf_counter()
        await store.rootfs("app", user=f"u{number}")
        best = min(best, time.perf_counter() - start)
    assert best < 0.001


def test_another_user_cannot_open_the_folder(store: ImageStore, images: Path) -> None:
    program = (
        "import os,sys\nfrom pathlib import Path\nfrom sandboxd.core.errors import Denied\n"
        "from sandboxd.images.store import ImageStore\nos.setuid(65534)\n"
        "try:\n ImageStore(Path(sys.argv[1]))\nexcept Denied as e:\n print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, images], capture_output=True, check=True, text=True)
    assert "may not be used by this user" in done.stdout
    assert os.geteuid() == 0


async def test_a_cancelled_wait_holds_nothing(store: ImageStore, make_tar: MakeTar, images: Path) -> None:
    store.add("app", make_tar(("f", {}, b"1")))
    with closing(ImageStore(images)) as another, another._shelf.locked(), pytest.raises(TimeoutError):
        await asyncio.wait_for(store.rootfs("app", user="u"), 0.05)
    assert (await store.rootfs("app", user="v")).image.name == "app:latest"
    async with asyncio.timeout(5):
        while [path.name for path in (images / "leases").iterdir()] != ["v"]:
            await asyncio.sleep(0.001)
