"""Times of things done in turn, so that what disturbs one disturbs all."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

QUIET_S = 0.05
"""How long the machine is watched before a round: a lone request finds it idle, and so does a sample here."""
QUIET_SHARE = 0.15
QUIET_PATIENCE_S = 0.5


@dataclass(slots=True)
class Samples:
    """Times of one arm in milliseconds, every one that was taken; `failures` says what did not work."""

    times_ms: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """The smallest sample that at least this share of all samples does not exceed."""
        ordered = sorted(self.times_ms)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan

    def summary(self) -> dict[str, float | int]:
        """Count, minimum and percentiles."""
        shares = {"min_ms": 0.0, "p50_ms": 0.50, "p95_ms": 0.95, "p99_ms": 0.99}
        counts = {"n": len(self.times_ms), "failed": len(self.failures)}
        return counts | {name: round(self.percentile(share), 3) for name, share in shares.items()}


@dataclass(slots=True)
class Comparison:
    """The arms of one case, sampled round by round; `noisy` counts rounds begun on a busy machine. They are kept."""

    arms: dict[str, Samples]
    rounds: int = 0
    noisy: int = 0


@dataclass(slots=True)
class Findings:
    """What was measured of one runtime: comparisons by case, and memory of the server for each idle sandbox.

    `theirs` is the arm that ours are compared with.
    """

    theirs: str = ""
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    memory_kib: float | None = None


def interleave(arms: Mapping[str, Callable[[], float]], *, rounds: int, warm_up: int = 3) -> Comparison:
    """Call each arm once a round, the first one changing; an arm returns its own time in milliseconds.

    An arm that raises is counted among its failures, and its time is not invented.
    """
    comparison = Comparison({name: Samples() for name in arms})
    names = list(arms)
    for number in range(-warm_up, rounds):
        quiet = wait_quiet()
        start = number % len(names)
        for name in names[start:] + names[:start]:
            try:
                taken = arms[name]()
            except (OSError, RuntimeError, ValueError) as error:
                comparison.arms[name].failures.append(str(error))
                continue
            if number >= 0:
                comparison.arms[name].times_ms.append(taken)
        if number >= 0:
            comparison.rounds += 1
            comparison.noisy += not quiet
    return comparison


def timed_ms(act: Callable[[], object]) -> float:
    """Do something and return how long it took."""
    before = time.perf_counter_ns()
    act()
    return (time.perf_counter_ns() - before) / 1e6


def wait_quiet() -> bool:
    """Wait until the machine is mostly idle; False when it did not become so in time."""
    deadline = time.monotonic() + QUIET_PATIENCE_S
    while time.monotonic() < deadline:
        before = _busy_and_all()
        time.sleep(QUIET_S)
        after = _busy_and_all()
        if after[0] - before[0] <= QUIET_SHARE * (after[1] - before[1]):
            return True
    return False


def _busy_and_all() -> tuple[int, int]:
    """Clock ticks that all processors have spent busy, and in total."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
