"""The guest's file system through its agent."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from sandboxd.core.errors import Invalid
from sandboxd.guest.fields import ProtocolError
from sandboxd.guest.flow import WINDOW
from sandboxd.guest.frames import (
    FILE_KIND_DIRECTORY,
    FILE_KIND_FILE,
    FILE_KIND_OTHER,
    FILE_KIND_SYMLINK,
    LIMIT_GUEST_FRAME,
    MODE_KEEP,
    Done,
    List,
    MakeDirectory,
    Move,
    Read,
    Remove,
    Stat,
    Status,
    Write,
)
from sandboxd.guest.transfer import Download, Upload
from sandboxd.ports.files import FileKind, FileStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandboxd.guest.link import Link

KINDS = {
    FILE_KIND_FILE: FileKind.FILE,
    FILE_KIND_DIRECTORY: FileKind.DIRECTORY,
    FILE_KIND_SYMLINK: FileKind.SYMLINK,
    FILE_KIND_OTHER: FileKind.OTHER,
}
PERMISSIONS = 0o7777
TO_THE_END = 2**64 - 1

_ENTRY_SIZE = Struct("<I")


def encode_text(text: str, what: str) -> bytes:
    """Return text as the guest's bytes; surrogates stand for bytes that are not UTF-8. `what` is named in Invalid."""
    try:
        encoded = text.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise Invalid(f"{what} cannot be written as bytes") from error
    if b"\0" in encoded:
        raise Invalid(f"{what} holds a NUL character")
    return encoded


async def read_file(link: Link, path: str, root: str, offset: int, length: int | None) -> AsyncIterator[bytes]:
    """Yield a file's bytes."""
    if offset < 0 or (length is not None and length < 0):
        raise Invalid(f"cannot read `{path}`: the offset or length is negative")
    download = Download(link, f"cannot read `{path}`")
    wanted = TO_THE_END if length is None else length
    request = Read(WINDOW, offset, wanted, encode_text(root, "the root"), encode_text(path, "the path"))
    try:
        await download.open(request)
        while data := await download.read():
            yield data
    finally:
        download.give_up()


async def write_file(
    link: Link, path: str, data: bytes | AsyncIterator[bytes], root: str, mode: int | None, *, parents: bool
) -> None:
    """Replace a file as a whole."""
    upload = Upload(link, f"cannot write `{path}`")
    request = Write(
        MODE_KEEP if mode is None else _permissions(mode),
        int(parents),
        encode_text(root, "the root"),
        encode_text(path, "the path"),
    )
    try:
        await upload.open(request)
        if isinstance(data, bytes | bytearray | memoryview):
            await upload.write(data)
        else:
            async for piece in data:
                await upload.write(piece)
        await upload.commit()
    finally:
        upload.give_up()


async def list_directory(link: Link, path: str, root: str) -> AsyncIterator[FileStatus]:
    """Yield a directory's entries."""
    download = Download(link, f"cannot list `{path}`")
    rest = b""
    try:
        await download.open(List(WINDOW, encode_text(root, "the root"), encode_text(path, "the path")))
        while data := await download.read():
            try:
                entries, rest = _cut_entries(rest + data)
            except ProtocolError as error:
                link.fail(str(error))
                link.check()
            for entry in entries:
                yield entry
        if rest:
            link.fail("a directory's entries end in the middle of one")
            link.check()
    finally:
        download.give_up()


async def status(link: Link, path: str, root: str, *, follow: bool) -> FileStatus:
    """Return what a path is."""
    question = Stat(int(follow), encode_text(root, "the root"), encode_text(path, "the path"))
    answer = await link.ask(question, Status, f"cannot look at `{path}`")
    try:
        return _file_status(answer)
    except ProtocolError as error:
        link.fail(str(error))
        link.check()
        raise


async def make_directory(link: Link, path: str, root: str, mode: int, *, parents: bool) -> None:
    """Make a directory."""
    question = MakeDirectory(
        _permissions(mode), int(parents), encode_text(root, "the root"), encode_text(path, "the path")
    )
    await link.ask(question, Done, f"cannot make the directory `{path}`")


async def move(link: Link, source: str, target: str, root: str) -> None:
    """Rename."""
    question = Move(encode_text(root, "the root"), encode_text(source, "the path"), encode_text(target, "the path"))
    await link.ask(question, Done, f"cannot move `{source}` to `{target}`")


async def remove(link: Link, path: str, root: str, *, recursive: bool) -> None:
    """Remove a file or directory."""
    question = Remove(int(recursive), encode_text(root, "the root"), encode_text(path, "the path"))
    await link.ask(question, Done, f"cannot remove `{path}`", endless=recursive)


def _permissions(mode: int) -> int:
    if not 0 <= mode <= PERMISSIONS:
        raise Invalid(f"a mode of {mode:#o} is not between 0 and {PERMISSIONS:#o}")
    return mode


def _file_status(frame: Status) -> FileStatus:
    kind = KINDS.get(frame.kind)
    if kind is None:
        raise ProtocolError(f"a file has the unknown kind {frame.kind}")
    return FileStatus(
        name=frame.name.decode(errors="surrogateescape"),
        kind=kind,
        mode=frame.mode & PERMISSIONS,
        size=frame.size,
        modified_ns=frame.modified_ns,
        uid=frame.uid,
        gid=frame.gid,
        target=frame.target.decode(errors="surrogateescape"),
    )


def _cut_entries(data: bytes) -> tuple[list[FileStatus], bytes]:
    """Return the entries that are whole, and the bytes after them. Raises ProtocolError."""
    entries = []
    view = memoryview(data)
    at = 0
    while len(data) - at >= _ENTRY_SIZE.size:
        (size,) = _ENTRY_SIZE.unpack_from(data, at)
        if size > LIMIT_GUEST_FRAME:
            raise ProtocolError(f"a directory's entry takes {size} bytes")
        start = at + _ENTRY_SIZE.size
        if len(data) - start < size:
            break
        at = start + size
        entry = _file_status(Status.decode(view[start:at]))
        if entry.name in {"", ".", ".."} or "/" in entry.name:
            raise ProtocolError("a directory's entry has a name that no file can have")
        entries.append(entry)
    return entries, data[at:]
