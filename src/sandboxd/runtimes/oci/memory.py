"""Memory in a snapshot: written while the sandbox stands still, and looked at before anything is made from it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from sandboxd.core.errors import Invalid, Unavailable, Unsupported
from sandboxd.core.parts import MEMORY
from sandboxd.core.spec import MIB
from sandboxd.host.own_memory import available_bytes
from sandboxd.host.processor import Processor, processor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack
    from pathlib import Path

# The program wants these names.
KERNEL = "checkpoint.img"
PAGES = "pages.img"
PAGES_TABLE = "pages_meta.img"
PARTS = (KERNEL, PAGES_TABLE, PAGES)

_FORMAT = 1
_MAGIC = b"gVisorSF"
_LENGTHS = 16
_LONGEST_HEADER = 1 * MIB
_KERNEL_ITSELF = 16 * MIB
"""What a kernel takes besides its processes' memory."""
_TIMES_OWN, _TIMES_UNLINKED = 16, 18
"""How much a kernel takes while it writes what it holds itself, and files without a name; measured, with margin."""
_TIMES_STATE = 12
"""How much it takes while it reads its state again."""
_PART_OF_MACHINE = 2


@dataclass(frozen=True, slots=True)
class Origin:
    """What must be the same for memory to be brought back."""

    runtime: str
    flavour: str
    agent: str
    """The digest of the agent's program."""
    pids: int
    """The limit on processes, which is in force inside and part of the memory."""


def needed_to_save(*, own_bytes: int, unlinked_bytes: int) -> int:
    """Return how much memory a kernel may take in addition while it saves itself.

    `own_bytes` is what it holds itself, `unlinked_bytes` what files without a name hold that are open inside.
    """
    return _KERNEL_ITSELF + _TIMES_OWN * own_bytes + _TIMES_UNLINKED * unlinked_bytes


def needed_to_restore(statement: Path) -> int:
    """Return how much memory a kernel may take until it has brought this back.

    Raises:
        Invalid: see `refuse_what_cannot_be_restored`.
    """
    saved = _read(statement)
    return _KERNEL_ITSELF + saved.pages_bytes + _TIMES_STATE * saved.state_bytes


def lend(limit_bytes: int, needed_bytes: int) -> int:
    """Return a limit under which so much fits, for a while.

    Raises:
        Unsupported: the machine has not so much.
    """
    more = needed_bytes - limit_bytes
    if more > (most := available_bytes() // _PART_OF_MACHINE):
        raise Unsupported(
            f"the sandbox may need {more} bytes of memory for that beyond its limit, and this node can lend {most}",
            hint="let it close files without a name, pipes and sockets that hold much, or use a larger node",
        )
    return max(limit_bytes, needed_bytes)


def create_parts(folder: Path, opened: ExitStack) -> list[int]:
    """Make the files of memory in a folder, open until `opened` ends. Raises OSError."""
    files = []
    for name in PARTS:
        files.append(os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        opened.callback(os.close, files[-1])
    return files


def note(folder: Path, origin: Origin, files: Sequence[int]) -> None:
    """Write down whose memory those files hold, and where it can go on.

    Raises:
        Unavailable: they are not in the form that we know.
        OSError: the disk refused.
    """
    statement = _statement(origin, _version(os.pread(files[0], _LONGEST_HEADER, 0)), files)
    (folder / MEMORY).write_text(json.dumps(statement, indent=1))


def _version(state: bytes) -> str:
    """Return which program wrote a kernel's state, of which this is the beginning.

    Raises:
        Unavailable: it is not in the form that we know.
    """
    try:
        length = int.from_bytes(state[len(_MAGIC) : _LENGTHS], "big")
        if state.startswith(_MAGIC):
            return str(json.loads(state[_LENGTHS : _LENGTHS + length])["runsc_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"the memory was written in an unknown form: {error!r}") from error
    raise Unavailable("the memory was written in an unknown form")


def _statement(origin: Origin, version: str, files: Sequence[int]) -> dict[str, object]:
    here = processor()
    return {
        "memory_captured": True,
        "format": _FORMAT,
        **asdict(origin),
        "version": version,
        "machine": here.machine,
        "features": sorted(here.features),
        "cache_line": here.cache_line,
        "sizes": {name: os.fstat(file).st_size for name, file in zip(PARTS, files, strict=True)},
    }


def refuse_what_cannot_be_restored(statement: Path, here: Origin, version: str, limit_bytes: int) -> None:
    """Look at memory that shall be brought back by the program of this version, in `here`'s circumstances.

    Raises:
        Invalid: `statement` is not the memory part of a snapshot that has memory.
        Unsupported: it cannot be brought back here.
    """
    saved = _read(statement)
    for name, what, hint in _MUST_EQUAL:
        if (then := getattr(saved.origin, name)) != (now := getattr(here, name)):
            raise Unsupported(f"the snapshot's memory is of {what} `{then}`, and this is `{now}`", hint=hint)
    if saved.version != version:
        raise Unsupported(
            f"the snapshot's memory was written by {here.flavour} {saved.version}, and here is {version}",
            hint="restore its files alone, or use that version",
        )
    if lacking := processor().lacks(saved.processor):
        raise Unsupported(
            f"this node's processor lacks {lacking}, on which the snapshot's processes may rely",
            hint="restore it on a node like the one that it was made on",
        )
    if (needed := saved.pages_bytes + _KERNEL_ITSELF) > limit_bytes:
        raise Unsupported(
            f"the snapshot's memory needs {needed} bytes, and the sandbox shall have {limit_bytes}",
            hint="ask for more memory",
        )


_MUST_EQUAL = (
    ("runtime", "runtime", "restore it there, or its files alone"),
    ("flavour", "program", "restore its files alone"),
    ("agent", "an agent with digest", "restore its files alone, or use the version of sandboxd that made it"),
    ("pids", "a limit on processes of", "ask for that limit: it is part of the memory"),
)


@dataclass(frozen=True, slots=True)
class _Saved:
    origin: Origin
    version: str
    processor: Processor
    state_bytes: int
    pages_bytes: int


def _read(statement: Path) -> _Saved:
    """Read what was said of memory whose files are all there, and of the sizes that they had."""
    try:
        said = json.loads(statement.read_text())
        if said["memory_captured"] is True and said["format"] == _FORMAT and said["sizes"] == _sizes(statement.parent):
            return _Saved(
                Origin(**{field.name: said[field.name] for field in fields(Origin)}),
                said["version"],
                Processor(said["machine"], frozenset(said["features"]), said["cache_line"]),
                said["sizes"][KERNEL],
                said["sizes"][PAGES],
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Invalid(f"`{statement.name}` of the snapshot cannot be understood: {error!r}") from error
    raise Invalid("the snapshot holds no memory, or not all of it", hint="restore its files alone")


def _sizes(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_size for name in PARTS}
