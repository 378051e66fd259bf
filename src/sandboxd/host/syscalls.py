"""The few Linux calls that Python's `os` lacks, each raising OSError with the kernel's errno."""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
CLONE_FS = 0x200
CLONE_NEWNS = 0x20000

MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_SLAVE = 0x2, 0x4, 0x1000, 0x4000, 0x80000
MNT_DETACH = 2

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442  # one number on every architecture
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOUNT_ATTR_IDMAP = 0x100000
_PR_SET_CHILD_SUBREAPER = 36
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityWords(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _checked(result: int, subject: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)
    return result


def _bytes(path: str | os.PathLike[str] | None) -> bytes | None:
    return None if path is None else os.fsencode(path)


def mount(source: str | None, target: str | os.PathLike[str], kind: str | None, flags: int, options: str = "") -> None:
    """Mount by the classic call; `options` is what stands after `-o` and not a flag."""
    data = options.encode() if options else None
    result = _libc.mount(_bytes(source), _bytes(target), _bytes(kind), ctypes.c_ulong(flags), data)
    _checked(result, f"mount {kind or source or 'flags'} at {os.fspath(target)}")


def unmount(target: str | os.PathLike[str]) -> None:
    """Take a mount out of the tree at once; it ends when its last user does."""
    _checked(_libc.umount2(_bytes(target), MNT_DETACH), f"unmount {os.fspath(target)}")


def clone_idmapped(source: str | os.PathLike[str], userns_fd: int) -> int:
    """Return a detached clone of what lies at `source`, its ids mapped as the user namespace maps them.

    Closing the descriptor ends the clone, unless it was attached.
    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    result = _libc.syscall(_OPEN_TREE, ctypes.c_int(AT_FDCWD), _bytes(source), ctypes.c_uint(flags))
    fd = _checked(result, f"clone the mount of {os.fspath(source)}")
    try:
        attributes = _MountAttributes(set=_MOUNT_ATTR_IDMAP, userns_fd=userns_fd)
        size = ctypes.sizeof(attributes)
        result = _libc.syscall(_MOUNT_SETATTR, fd, b"", AT_EMPTY_PATH, ctypes.byref(attributes), size)
        _checked(result, f"map the ids of {os.fspath(source)}")
    except BaseException:
        os.close(fd)
        raise
    return fd


def attach(mount_fd: int, target: str | os.PathLike[str]) -> None:
    """Put a detached mount at `target`; the descriptor stays the caller's."""
    result = _libc.syscall(_MOVE_MOUNT, mount_fd, b"", ctypes.c_int(AT_FDCWD), _bytes(target), _MOVE_MOUNT_F_EMPTY_PATH)
    _checked(result, f"attach a mount at {os.fspath(target)}")


def unshare_mounts() -> None:
    """Give the calling thread a mount tree and a working directory of its own; the host's changes still arrive."""
    _checked(_libc.unshare(CLONE_NEWNS | CLONE_FS), "unshare the mount namespace")
    mount(None, "/", None, MS_REC | MS_SLAVE)


def become_subreaper() -> None:
    """Make orphans among our descendants our children, so that we see and reap their end."""
    _checked(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "become child subreaper")


@contextmanager
def filesystem_ids(uid: int, gid: int) -> Iterator[None]:
    """Let the calling thread make files as `uid:gid` inside the block, with all its capabilities kept.

    The kernel drops the file capabilities of a thread that leaves file-system uid 0; they are raised again here.
    """
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    try:
        _raise_permitted()
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)


def _raise_permitted() -> None:
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    words = (_CapabilityWords * 2)()
    _checked(_libc.capget(ctypes.byref(header), words), "read capabilities")
    for word in words:
        word.effective = word.permitted
    _checked(_libc.capset(ctypes.byref(header), words), "raise capabilities")
