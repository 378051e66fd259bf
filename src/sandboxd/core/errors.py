"""Errors by what the caller can do about them.

    SandboxdError
     ├─ Invalid            the request is wrong: change it
     ├─ NotFound           no such thing for this owner
     ├─ Denied             not allowed: other credentials, or another path
     ├─ Conflict           wrong state, or the name is taken
     ├─ Busy               no room just now: try again later
     ├─ Unsupported        this runtime or node cannot do that: ask another
     ├─ LimitExceeded      a stated limit was reached
     ├─ DeadlineExceeded   the time given ran out
     ├─ Unavailable        a part that is needed is down: its operator must act
     ├─ Lost               the sandbox ended without being asked
     ├─ Uncertain          it may or may not have happened: look before repeating
     └─ Bug                our mistake

Every surface has one table from these to its wire; a test proves each table complete.
"""

from __future__ import annotations


class SandboxdError(Exception):
    """A failure with a stable `code`, a sentence, and a hint where there is something to do.

    `str(error)` is the sentence followed by the hint, fit to be shown to a user.
    """

    code = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class Invalid(SandboxdError):
    """The request is malformed or asks for something meaningless; repeating it unchanged cannot help."""

    code = "invalid"


class NotFound(SandboxdError):
    """No such sandbox, process, snapshot, image or file is visible to this owner."""

    code = "not_found"


class Denied(SandboxdError):
    """The caller may not do this."""

    code = "denied"


class Conflict(SandboxdError):
    """The thing is in a state that does not allow this, or a name or key is already taken."""

    code = "conflict"


class Busy(SandboxdError):
    """There is no room at this moment; the same request may succeed later."""

    code = "busy"


class Unsupported(SandboxdError):
    """The chosen runtime or this node cannot do this; nothing was touched."""

    code = "unsupported"


class LimitExceeded(SandboxdError):
    """A stated limit was reached; the sentence names the limit and what was asked."""

    code = "limit_exceeded"


class DeadlineExceeded(SandboxdError):
    """The time given for this ran out."""

    code = "deadline_exceeded"


class Unavailable(SandboxdError):
    """Something this depends on (a daemon, a binary, the disk) is not working on this node."""

    code = "unavailable"


class Lost(SandboxdError):
    """The sandbox ended without being asked; the sentence says why as far as is known."""

    code = "lost"


class Uncertain(SandboxdError):
    """The outcome is unknown: it was cut before an answer came."""

    code = "uncertain"


class Bug(SandboxdError):
    """sandboxd broke one of its own rules; please report it."""

    code = "bug"


LEAVES: tuple[type[SandboxdError], ...] = (
    Invalid,
    NotFound,
    Denied,
    Conflict,
    Busy,
    Unsupported,
    LimitExceeded,
    DeadlineExceeded,
    Unavailable,
    Lost,
    Uncertain,
    Bug,
)
