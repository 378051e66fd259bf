"""What a guest's errno tells the caller to do."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, TypeVar

from sandboxd.core.errors import (
    Busy,
    Conflict,
    Denied,
    Invalid,
    LimitExceeded,
    NotFound,
    SandboxdError,
    Unavailable,
    Unsupported,
)

if TYPE_CHECKING:
    from sandboxd.guest.frames import Failed

AnyError = TypeVar("AnyError", bound=SandboxdError)

LONGEST_MESSAGE = 300
LARGEST_ERRNO = 4095

BY_ERRNO: dict[int, type[SandboxdError]] = {
    errno.ENOENT: NotFound,
    errno.ESRCH: NotFound,
    errno.EACCES: Denied,
    errno.EPERM: Denied,
    errno.EROFS: Denied,
    errno.EEXIST: Conflict,
    errno.ENOTEMPTY: Conflict,
    errno.EISDIR: Conflict,
    errno.ENOTDIR: Conflict,
    errno.EBUSY: Conflict,
    errno.ETXTBSY: Conflict,
    errno.EPIPE: Conflict,
    errno.ENOTTY: Conflict,
    errno.ENOSPC: LimitExceeded,
    errno.EDQUOT: LimitExceeded,
    errno.EFBIG: LimitExceeded,
    errno.EMFILE: Busy,
    errno.ENFILE: Busy,
    errno.ENOMEM: Busy,
    errno.EAGAIN: Busy,
    errno.EMLINK: LimitExceeded,
    errno.EINVAL: Invalid,
    errno.ENAMETOOLONG: Invalid,
    errno.ELOOP: Invalid,
    errno.EXDEV: Invalid,
    errno.ECONNREFUSED: Unavailable,
    errno.ECONNRESET: Unavailable,
    errno.ENETUNREACH: Unavailable,
    errno.EHOSTUNREACH: Unavailable,
    errno.ETIMEDOUT: Unavailable,
    errno.EIO: Unavailable,
    errno.ENOSYS: Unsupported,
    errno.EOPNOTSUPP: Unsupported,
}
"""What is not here is Unavailable: something in the guest does not work, and its operator must look."""

START_BY_ERRNO: dict[int, type[SandboxdError]] = {
    **BY_ERRNO,
    errno.ENOENT: Invalid,
    errno.ENOTDIR: Invalid,
    errno.EACCES: Invalid,
    errno.EPERM: Invalid,
}
"""For a start only the user and the working directory can be missing or out of reach."""


USED_UP = "the sandbox has used up its processes, memory or descriptors: end some of its processes, or try again"


def refusal(failed: Failed, doing: str) -> SandboxdError:
    """Return the error for what a guest could not do: `doing` (such as "cannot read `/x`"), a colon, and why."""
    reason = os.strerror(failed.errno & LARGEST_ERRNO).lower()
    return BY_ERRNO.get(failed.errno, Unavailable)(f"{doing}: {reason}")


def start_refusal(failed: Failed, doing: str) -> SandboxdError:
    """Return the error for a process that could not be started; the guest's own words say what was wrong with it."""
    reason = printable(failed.message) or os.strerror(failed.errno & LARGEST_ERRNO).lower()
    kind = START_BY_ERRNO.get(failed.errno, Unavailable)
    return kind(f"{doing}: {reason}", hint=USED_UP if kind is Busy else "")


def printable(text: bytes) -> str:
    """Return what a guest said as one harmless line of at most `LONGEST_MESSAGE` characters."""
    line = text[: LONGEST_MESSAGE * 4].decode(errors="replace")
    return "".join(character if character.isprintable() else "?" for character in line)[:LONGEST_MESSAGE]


def again(error: AnyError) -> AnyError:
    """Return an equal error, for one that is raised in many places gathers the tracebacks of all."""
    return type(error)(error.message, hint=error.hint)
