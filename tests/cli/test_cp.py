"""`sandboxd cp`, and the trees it copies."""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

import pytest

from sandboxd.cli.trees import Entry, Here, copy
from sandboxd.core.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Shell
    from tests.surfaces.live import Caller

ODD = os.fsdecode(b"new\nline \xff%")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with everything that can be copied."""
    root = tmp_path / "tree"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "program").write_bytes(os.urandom(300_000))
    (root / "program").chmod(0o750)
    (root / "sub" / ODD).write_text("odd")
    (root / "sub" / "nothing").touch(0o600)
    (root / "link").symlink_to("../no//where/")
    (root / "sub" / "odd link").symlink_to(ODD)
    (root / "to-folder").symlink_to("sub")
    (root / "sub" / "closed").mkdir()
    (root / "sub" / "closed" / "file").write_text("1")
    for closed in ("empty", "closed"):
        (root / "sub" / closed).chmod(0o555)
    return root


def facts(root: Path) -> dict[str, tuple[object, ...]]:
    """What makes two trees equal."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        if path.is_symlink():
            content: object = os.readlink(path)  # noqa: PTH115 - as it is
        else:
            content = path.read_bytes() if path.is_file() else None
        mode = None if path.is_symlink() else stat.S_IMODE(status.st_mode)
        found[str(path.relative_to(root))] = (stat.S_IFMT(status.st_mode), mode, content)
    return found


def test_a_tree_goes_in_and_comes_out_as_it_was(shell: Shell, any_sandbox: str, tree: Path, tmp_path: Path) -> None:
    shell.run("cp", str(tree), f"{any_sandbox}:/root/copy")
    shell.run("cp", f"{any_sandbox}:/root/copy", str(tmp_path / "back"))
    assert facts(tmp_path / "back") == facts(tree)


def test_into_a_folder_under_its_own_name_or_only_what_is_in_it(
    shell: Shell, sandbox: str, tree: Path, tmp_path: Path
) -> None:
    shell.run("cp", str(tree), f"{sandbox}:/root")
    shell.run("cp", f"{tree}/.", f"{sandbox}:/root/")
    into = tmp_path / "into"
    into.mkdir()
    shell.run("cp", f"{sandbox}:root/tree", str(into))
    assert facts(into / "tree") == facts(tree)
    shell.run("cp", f"{sandbox}:root/tree/.", str(into))
    assert set(os.listdir(into)) == {"tree", *os.listdir(tree)}  # noqa: PTH208 - names only
    assert shell.run("exec", sandbox, "ls", "/root/sub/nothing").stdout == b"/root/sub/nothing\n"


def test_a_file_is_renamed_put_into_a_folder_and_replaced(shell: Shell, sandbox: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.write_text("1")
    shell.run("cp", str(here), f"{sandbox}:/root/there")
    shell.run("cp", str(here), f"{sandbox}:/root")
    here.write_text("22")
    shell.run("cp", str(here), f"{sandbox}:/root/there")
    assert shell.run("exec", sandbox, "sh", "-c", "cat /root/there /root/here").stdout == b"221"
    shell.run("cp", f"{sandbox}:/root/there", str(here))
    shell.run("cp", f"{sandbox}:/root/there", str(tmp_path))
    assert (here.read_text(), (tmp_path / "there").read_text()) == ("22", "22")
    assert set(os.listdir(tmp_path)) == {"here", "there"}  # noqa: PTH208 - names only


def test_a_symlink_is_copied_or_followed(shell: Shell, server: Caller, sandbox: str, tmp_path: Path) -> None:
    server.execute(sandbox, "sh", "-c", "echo text > /root/file; ln -s file /root/link")
    shell.run("cp", f"{sandbox}:/root/link", str(tmp_path / "link"))
    shell.run("cp", "-L", f"{sandbox}:/root/link", str(tmp_path / "file"))
    assert os.readlink(tmp_path / "link") == "file"  # noqa: PTH115 - as it is
    assert (tmp_path / "file").read_text() == "text\n"


def test_set_id_bits_stay_in_the_sandbox(shell: Shell, server: Caller, sandbox: str, tmp_path: Path) -> None:
    server.execute(sandbox, "sh", "-c", "touch /root/evil; chmod 6755 /root/evil")
    shell.run("cp", f"{sandbox}:/root/evil", str(tmp_path))
    assert stat.S_IMODE((tmp_path / "evil").stat().st_mode) == 0o755


def test_what_is_no_file_is_left_out_and_told(shell: Shell, server: Caller, sandbox: str, tmp_path: Path) -> None:
    server.execute(sandbox, "sh", "-c", "mkdir /root/d; mkfifo /root/d/pipe; echo 1 > /root/d/file")
    done = shell.run("cp", f"{sandbox}:/root/d", str(tmp_path), code=1)
    assert done.stderr == b"left out: `/root/d/pipe` is neither file, directory nor symlink\n"
    assert (tmp_path / "d" / "file").read_text() == "1\n"


@pytest.mark.parametrize(
    ("source", "target", "code", "sentence"),
    [
        ("{here}/none", "{id}:/root", 1, "error: there is nothing at `{here}/none`\n"),
        ("{id}:/none", "{here}", 1, "error: there is nothing at `/none`\n"),
        ("{here}/file", "{id}:/none/there", 1, "error: cannot write `/none/there`"),
        ("{here}/file", "{id}:/none/", 1, "error: the directory `/none/` is not there\n"),
        ("{id}:/etc/passwd", "{here}/none/there", 1, "error: cannot write `{here}/none/there` here: No such file"),
        ("{here}", "{id}:/etc/passwd", 1, "error: a directory cannot take the place of `/etc/passwd`\n"),
        ("{here}/file", "{here}/other", 2, "error: one of SRC and DST must be in a sandbox, and only one\n"),
        ("{id}:/a", "{id}:/b", 2, "error: one of SRC and DST must be in a sandbox, and only one\n"),
        ("nobody:/a", "{here}", 1, "error: there is no sandbox `nobody`\n"),
    ],
)
def test_what_cannot_be_copied_is_a_sentence(
    shell: Shell, sandbox: str, tmp_path: Path, source: str, target: str, code: int, sentence: str
) -> None:
    (tmp_path / "file").write_text("1")
    names = {"here": str(tmp_path), "id": sandbox}
    done = shell.run("cp", source.format(**names), target.format(**names), code=code)
    assert done.stderr.decode().startswith(sentence.format(**names))


def test_nothing_half_written_stays_here(shell: Shell, server: Caller, sandbox: str, tmp_path: Path) -> None:
    server.execute(sandbox, "sh", "-c", "truncate -s 3G /root/large")
    with shell.start("cp", f"{sandbox}:/root/large", str(tmp_path / "large")) as running:
        deadline = time.monotonic() + 10
        while not os.listdir(tmp_path):  # noqa: PTH208 - names only
            assert time.monotonic() < deadline
            time.sleep(0.01)
        server.ask("DELETE", f"/sandboxes/{sandbox}")
        assert running.wait(30) == 1
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - names only


class Hostile:
    """A sandbox that tells two things of one name: a symlink out of the way, and a directory."""

    def __init__(self, outside: Path) -> None:
        self._outside = outside

    def look(self, path: str, *, follow: bool) -> Entry | None:  # noqa: ARG002 - the signature of its parent
        return Entry("d", "directory", 0o755)

    def list(self, path: str) -> Iterator[Entry]:
        if path == "/d":
            yield Entry("x", "symlink", 0o777, str(self._outside))
            yield Entry("x", "directory", 0o755)
        else:
            yield Entry("planted", "file", 0o644)

    def read(self, path: str) -> Iterator[bytes]:  # noqa: ARG002 - the signature of its parent
        yield b"bad"


def test_nothing_is_written_through_a_symlink_that_came_along(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for _ in range(2):
        with pytest.raises(Conflict):
            copy(Hostile(outside), "/d", Here(), str(tmp_path / "copy"), follow=False)
        assert list(outside.iterdir()) == []
