"""Reads a tar archive, as hostile as it may be, into a layer."""

from __future__ import annotations

import math
import os
import tarfile
from typing import TYPE_CHECKING, BinaryIO, cast

from sandboxd.core.errors import Invalid
from sandboxd.images.entry import LARGEST_ID, Allowance, Entry, Kind, Path, keeps_xattr, split
from sandboxd.images.reference import printable
from sandboxd.images.stream import BROKEN, ForwardStream, decompressed

if TYPE_CHECKING:
    from sandboxd.images.layer import LayerWriter

_KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.CONTTYPE: Kind.FILE,
    tarfile.GNUTYPE_SPARSE: Kind.FILE,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.LINK,
    tarfile.CHRTYPE: Kind.CHARACTER,
    tarfile.BLKTYPE: Kind.BLOCK,
    tarfile.FIFOTYPE: Kind.FIFO,
}
_XATTR = "SCHILY.xattr."
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."
_LARGEST_MAJOR, _LARGEST_MINOR = 2**12 - 1, 2**20 - 1
_EARLIEST, _LATEST = -(2**31), 2**34 - 1
_MOST_GLOBAL_HEADERS = 1000
_SLACK = 1024 * 1024 * 1024


def unpack(archive: BinaryIO, layer: LayerWriter, allowance: Allowance) -> str:
    """Write an archive's entries into a layer; return the hexadecimal digest of the decompressed archive.

    Whiteout names (`.wh.…`) become what overlayfs knows.

    Raises:
        Invalid: the archive is damaged or holds something that would leave the layer.
        LimitExceeded: it is larger than the allowance.
    """
    try:
        stream = ForwardStream(decompressed(archive), most=allowance.bytes_left + _SLACK)
        _unpack_all(stream, layer)
        return stream.drain()
    except (tarfile.TarError, RecursionError, *BROKEN) as error:
        raise Invalid(f"the archive is damaged or no tar archive: {printable(str(error)[:200])}") from error


def _unpack_all(stream: ForwardStream, layer: LayerWriter) -> None:
    source = cast("BinaryIO", stream)
    with tarfile.TarFile(fileobj=source, mode="r", encoding="utf-8", errors="surrogateescape") as archive:
        while (member := archive.next()) is not None:
            cast("list[tarfile.TarInfo]", archive.members).clear()  # type: ignore[attr-defined]
            if len(archive.pax_headers) > _MOST_GLOBAL_HEADERS:
                raise Invalid(f"the archive has more than {_MOST_GLOBAL_HEADERS} global headers")
            _write(member, stream, layer)
            stream.next_entry()
    if stream.last_header.strip(b"\0"):
        raise Invalid("the archive has a damaged header")
    layer.finish()


def _write(member: tarfile.TarInfo, stream: ForwardStream, layer: LayerWriter) -> None:
    path = split(_bytes(member.name))
    if path and path[-1].startswith(_WHITEOUT):
        _write_whiteout(path, layer)
    else:
        layer.add(_entry(member, path), stream.content)


def _write_whiteout(path: Path, layer: LayerWriter) -> None:
    name = path[-1]
    if name == _OPAQUE:
        layer.hide_below(path[:-1])
    elif not name.startswith(_AUFS):
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in {b"", b".", b".."}:
            raise Invalid(f"`{printable(b'/'.join(path))}` is a whiteout of nothing")
        layer.hide((*path[:-1], hidden))


def _entry(member: tarfile.TarInfo, path: Path) -> Entry:
    kind = _KINDS.get(member.type)
    shown = printable(member.name[:200])
    if kind is None:
        raise Invalid(f"`{shown}` is an entry of the unknown kind {member.type!r}")
    if member.size < 0 or not 0 <= member.uid <= LARGEST_ID or not 0 <= member.gid <= LARGEST_ID:
        raise Invalid(f"`{shown}` has a size or an owner that cannot be")
    size = member.size if kind is Kind.FILE else 0
    return Entry(
        path=path,
        kind=kind,
        mode=member.mode & 0o7777,
        uid=member.uid,
        gid=member.gid,
        mtime_ns=_nanoseconds(member.mtime),
        size=size,
        target=_target(member, shown) if kind is Kind.SYMLINK else b"",
        link=split(_bytes(member.linkname)) if kind is Kind.LINK else (),
        device=_device(member, shown) if kind in {Kind.CHARACTER, Kind.BLOCK} else 0,
        xattrs=_xattrs(member) if kind in {Kind.FILE, Kind.DIRECTORY} else (),
        pieces=_pieces(member) if kind is Kind.FILE else (),
    )


def _pieces(member: tarfile.TarInfo) -> tuple[tuple[int, int], ...]:
    # GNU tar ends its list of pieces with an empty one at the very end.
    sparse = cast("list[tuple[int, int]] | None", getattr(member, "sparse", None))
    return ((0, member.size),) if sparse is None else tuple(piece for piece in sparse if piece[1])


def _xattrs(member: tarfile.TarInfo) -> tuple[tuple[str, bytes], ...]:
    found = (
        (key.removeprefix(_XATTR), _bytes(value)) for key, value in member.pax_headers.items() if key.startswith(_XATTR)
    )
    return tuple((name, value) for name, value in found if "\0" not in name and keeps_xattr(name))


def _target(member: tarfile.TarInfo, shown: str) -> bytes:
    target = _bytes(member.linkname)
    if not target or b"\0" in target:
        raise Invalid(f"`{shown}` is a link to nothing")
    return target


def _device(member: tarfile.TarInfo, shown: str) -> int:
    if not (0 <= member.devmajor <= _LARGEST_MAJOR and 0 <= member.devminor <= _LARGEST_MINOR):
        raise Invalid(f"`{shown}` is a device with a number that cannot be")
    return os.makedev(member.devmajor, member.devminor)


def _nanoseconds(mtime: float) -> int:
    if isinstance(mtime, float) and not math.isfinite(mtime):
        return 0
    return int(min(max(mtime, _EARLIEST), _LATEST) * 1_000_000_000)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
