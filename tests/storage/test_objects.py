"""The object store: folders appear whole or not at all."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sandboxd.core.errors import Conflict, Invalid, Unavailable
from sandboxd.storage.objects import FolderObjects

if TYPE_CHECKING:
    from pathlib import Path

STAGE = """
import asyncio, pathlib, sys
from sandboxd.storage.objects import FolderObjects

async def main():
    objects = FolderObjects(pathlib.Path(sys.argv[1]))
    async with objects.stage("whole") as folder:
        (folder / "part").write_text("all")
    async with objects.stage("half") as folder:
        (folder / "part").write_text("some")
        print("staged", flush=True)
        sys.stdin.read()

asyncio.run(main())
"""


def stage_and_die(folder: Path) -> None:
    command = [sys.executable, "-c", STAGE, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stager:
        assert stager.stdout is not None
        assert stager.stdout.readline() == b"staged\n"
        stager.kill()


@pytest.fixture
def objects(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "objects")


def staged(objects: FolderObjects) -> list[Path]:
    return list(objects.path("any").with_name(".staging").iterdir())


async def put(objects: FolderObjects, name: str) -> None:
    async with objects.stage(name) as folder:
        (folder / "part").write_text(name)


async def put_deep(objects: FolderObjects) -> None:
    async with objects.stage("deep") as folder:
        parent = os.open(folder, os.O_RDONLY)
        for _ in range(3000):
            os.mkdir("down", dir_fd=parent)
            child = os.open("down", os.O_RDONLY, dir_fd=parent)
            os.close(parent)
            parent = child
        os.close(parent)


async def test_the_names_are_those_of_whole_folders(objects: FolderObjects) -> None:
    assert await objects.names() == []
    await put(objects, "one")
    async with objects.stage("two"):
        assert await objects.names() == ["one"]
    assert sorted(await objects.names()) == ["one", "two"]


async def test_a_staged_folder_appears_whole_when_the_block_ends(objects: FolderObjects) -> None:
    async with objects.stage("one") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "part").write_bytes(b"\0" * 4096)
        (folder / "link").symlink_to("/nowhere")
        os.mkfifo(folder / "pipe")
        assert not objects.path("one").exists()
    assert sorted(path.name for path in objects.path("one").iterdir()) == ["deep", "link", "pipe"]
    assert (objects.path("one") / "deep" / "part").read_bytes() == b"\0" * 4096
    assert staged(objects) == []


async def test_an_error_leaves_nothing(objects: FolderObjects) -> None:
    async def fail() -> None:
        async with objects.stage("one") as folder:
            (folder / "part").write_text("x")
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert not objects.path("one").exists()
    assert staged(objects) == []
    await put(objects, "one")


async def test_a_cancellation_at_any_moment_leaves_all_or_nothing(objects: FolderObjects) -> None:
    for moment in range(12):
        name = f"n{moment}"
        putting = asyncio.ensure_future(put(objects, name))
        for _ in range(moment):
            await asyncio.sleep(0)
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)
        assert objects.path(name).exists() is not putting.cancelled()
    await objects.sweep()
    assert staged(objects) == []


async def test_a_taken_name_is_refused(objects: FolderObjects) -> None:
    await put(objects, "one")
    with pytest.raises(Conflict, match="`one`"):
        await put(objects, "one")
    assert (objects.path("one") / "part").read_text() == "one"


async def test_a_name_that_is_being_staged_is_taken(objects: FolderObjects) -> None:
    async with objects.stage("one"):
        with pytest.raises(Conflict):
            await put(objects, "one")


async def test_a_name_taken_behind_our_back_is_refused_and_not_overwritten(objects: FolderObjects) -> None:
    with pytest.raises(Conflict):
        async with objects.stage("one"):
            (objects.path("one") / "theirs").mkdir(parents=True)
    assert (objects.path("one") / "theirs").is_dir()
    assert staged(objects) == []


@pytest.mark.parametrize("name", ["", ".", "..", ".staging", "a/b", "/etc", "a\0", "a\n", "ä", "x" * 129, "../up"])
async def test_a_hostile_name_is_refused(objects: FolderObjects, name: str) -> None:
    with pytest.raises(Invalid):
        objects.path(name)
    with pytest.raises(Invalid):
        await put(objects, name)
    with pytest.raises(Invalid):
        await objects.delete(name)


async def test_deleting_twice_does_no_harm(objects: FolderObjects) -> None:
    await objects.delete("never")
    await put(objects, "one")
    await objects.delete("one")
    await objects.delete("one")
    assert not objects.path("one").exists()
    assert staged(objects) == []


async def test_deleting_follows_no_link(objects: FolderObjects, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("kept")
    async with objects.stage("one") as folder:
        (folder / "link").symlink_to(tmp_path / "outside")
    await objects.delete("one")
    assert (tmp_path / "outside" / "kept").read_text() == "kept"


async def test_a_tree_deeper_than_any_path_is_removed(objects: FolderObjects) -> None:
    with pytest.raises(Unavailable, match="too long"):
        await put_deep(objects)
    assert staged(objects) == []


async def test_what_a_death_left_half_made_is_swept_and_the_whole_survives(tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path)
    stage_and_die(tmp_path)
    assert len(staged(objects)) == 1
    assert await objects.sweep() == 1
    assert await objects.sweep() == 0
    assert staged(objects) == []
    assert not objects.path("half").exists()
    assert (objects.path("whole") / "part").read_text() == "all"


async def test_sweeping_spares_what_is_being_staged(objects: FolderObjects) -> None:
    assert await objects.sweep() == 0
    async with objects.stage("one") as folder:
        assert await objects.sweep() == 0
        (folder / "part").write_text("x")
    assert objects.path("one").exists()


async def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match="the object store cannot use"):
        await put(FolderObjects(tmp_path / "file"), "one")
