"""Folders are removed whole, however they are filled, and nothing besides."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sandboxd.host.removal import remove_folders

if TYPE_CHECKING:
    from pathlib import Path


async def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.mkdir()
    (victim / "file").write_text("")
    folder.mkdir()
    (folder / "link").symlink_to(victim)
    await remove_folders([folder])
    assert (victim / "file").exists()
    assert not folder.exists()


async def test_what_is_not_there_is_no_matter(tmp_path: Path) -> None:
    await remove_folders([tmp_path / "nowhere"])
    await remove_folders([])


async def test_many_files_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(1000):
        (folder / str(number)).write_text("")
    await remove_folders([folder, tmp_path / "nowhere"])
    assert not folder.exists()


async def test_deep_folders_are_removed(tmp_path: Path) -> None:
    start = os.getcwd()  # noqa: PTH109 - in no loop
    (tmp_path / "folder").mkdir()
    os.chdir(tmp_path / "folder")
    try:
        for _ in range(3000):
            os.mkdir("deep")  # noqa: PTH102 - a path would be too long
            os.chdir("deep")
    finally:
        os.chdir(start)
    await remove_folders([tmp_path / "folder"])
    assert not (tmp_path / "folder").exists()
