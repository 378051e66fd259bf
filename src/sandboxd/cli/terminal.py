"""The terminal that somebody sits at."""

from __future__ import annotations

import os
import termios
import tty
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sandboxd.surfaces.native.wire import TerminalBody

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Pass on every key as it is while the block runs; then the terminal is as it was."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        yield
    finally:
        with suppress(termios.error):  # it may have gone
            termios.tcsetattr(descriptor, termios.TCSANOW, before)


def size() -> TerminalBody:
    """Return the size of the terminal, or what is usual where there is none."""
    for descriptor in (1, 0, 2):
        with suppress(OSError):
            found = os.get_terminal_size(descriptor)
            return TerminalBody(found.lines, found.columns)
    return TerminalBody()
