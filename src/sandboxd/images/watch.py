"""Sees a pull through: tells how far it is, bounds its time, and ends it when nobody wants it any more."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sandboxd.core.errors import Conflict, DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Callable


class Step(StrEnum):
    """What a pull is doing."""

    WAITING = "waiting for another pull of it"
    ASKING = "asking the registry"
    DOWNLOADING = "downloading"
    UNPACKING = "unpacking"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a step is, in packed bytes of layers; `total` is 0 where that is not known."""

    step: Step
    done: int = 0
    total: int = 0


class Watch:
    """One pull's clock, its stop button, and whoever wants to hear of it. `stop` may be called from any thread."""

    def __init__(self, *, timeout_s: float = 0.0, told: Callable[[Progress], None] | None = None) -> None:
        self._stopped = threading.Event()
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s if timeout_s else float("inf")
        self._told = told

    def stop(self) -> None:
        """Let the pull end at its next check."""
        self._stopped.set()

    def check(self) -> None:
        """Go on, or not.

        Raises:
            DeadlineExceeded: the time is up.
            Conflict: it was stopped.
        """
        if self._stopped.is_set():
            raise Conflict("the pull was given up")
        if time.monotonic() > self._deadline:
            raise DeadlineExceeded(f"the pull did not end within {self._timeout_s:g} s and was given up")

    def pause(self, seconds: float) -> None:
        """Check, then wait for so long, less if stopped."""
        self.check()
        self._stopped.wait(seconds)

    def tell(self, step: Step, done: int = 0, total: int = 0) -> None:
        """Say how far it is."""
        if self._told:
            self._told(Progress(step, done, total))
