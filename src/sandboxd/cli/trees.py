"""Trees of files, here and in a sandbox, that can be copied into one another."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sandboxd.cli.api import decoded, path_of
from sandboxd.core.errors import Conflict, Denied, NotFound, SandboxdError, Unavailable
from sandboxd.surfaces.native.wire import FileBody, from_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sandboxd.cli.api import Api

FILE, DIRECTORY, SYMLINK = "file", "directory", "symlink"
PIECE_BYTES = 128 * 1024
_RWX = 0o777


@dataclass(frozen=True, slots=True)
class Entry:
    """What is at a path. Names hold surrogates for bytes that are no text."""

    name: str
    kind: str
    mode: int
    target: str = ""


class Source(Protocol):
    """A tree to copy from. All methods may raise SandboxdError."""

    def look(self, path: str, *, follow: bool) -> Entry | None:
        """Return what is at a path, or at the end of the symlink there; None where nothing is."""

    def list(self, path: str) -> Iterator[Entry]:
        """Yield what is in a directory."""

    def read(self, path: str) -> Iterator[bytes]:
        """Yield a file's bytes."""


class Target(Protocol):
    """A tree to copy into. All methods may raise SandboxdError."""

    def look(self, path: str, *, follow: bool) -> Entry | None:
        """Return what is at a path, or at the end of the symlink there; None where nothing is."""

    def write(self, path: str, pieces: Iterable[bytes], mode: int) -> None:
        """Make or replace a file as a whole."""

    def make_directory(self, path: str, mode: int) -> bool:
        """Make a directory that we can put things in; return False for one that is there. A symlink to one is none."""

    def finish_directory(self, path: str, mode: int) -> None:
        """Give a directory that was made its mode, now that everything is in it."""

    def make_symlink(self, path: str, target: str) -> None:
        """Make or replace a symlink."""


class Inside:
    """The files of a sandbox."""

    def __init__(self, api: Api, sandbox_id: str) -> None:
        self._api = api
        self._path = path_of(sandbox_id)

    def look(self, path: str, *, follow: bool) -> Entry | None:
        try:
            told = self._api.ask("GET", self._path + "/files/status", {"path": path, "follow": str(follow).lower()})
        except NotFound:
            self._api.ask("GET", self._path)  # raises where it is the sandbox that is gone
            return None
        return _entry(decoded(told, FileBody))

    def list(self, path: str) -> Iterator[Entry]:
        for line in self._api.lines(self._path + "/directory", {"path": path}):
            entry = _entry(decoded(line, FileBody))
            if entry.name in {"", ".", ".."} or "/" in entry.name or "\0" in entry.name:
                raise Denied(f"`{path}` has an entry with a name that no file can have")
            yield entry

    def read(self, path: str) -> Iterator[bytes]:
        return self._api.pieces(self._path + "/files", {"path": path})

    def write(self, path: str, pieces: Iterable[bytes], mode: int) -> None:
        self._api.put(self._path + "/files", {"path": path, "mode": f"{mode:04o}"}, pieces)

    def make_directory(self, path: str, mode: int) -> bool:
        try:
            self._api.put(self._path + "/directory", {"path": path, "mode": f"{mode:04o}"})
        except Conflict:
            there = self.look(path, follow=False)
            if there is None or there.kind != DIRECTORY:
                raise
            return False
        return True

    def finish_directory(self, path: str, mode: int) -> None:
        """Nothing is left to do: no mode keeps the sandbox's root out, which writes for us."""

    def make_symlink(self, path: str, target: str) -> None:
        self._api.put(self._path + "/symlink", {"path": path, "target": target})


class Here:
    """The files of this machine. What comes from a sandbox gets no set-id bits."""

    def look(self, path: str, *, follow: bool) -> Entry | None:
        try:
            place = Path(path)
            return _local(place, place.stat(follow_symlinks=follow))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failure("look at", path, error) from error

    def list(self, path: str) -> Iterator[Entry]:
        try:
            for place in Path(path).iterdir():
                yield _local(place, place.lstat())
        except OSError as error:
            raise _failure("list", path, error) from error

    def read(self, path: str) -> Iterator[bytes]:
        try:
            with Path(path).open("rb", buffering=0) as file:
                while piece := file.read(PIECE_BYTES):
                    yield piece
        except OSError as error:
            raise _failure("read", path, error) from error

    def write(self, path: str, pieces: Iterable[bytes], mode: int) -> None:
        partial = _beside(path)
        try:
            with partial.open("xb") as file:
                file.writelines(pieces)
                os.fchmod(file.fileno(), mode & _RWX)
            partial.replace(path)
        except OSError as error:
            raise _failure("write", path, error) from error
        finally:
            with suppress(OSError):
                partial.unlink()

    def make_directory(self, path: str, mode: int) -> bool:
        try:
            Path(path).mkdir(mode & _RWX | stat.S_IRWXU)
        except FileExistsError as error:
            there = self.look(path, follow=False)
            if there is None or there.kind != DIRECTORY:
                raise Conflict(f"`{path}` is in the way and no directory") from error
            return False
        except OSError as error:
            raise _failure("make the directory", path, error) from error
        return True

    def finish_directory(self, path: str, mode: int) -> None:
        try:
            Path(path).chmod(mode & _RWX)
        except OSError as error:
            raise _failure("change the mode of", path, error) from error

    def make_symlink(self, path: str, target: str) -> None:
        partial = _beside(path)
        try:
            partial.symlink_to(target)
            partial.replace(path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise _failure("make the symlink", path, error) from error


def copy(source: Source, start: str, target: Target, end: str, *, follow: bool) -> list[str]:
    """Copy what is at `start` to `end`, into it where that is a directory; return what could not be copied and why.

    A directory whose path ends in `/.` gives only what is in it. With `follow`, a symlink at `start` stands for what it
    leads to. Files are replaced, directories joined.

    Raises:
        NotFound: nothing is at `start`, or not the directory that is to hold `end`.
        Conflict: a directory cannot take the place of a file.
    """
    name = start.rstrip("/").rpartition("/")[2]
    entry = source.look(start, follow=follow)
    if entry is None:
        raise NotFound(f"there is nothing at `{start}`")
    there = target.look(end, follow=True)
    is_into = there is not None and there.kind == DIRECTORY
    if there is None and end.endswith("/") and entry.kind != DIRECTORY:
        raise NotFound(f"the directory `{end}` is not there")
    if entry.kind == DIRECTORY and there is not None and not is_into:
        raise Conflict(f"a directory cannot take the place of `{end}`")
    takes_contents = name in {"", ".", ".."}
    place = join(end, name) if is_into and not takes_contents else end
    copying = _Copying(source, target)
    if takes_contents and is_into:
        copying.add_contents(start, place)
    else:
        copying.add(entry, start, place)
    copying.run()
    return copying.left_out


class _Copying:
    def __init__(self, source: Source, target: Target) -> None:
        self.left_out: list[str] = []
        self._source = source
        self._target = target
        self._pending: list[tuple[Entry, str, str]] = []
        self._symlinks: list[tuple[str, str]] = []
        self._made: list[tuple[str, int]] = []

    def run(self) -> None:
        """Copy what was added, and all that is below it."""
        while self._pending:
            entry, start, end = self._pending.pop()
            match entry.kind:
                case "file":
                    self._target.write(end, self._source.read(start), entry.mode)
                case "symlink":
                    self._symlinks.append((end, entry.target))
                case "directory":
                    if self._target.make_directory(end, entry.mode):
                        self._made.append((end, entry.mode))
                    self.add_contents(start, end)
                case _:
                    self.left_out.append(f"`{start}` is neither file, directory nor symlink")
        self._finish()

    def add(self, entry: Entry, start: str, end: str) -> None:
        self._pending.append((entry, start, end))

    def add_contents(self, start: str, end: str) -> None:
        found = [(entry, join(start, entry.name), join(end, entry.name)) for entry in self._source.list(start)]
        self._pending += reversed(found)

    def _finish(self) -> None:
        """Make symlinks last, so that nothing is ever written through one that was copied."""
        for path, target in self._symlinks:
            self._target.make_symlink(path, target)
        for path, mode in reversed(self._made):
            self._target.finish_directory(path, mode)


def join(path: str, name: str) -> str:
    """Return the path of something in a directory."""
    return path.rstrip("/") + "/" + name


def _entry(told: FileBody) -> Entry:
    name, target = from_text(told.name, told.name_base64), from_text(told.target, told.target_base64)
    return Entry(name, told.kind, int(told.mode, 8), target)


def _beside(path: str) -> Path:
    """Return a name in the same directory that nothing has yet."""
    return Path(path).with_name(f".sandboxd-{secrets.token_hex(8)}")


def _local(place: Path, found: os.stat_result) -> Entry:
    mode = found.st_mode
    kinds = ((stat.S_ISREG, FILE), (stat.S_ISDIR, DIRECTORY), (stat.S_ISLNK, SYMLINK))
    kind = next((kind for is_kind, kind in kinds if is_kind(mode)), "other")
    target = os.readlink(place) if kind == SYMLINK else ""  # noqa: PTH115 - Path.readlink would tidy what it says
    return Entry(place.name, kind, stat.S_IMODE(mode), target)


def _failure(doing: str, path: str, error: OSError) -> SandboxdError:
    sentence = f"cannot {doing} `{path}` here: {error.strerror}"
    by_kind: dict[type[OSError], type[SandboxdError]] = {
        FileNotFoundError: NotFound,
        PermissionError: Denied,
        IsADirectoryError: Conflict,
        NotADirectoryError: Conflict,
        FileExistsError: Conflict,
    }
    return by_kind.get(type(error), Unavailable)(sentence)
