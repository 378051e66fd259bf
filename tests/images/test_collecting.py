"""Leases and the collection of what was not used for longest."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.images.layout import Layout, tar

from sandboxd.core.errors import Invalid
from sandboxd.images.leases import Holder
from sandboxd.images.registries import Registries
from sandboxd.images.store import ImageStore

if TYPE_CHECKING:
    from tests.images.registry import Registry

MakeTar = Callable[..., Path]
SIZE = 1000


@pytest.fixture
def three(store: ImageStore, make_tar: MakeTar) -> ImageStore:
    """Images `a`, `b` and `c` of one size, brought in this order."""
    for number, name in enumerate("abc"):
        digest = store.add(name, make_tar((name, {}, bytes(SIZE)))).digest
        os.utime(store._shelf.folder / "used" / digest.removeprefix("sha256:"), (number, number))
    return store


def names(store: ImageStore) -> list[str]:
    return [record.name.removesuffix(":latest") for record in store.records()]


def test_nothing_goes_below_the_size(three: ImageStore) -> None:
    collected = three.gc(3 * SIZE)
    assert (collected.images, collected.bytes_before, collected.bytes_after) == ((), 3 * SIZE, 3 * SIZE)
    assert names(three) == ["a", "b", "c"]


async def test_what_was_not_used_for_longest_goes_first(three: ImageStore, images: Path) -> None:
    await three.rootfs("a", user="u")
    await three.release("u")
    collected = three.gc(SIZE)
    assert [record.name for record in collected.images] == ["b:latest", "c:latest"]
    assert collected.bytes_after == SIZE
    assert names(three) == ["a"]
    assert len([*(images / "layers").iterdir()]) == len([*(images / "used").iterdir()]) == 1


async def test_the_time_of_letting_go_counts_as_use(three: ImageStore, images: Path) -> None:
    rootfs = await three.rootfs("a", user="u")
    used = images / "used" / rootfs.image.digest.removeprefix("sha256:")
    os.utime(used, (0, 0))
    await three.release("u")
    assert used.stat().st_mtime > 2
    assert three.inspect("a").last_used_at == used.stat().st_mtime


async def test_what_any_server_uses_stays(three: ImageStore, images: Path, tmp_path: Path) -> None:
    (tmp_path / "node").write_text("n1\n")
    with closing(ImageStore(images, holder=Holder(tmp_path / "node", "n1"))) as other:
        await other.rootfs("a", user="elsewhere")
    assert three.inspect("a").users == ("elsewhere",)
    three.gc(0)
    assert names(three) == ["a"]


@pytest.mark.parametrize("now", [None, "another"])
async def test_a_lease_ends_with_its_state_folder(
    now: str | None, three: ImageStore, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "node").write_text("n1\n")
    with closing(ImageStore(images, holder=Holder(tmp_path / "node", "n1"))) as other:
        await other.rootfs("a", user="gone")
    if now is None:
        (tmp_path / "node").unlink()
    else:
        (tmp_path / "node").write_text(now)
    three.gc(0)
    assert not names(three)
    assert not [*(images / "leases").iterdir()]


def test_a_dry_run_says_the_same_and_removes_nothing(three: ImageStore) -> None:
    planned = three.gc(SIZE, dry_run=True)
    assert names(three) == ["a", "b", "c"]
    assert three.gc(SIZE) == planned


def test_the_image_that_lends_its_python_stays(images: Path, make_tar: MakeTar) -> None:
    with closing(ImageStore(images, interpreter="lender")) as store:
        store.add("lender", make_tar(("f", {}, b"1")))
        store.add("other", make_tar(("g", {}, b"1")))
        store.gc(0)
        assert names(store) == ["lender"]


def test_a_shared_layer_frees_nothing_until_its_last_image_goes(
    store: ImageStore, layout: Layout, make_tar: MakeTar
) -> None:
    store.add("one", layout.image(tar(("f", {}, bytes(SIZE)))))
    store.tag("one", "too")
    collected = store.gc(0)
    assert [record.name for record in collected.images] == ["one:latest", "too:latest"]
    assert (collected.bytes_before, collected.bytes_after) == (SIZE, 0)


def test_a_server_makes_room_after_a_pull_with_what_registries_can_give_again(
    images: Path, registry: Registry, layout: Layout, make_tar: MakeTar, tmp_path: Path
) -> None:
    with closing(ImageStore(images, registries=Registries(max_bytes=SIZE))) as store:
        store.add("imported", make_tar(("g", {}, bytes(SIZE))))
        reference = registry.push(layout.image(tar(("f", {}, bytes(SIZE)))), "room:1")
        older = store.pull(reference)
        assert older.name in names(store)
        second = registry.push(Layout(tmp_path / "second").image(tar(("h", {}, bytes(SIZE)))), "room:2")
        newer = store.pull(second)
        assert names(store) == [newer.name, "imported"]


def test_an_image_is_inspected_under_all_its_names(three: ImageStore) -> None:
    three.tag("a", "org/same:1")
    found = three.inspect("a")
    assert found.names == ("a:latest", "org/same:1")
    assert found.size_bytes == SIZE
    assert three.inspect(found.digest) == found
    with pytest.raises(Invalid, match="there is no image"):
        three.inspect("none")


def test_a_manifest_of_before_has_no_origins_and_is_read(three: ImageStore, images: Path) -> None:
    path = images / "manifests" / f"{three.inspect('a').digest.removeprefix('sha256:')}.json"
    value = json.loads(path.read_bytes())
    del value["origins"], value["blobs"]
    path.write_text(json.dumps(value))
    assert three.inspect("a").origins == ()
