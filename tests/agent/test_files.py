"""Files, directories and trees, and paths that try to leave their root."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from sandboxd.guest import frames as wire

if TYPE_CHECKING:
    from pathlib import Path

    from tests.agent.conftest import Driver

    from sandboxd.guest.frames import GuestFrame, HostFrame


def _errno(answer: object) -> int:
    assert isinstance(answer, wire.Failed), answer
    assert answer.message
    return answer.errno


def _bytes(path: Path | str) -> bytes:
    return os.fsencode(path)


def _make(agent: Driver, path: str, *, root: str = "/", mode: int = 0o755, parents: int = 0) -> GuestFrame:
    return agent.ask(wire.MakeDirectory(mode, parents, _bytes(root), _bytes(path)))


def _remove(agent: Driver, path: str, *, root: str = "/", recursive: int = 0) -> GuestFrame:
    return agent.ask(wire.Remove(recursive, _bytes(root), _bytes(path)))


def test_a_file_is_written_and_read(agent: Driver, tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    for size in (0, 1, 4096, 65536, 300_000):
        data = os.urandom(size)
        assert agent.write_file(path, data) == wire.Done()
        assert (tmp_path / "file").read_bytes() == data
        assert agent.read_file(path) == data
    assert {entry.name for entry in tmp_path.iterdir()} <= {"file", "0"}


def test_a_part_of_a_file_is_read(agent: Driver, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert agent.read_file(str(path), offset=3, length=4) == b"3456"
    assert agent.read_file(str(path), offset=8, length=100) == b"89"
    assert agent.read_file(str(path), offset=100) == b""
    assert agent.read_file(str(path), length=0) == b""
    assert _errno(agent.read_file(str(path), offset=2**63)) == errno.EINVAL


def test_a_large_file_goes_both_ways(agent: Driver, tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = os.urandom(1 << 20) * 64
    path.write_bytes(data)
    assert agent.read_file(str(path)) == data
    assert agent.write_file(str(tmp_path / "copy"), data[: 1 << 24]) == wire.Done()
    assert (tmp_path / "copy").read_bytes() == data[: 1 << 24]


def test_files_without_a_size_are_read_to_their_end(agent: Driver) -> None:
    status = agent.read_file("/proc/self/status")
    assert isinstance(status, bytes)
    assert status.startswith(b"Name:\tagent")


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/no/such", errno.ENOENT),
        ("/etc", errno.EISDIR),
        ("/etc/passwd/x", errno.ENOTDIR),
        ("/dev/zero", errno.EINVAL),
        ("", errno.ENOENT),
        ("/" + "x" * 300, errno.ENAMETOOLONG),
        ("/x" * 3000, errno.ENAMETOOLONG),
    ],
)
def test_what_cannot_be_read_is_refused(agent: Driver, path: str, error: int) -> None:
    assert _errno(agent.read_file(path)) == error


def test_a_fifo_or_socket_does_not_hang_the_agent(agent: Driver, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(tmp_path)
        listener.bind("socket")
        os.chdir("/")
        for name in ("fifo", "socket"):
            assert _errno(agent.read_file(str(tmp_path / name))) == errno.EINVAL
            assert _errno(agent.write_file(str(tmp_path / name), b"x")) == errno.EINVAL


def test_a_write_replaces_the_file_as_a_whole(agent: Driver, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        record_id = agent.new_id()
        agent.send(wire.Write(wire.MODE_KEEP, 0, b"/", _bytes(path)), record_id)
        agent.wait(wire.Accepted, record_id)
        agent.send(wire.Input(0, b"new"), record_id)
        agent.quiet()
        assert path.read_bytes() == b"old"
        agent.send(wire.Input(3, b"er"), record_id, flags=wire.FLAG_LAST)
        agent.wait(wire.Done, record_id)
        assert path.read_bytes() == b"newer"
        assert reader.read() == b"old"


@pytest.mark.parametrize("does_host_live", [True, False])
def test_a_write_that_is_given_up_leaves_no_trace(agent: Driver, tmp_path: Path, *, does_host_live: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_bytes(b"old")
    record_id = agent.new_id()
    agent.send(wire.Write(wire.MODE_KEEP, 0, b"/", _bytes(folder / "file")), record_id)
    agent.wait(wire.Accepted, record_id)
    agent.send(wire.Input(0, b"new"), record_id)
    agent.until(lambda: len(list(folder.iterdir())) == 2)
    if does_host_live:
        agent.send(wire.Forget(), record_id)
    else:
        agent.meet()
    agent.until(lambda: list(folder.iterdir()) == [folder / "file"])
    assert (folder / "file").read_bytes() == b"old"


def test_a_write_keeps_or_sets_the_mode_and_keeps_the_owner(agent: Driver, tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert agent.write_file(str(path), b"x") == wire.Done()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.chmod(0o4711)
    os.chown(path, 12, 34)
    path.chmod(0o4711)
    assert agent.write_file(str(path), b"y") == wire.Done()
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_uid, path.stat().st_gid) == (0o4711, 12, 34)
    assert agent.write_file(str(path), b"z", mode=0o600) == wire.Done()
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_uid, path.stat().st_gid) == (0o600, 12, 34)


def test_a_write_makes_directories_when_asked(agent: Driver, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    assert _errno(agent.write_file(str(path), b"x")) == errno.ENOENT
    assert agent.write_file(str(path), b"x", parents=1) == wire.Done()
    assert path.read_bytes() == b"x"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755


def test_a_write_through_a_link_replaces_what_it_points_to(agent: Driver, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "dangling").symlink_to("fresh")
    assert agent.write_file(str(tmp_path / "link"), b"new") == wire.Done()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"
    assert agent.write_file(str(tmp_path / "dangling"), b"x") == wire.Done()
    assert (tmp_path / "fresh").read_bytes() == b"x"


def test_what_cannot_be_written_is_refused(agent: Driver, tmp_path: Path) -> None:
    assert _errno(agent.write_file(str(tmp_path), b"x")) == errno.EISDIR
    assert _errno(agent.write_file("/", b"x")) == errno.EISDIR
    assert _errno(agent.write_file("/dev/null", b"x")) == errno.EINVAL
    assert _errno(agent.write_file(str(tmp_path / "x"), b"x", mode=0o10000)) == errno.EINVAL


def test_nothing_leads_out_of_the_root(agent: Driver, tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "secret"
    (root / "etc").mkdir(parents=True)
    (root / "deep" / "er").mkdir(parents=True)
    (root / "secret").write_bytes(b"inside")
    outside.write_bytes(b"outside")
    links = {
        "up": "../secret",
        "far": "../../../../../../secret",
        "absolute": "/secret",
        "dots": "deep/er/../../../secret",
        "chain": "up",
        "slashes": "////secret",
        "etc/up": "../../../secret",
        "deep/er/up": "../../../../../secret",
        "root": "/",
        "rootlink": "root/root/../secret",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    paths = [
        *(f"/{name}" for name in links if name != "root"),
        "../secret",
        "/../secret",
        "deep/../../secret",
        "root/secret",
        "root/../../secret",
        "deep/er/../../../secret",
        "./deep/./../secret",
        "root/root/chain",
    ]
    for path in paths:
        assert agent.read_file(path, root=str(root)) == b"inside", path
    for path in paths[:4]:
        assert agent.write_file(path, b"inside", root=str(root)) == wire.Done()
    assert outside.read_bytes() == b"outside"
    assert _make(agent, "../new", root=str(root)) == wire.Done()
    assert (root / "new").is_dir()
    assert _remove(agent, "..", root=str(root), recursive=1) != wire.Done()
    assert _remove(agent, "deep/../..", root=str(root), recursive=1) != wire.Done()
    assert _errno(agent.ask(wire.Move(_bytes(root), b"../secret", b"/no/such"))) == errno.ENOENT
    assert agent.ask(wire.Move(_bytes(root), b"../secret", b"../../moved")) == wire.Done()
    assert (root / "moved").read_bytes() == b"inside"
    assert agent.read_file("/proc/self/root/etc/passwd", root=str(root)) != agent.read_file("/etc/passwd")


def test_magic_links_are_only_texts(agent: Driver) -> None:
    """A link of /proc that the kernel would jump through is taken by what it says."""
    answer = agent.read_file("self/root/etc/passwd", root="/proc")
    assert _errno(answer) == errno.ENOENT


def test_links_in_circles_are_refused(agent: Driver, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert _errno(agent.read_file(str(tmp_path / "a"))) == errno.ELOOP
    assert _errno(agent.read_file(str(tmp_path / "a" / "x"))) == errno.ELOOP


def test_forty_links_are_followed(agent: Driver, tmp_path: Path) -> None:
    (tmp_path / "l0").write_bytes(b"x")
    for number in range(1, 42):
        (tmp_path / f"l{number}").symlink_to(f"l{number - 1}")
    assert agent.read_file("l40", root=str(tmp_path)) == b"x"
    assert _errno(agent.read_file("l41", root=str(tmp_path))) == errno.ELOOP


@pytest.mark.parametrize(
    "name", ["with space", "ümlaut", "new\nline", "-rf", "back\\slash", "*", "\udcff\udcfe", "x" * 255]
)
def test_a_name_is_bytes(agent: Driver, tmp_path: Path, name: str) -> None:
    assert agent.write_file(name, b"odd", root=str(tmp_path)) == wire.Done()
    assert (tmp_path / name).read_bytes() == b"odd"
    assert agent.read_file(name, root=str(tmp_path)) == b"odd"
    listed = agent.list_directory("/", root=str(tmp_path))
    assert isinstance(listed, dict)
    assert os.fsencode(name) in listed
    assert _remove(agent, name, root=str(tmp_path)) == wire.Done()


def test_status_tells_what_there_is(agent: Driver, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "file").chmod(0o640)
    os.chown(tmp_path / "file", 3, 4)
    os.utime(tmp_path / "file", ns=(1, 1_234_567_890_123_456_789))
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")

    def status(path: str, follow: int = 1) -> GuestFrame:
        return agent.ask(wire.Stat(follow, b"/", _bytes(path)))

    expected = wire.Status(wire.FILE_KIND_FILE, 0o640, 5, 1_234_567_890_123_456_789, 3, 4, b"file", b"")
    assert status(f"{tmp_path}/file") == expected
    assert status(f"{tmp_path}/link") == expected
    link = status(f"{tmp_path}/link", follow=0)
    assert isinstance(link, wire.Status)
    assert (link.kind, link.name, link.target) == (wire.FILE_KIND_SYMLINK, b"link", b"file")
    fifo, folder = status(f"{tmp_path}/fifo"), status(f"{tmp_path}/.")
    assert isinstance(fifo, wire.Status)
    assert fifo.kind == wire.FILE_KIND_OTHER
    assert isinstance(folder, wire.Status)
    assert (folder.kind, folder.name) == (wire.FILE_KIND_DIRECTORY, _bytes(tmp_path.name))
    assert isinstance(status("/"), wire.Status)
    assert _errno(status("/no/such")) == errno.ENOENT


def test_ten_thousand_entries_are_listed(agent: Driver, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(10_000):
        (folder / f"entry-{number}").touch()
    listed = agent.list_directory(str(folder))
    assert isinstance(listed, dict)
    assert set(listed) == {b"entry-%d" % number for number in range(10_000)}
    assert agent.list_directory(str(folder / "no")) == wire.Failed(
        errno.ENOENT, f"cannot list `{folder}/no`: No such file or directory".encode()
    )
    assert _errno(agent.list_directory("/etc/passwd")) == errno.ENOTDIR


def test_a_listing_tells_each_entrys_status(agent: Driver, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "link").symlink_to("x" * 3000)
    (tmp_path / "d" / "dir").mkdir(0o700)
    listed = agent.list_directory(str(tmp_path / "d"))
    assert isinstance(listed, dict)
    assert set(listed) == {b"link", b"dir"}
    assert listed[b"link"].target == b"x" * 3000
    assert (listed[b"dir"].kind, listed[b"dir"].mode) == (wire.FILE_KIND_DIRECTORY, 0o700)


def test_directories_are_made(agent: Driver, tmp_path: Path) -> None:
    assert _make(agent, f"{tmp_path}/a", mode=0o1777) == wire.Done()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o1777
    assert _errno(_make(agent, f"{tmp_path}/a")) == errno.EEXIST
    assert _make(agent, f"{tmp_path}/a", parents=1) == wire.Done()
    assert _errno(_make(agent, f"{tmp_path}/x/y")) == errno.ENOENT
    assert _make(agent, f"{tmp_path}/x/y", parents=1) == wire.Done()
    (tmp_path / "file").touch()
    assert _errno(_make(agent, f"{tmp_path}/file", parents=1)) == errno.EEXIST
    assert _make(agent, "/", parents=1) == wire.Done()


def test_things_are_moved(agent: Driver, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    (tmp_path / "dir").mkdir()

    def move(source: str, target: str) -> GuestFrame:
        return agent.ask(wire.Move(_bytes(tmp_path), source.encode(), target.encode()))

    assert move("a", "b") == wire.Done()
    assert (tmp_path / "b").read_bytes() == b"a"
    assert move("/b", "dir/c") == wire.Done()
    assert (tmp_path / "dir" / "c").read_bytes() == b"a"
    assert _errno(move("dir", "dir/inside")) == errno.EINVAL
    assert _errno(move("/", "x")) == errno.EBUSY
    assert _errno(move("no", "x")) == errno.ENOENT


def test_a_single_thing_is_removed(agent: Driver, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("full")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full" / "x").mkdir(parents=True)
    for name in ("file", "link", "empty"):
        assert _remove(agent, f"{tmp_path}/{name}") == wire.Done()
    assert _errno(_remove(agent, f"{tmp_path}/full")) == errno.ENOTEMPTY
    assert _errno(_remove(agent, f"{tmp_path}/file")) == errno.ENOENT
    assert _errno(_remove(agent, f"{tmp_path}/file", recursive=1)) == errno.ENOENT
    assert _errno(_remove(agent, "/")) == errno.EBUSY


def test_a_tree_is_removed_and_nothing_that_its_links_point_to(agent: Driver, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    for branch in ("a", "b/c/d", "b/e"):
        (tree / branch).mkdir(parents=True)
        for number in range(100):
            (tree / branch / f"file-{number}").touch()
        (tree / branch / "link").symlink_to(tmp_path / "kept")
    assert _remove(agent, str(tree), recursive=1) == wire.Done()
    assert not tree.exists()
    assert (tmp_path / "kept" / "file").exists()


def test_a_deep_tree_is_removed(agent: Driver, tmp_path: Path) -> None:
    deepest = tmp_path.joinpath("tree", *["d"] * 400)
    deepest.mkdir(parents=True)
    (deepest / "file").touch()
    try:
        assert _remove(agent, str(tmp_path / "tree"), recursive=1) == wire.Done()
        assert not (tmp_path / "tree").exists()
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "tree"], check=True)  # too deep for pytest's own cleaning


def test_the_agent_answers_while_it_removes(agent: Driver, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(20_000):
        (tmp_path / "tree" / f"{number}").touch()
    record_id = agent.new_id()
    agent.send(wire.Remove(1, b"/", _bytes(tmp_path / "tree")), record_id)
    assert isinstance(agent.ask(wire.Uname()), wire.Platform)
    assert (tmp_path / "tree").exists()
    agent.wait(wire.Done, record_id)
    assert not (tmp_path / "tree").exists()


def test_a_full_disk_fails_the_write(agent: Driver, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    agent.mount("-t", "tmpfs", "-o", "size=100k", "none", str(folder))
    (answer,) = [agent.write_file(str(folder / "file"), bytes(1_000_000))]
    assert _errno(answer) == errno.ENOSPC
    assert agent.list_directory(str(folder)) == {}


def test_file_requests_of_all_kinds_leave_no_descriptor(agent: Driver, tmp_path: Path) -> None:
    def descriptors() -> bytes:
        return agent.shell("ls /proc/1/fd | wc -l")[1]

    before = descriptors()
    bad: list[HostFrame] = [
        wire.Read(9, 0, 9, b"/", b"/no/no"),
        wire.Write(0, 0, b"/", b"/no/no"),
        wire.List(9, b"/", b"/no"),
        wire.Stat(1, b"/", b"/etc/../etc/passwd"),
        wire.MakeDirectory(0, 0, b"/", b"/etc"),
        wire.Move(b"/", b"/no", b"/no"),
        wire.Move(b"/", b"/etc", b"/no/no"),
        wire.Remove(1, b"/", b"/"),
        wire.Read(9, 0, 9, b"/no", b"/"),
        wire.Write(0, 0, b"/", b"/etc"),
        wire.Read(9, 0, 9, b"/", b"/etc"),
    ]
    for frame in bad * 3:
        agent.ask(frame)
    agent.write_file(str(tmp_path / "f"), b"x")
    agent.read_file(str(tmp_path / "f"))
    agent.list_directory(str(tmp_path))
    agent.until(lambda: descriptors() == before)
