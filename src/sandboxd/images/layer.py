"""Writes entries into a folder in the form that overlayfs takes as a lower layer."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from sandboxd.core.errors import Invalid
from sandboxd.images.entry import Allowance, Entry, Kind, Path, entry_of, kept_xattrs
from sandboxd.images.merged import OPAQUE, resolve
from sandboxd.images.reference import printable
from sandboxd.images.rooted import FOLDER, RootedTree

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

CHUNK = 1024 * 1024
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEVICES = {Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}


class LayerWriter:
    """Builds one layer in an empty folder that nobody else can reach; use it as a context.

    A later entry replaces an earlier one of the same path, as unpacking would. Nothing outside the folder is touched,
    whatever the entries say. A folder that is only implied by what is in it looks as it does in `lowers` (topmost
    first), since it will hide theirs. Call `finish` once at the end.
    """

    def __init__(self, folder: os.PathLike[str], allowance: Allowance, *, lowers: Sequence[pathlib.Path] = ()) -> None:
        self.size_bytes = 0
        self._lowers = lowers
        self._allowance = allowance
        self._tree = RootedTree(folder)
        self._times: dict[Path, int] = {}
        self._hidden: set[Path] = set()
        self._opaque: set[Path] = set()
        os.fchmod(self._tree.root, 0o755)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tree.close()

    def add(self, entry: Entry, read: Callable[[int], bytes]) -> None:
        """Write one entry; a file's content is what `read(most)` gives.

        Raises:
            Invalid: the entry cannot be, or would leave the layer.
            LimitExceeded: the allowance is spent.
        """
        self._allowance.take(entry.size)
        self.size_bytes += entry.size
        if not entry.path:
            self._add_root(entry)
            return
        self._uncover(entry.path)
        parent = self._tree.parent(entry.path, create=True)
        match entry.kind:
            case Kind.FILE:
                self._add_file(entry, parent, read)
            case Kind.DIRECTORY:
                self._add_directory(entry, parent)
            case Kind.LINK:
                self._add_link(entry, parent)
            case Kind.SYMLINK | Kind.CHARACTER | Kind.BLOCK | Kind.FIFO:
                self._add_special(entry, parent)

    def hide(self, path: Path) -> None:
        """Make lower layers' `path` invisible; what this layer itself has there stays."""
        self._allowance.take(0)
        self._uncover(path[:-1])
        parent = self._tree.parent(path, create=True)
        try:
            os.mknod(path[-1], stat.S_IFCHR | 0o000, 0, dir_fd=parent)
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(path[-1], dir_fd=parent).st_mode):
                self.hide_below(path)
            return
        self._hidden.add(path)

    def hide_below(self, path: Path) -> None:
        """Make whatever lower layers have inside the folder `path` invisible."""
        self._allowance.take(0)
        self._uncover(path)
        os.setxattr(self._tree.folder(path, create=True), OPAQUE, b"y")
        self._opaque.add(path)

    def finish(self) -> None:
        """Dress implied folders; set the folders' times, which writing into them has changed."""
        for path in self._tree.implied - self._times.keys():
            self._times[path] = self._inherit(path)
        root_time = self._times.pop((), 0)
        for path, mtime_ns in sorted(self._times.items()):
            with suppress(FileNotFoundError, Invalid):  # replaced by a later entry
                parent = self._tree.parent(path, create=False)
                if stat.S_ISDIR(os.lstat(path[-1], dir_fd=parent).st_mode):
                    _set_time(path[-1], parent, mtime_ns)
        os.utime(self._tree.root, ns=(root_time, root_time))

    def _inherit(self, path: Path) -> int:
        """Give an implied folder the owner and mode it has below; return its time."""
        below = resolve(self._lowers, os.fsdecode(b"/".join(path))) if self._lowers else None
        if below is None or not below.is_dir():
            return 0
        with suppress(FileNotFoundError, Invalid):  # replaced by a later entry
            facts = below.stat()
            folder = self._tree.folder(path, create=False)
            os.fchown(folder, facts.st_uid, facts.st_gid)
            os.fchmod(folder, stat.S_IMODE(facts.st_mode))
            return facts.st_mtime_ns
        return 0

    def _add_root(self, entry: Entry) -> None:
        if entry.kind is not Kind.DIRECTORY:
            raise Invalid(f"the root of the image is a {entry.kind.value}")
        _dress(self._tree.root, entry)
        self._times[()] = entry.mtime_ns

    def _add_file(self, entry: Entry, parent: int, read: Callable[[int], bytes]) -> None:
        name = entry.path[-1]
        try:
            file = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        except FileExistsError:
            parent = self._clear(entry.path)
            file = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            _fill(file, entry, read)
            _dress(file, entry)
            os.utime(file, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(file)

    def _add_directory(self, entry: Entry, parent: int) -> None:
        name = entry.path[-1]
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                parent = self._clear(entry.path)
                os.mkdir(name, 0o700, dir_fd=parent)
        folder = os.open(name, FOLDER, dir_fd=parent)
        try:
            _dress(folder, entry)
        finally:
            os.close(folder)
        self._times[entry.path] = entry.mtime_ns

    def _add_link(self, entry: Entry, parent: int) -> None:
        if not entry.link or entry.link == entry.path:
            raise Invalid(f"`{_shown(entry.path)}` is a hard link to itself or to the root")
        missing = f"`{_shown(entry.path)}` is a hard link to `{_shown(entry.link)}`, which is not there"
        if entry.link in self._hidden:
            raise Invalid(missing)
        self._copy_up(entry.link)
        original = -1
        try:
            # A duplicate: the second walk below must not close this descriptor under us.
            original = os.dup(self._tree.parent(entry.link, create=False))
            parent = self._tree.parent(entry.path, create=True)
            if not stat.S_ISDIR(os.lstat(entry.link[-1], dir_fd=original).st_mode):
                self._link(entry, original, parent)
                return
        except FileNotFoundError as error:
            raise Invalid(missing) from error
        finally:
            if original >= 0:
                os.close(original)
        raise Invalid(f"`{_shown(entry.path)}` is a hard link to a folder")

    def _copy_up(self, path: Path) -> None:
        """Bring a file from lower layers into this one, as a link to it would through the mounted image."""
        if not self._lowers or self._hides(path):
            return
        try:
            os.lstat(path[-1], dir_fd=self._tree.parent(path, create=False))
        except FileNotFoundError:
            below = resolve(self._lowers, os.fsdecode(b"/".join(path)))
        else:
            return
        if below is None or not below.is_file():
            return
        with below.open("rb", buffering=0) as file:
            self.add(entry_of(os.fstat(file.fileno()), path, xattrs=kept_xattrs(file.fileno())), file.read)

    def _hides(self, path: Path) -> bool:
        """Say whether this layer hides what lower layers have at a path."""
        if any(path[:depth] in self._hidden for depth in range(1, len(path) + 1)):
            return True
        return any(path[:depth] in self._opaque for depth in range(len(path)))

    def _link(self, entry: Entry, original: int, parent: int) -> None:
        source, name = entry.link[-1], entry.path[-1]
        try:
            os.link(source, name, src_dir_fd=original, dst_dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            parent = self._clear(entry.path)
            os.link(source, name, src_dir_fd=original, dst_dir_fd=parent, follow_symlinks=False)

    def _add_special(self, entry: Entry, parent: int) -> None:
        try:
            _make_special(entry, parent)
        except FileExistsError:
            parent = self._clear(entry.path)
            _make_special(entry, parent)
        name = entry.path[-1]
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.kind is not Kind.SYMLINK:
            os.chmod(name, entry.mode, dir_fd=parent)
        _set_time(name, parent, entry.mtime_ns)

    def _uncover(self, path: Path) -> None:
        """Turn whiteouts at or above `path` into folders or nothing, keeping what they hide hidden."""
        if not self._hidden:
            return
        for depth in range(1, len(path) + 1):
            covered = path[:depth]
            if covered not in self._hidden:
                continue
            self._hidden.discard(covered)
            parent = self._clear(covered)
            os.mkdir(covered[-1], 0o755, dir_fd=parent)
            self._tree.implied.add(covered)
            os.setxattr(self._tree.folder(covered, create=False), OPAQUE, b"y")
            self._opaque.add(covered)

    def _clear(self, path: Path) -> int:
        """Remove what an earlier entry put at `path`; return its folder anew."""
        parent = self._tree.parent(path, create=True)
        if stat.S_ISDIR(os.lstat(path[-1], dir_fd=parent).st_mode):
            # The walk keeps folders open, which must not outlive them.
            shutil.rmtree(path[-1], dir_fd=parent)
            self._tree.forget()
            parent = self._tree.parent(path, create=True)
        else:
            os.unlink(path[-1], dir_fd=parent)
        return parent


def _fill(file: int, entry: Entry, read: Callable[[int], bytes]) -> None:
    end = 0
    for offset, length in entry.pieces:
        if offset < end or length < 0 or offset + length > entry.size:
            raise Invalid(f"the sparse file `{_shown(entry.path)}` describes its holes wrongly")
        if offset != end:
            os.lseek(file, offset, os.SEEK_SET)
        end = offset + length
        _copy(file, length, entry, read)
    if end < entry.size:
        os.ftruncate(file, entry.size)


def _copy(file: int, length: int, entry: Entry, read: Callable[[int], bytes]) -> None:
    while length > 0:
        chunk = read(min(length, CHUNK))
        if not chunk:
            raise Invalid(f"`{_shown(entry.path)}` ends before its stated size")
        length -= len(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(file, view) :]


def _dress(file: int, entry: Entry) -> None:
    """Set owner, then mode, then attributes: each may clear the next."""
    os.fchown(file, entry.uid, entry.gid)
    os.fchmod(file, entry.mode)
    for name, value in entry.xattrs:
        os.setxattr(file, name, value)


def _make_special(entry: Entry, parent: int) -> None:
    if entry.kind is Kind.SYMLINK:
        os.symlink(entry.target, entry.path[-1], dir_fd=parent)
    else:
        os.mknod(entry.path[-1], _DEVICES[entry.kind] | 0o600, entry.device, dir_fd=parent)


def _set_time(name: bytes, parent: int, mtime_ns: int) -> None:
    os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=parent, follow_symlinks=False)


def _shown(path: Path) -> str:
    return printable(b"/".join(path))
