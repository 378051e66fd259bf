"""A channel over a pair of named FIFOs, which any later process can open again."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from sandboxd.core.errors import Unavailable
from sandboxd.guest.descriptors import READ_SIZE, DescriptorChannel

if TYPE_CHECKING:
    from pathlib import Path


def make_fifos(folder: Path) -> tuple[Path, Path]:
    """Make the FIFO to a guest and the one from it in `folder`, for their owner alone, and return both."""
    fifos = folder / "to-guest", folder / "from-guest"
    for fifo in fifos:
        os.mkfifo(fifo, 0o600)
    return fifos


class FifoChannel(DescriptorChannel):
    """Both FIFOs are opened to read and write, so neither side ever meets an end or a broken pipe."""

    def __init__(self, to_guest: Path, from_guest: Path) -> None:
        super().__init__()
        self._to_guest = to_guest
        self._from_guest = from_guest

    def _open_descriptors(self) -> tuple[int, int]:
        with ExitStack() as undo:
            reading = _open_fifo(self._from_guest)
            undo.callback(os.close, reading)
            writing = _open_fifo(self._to_guest)
            with suppress(OSError):  # A full pipe or a used-up allowance: the size it has works too.
                fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, READ_SIZE)
            undo.pop_all()
        return reading, writing


def _open_fifo(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise Unavailable(f"cannot open the channel to the guest at `{path}`: {error.strerror}") from error
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unavailable(f"cannot open the channel to the guest at `{path}`: it is not a FIFO")
    return descriptor
