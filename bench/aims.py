"""What we claim of each runtime, held against what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.cases import AGENT, CYCLE, DESTROY, ENGINE, EXECUTE, OURS, RPC, SHELL, STREAM
from bench.report import print_floor, print_least, print_most
from bench.streaming import SIZE_MIB

if TYPE_CHECKING:
    from bench.measure import Findings

ABOVE_AGENT_MS = 1.0
MEMORY_KIB = 100.0


@dataclass(frozen=True, slots=True)
class Aims:
    """What differs between runtimes. The first three are shares of the reference's median."""

    cycle: float
    execute: float
    destroy: float = 1.0
    stream_mib_s: float = 300


AIMS = {
    "container": Aims(cycle=1.5, execute=1 / 8),
    "gvisor": Aims(cycle=1.5, execute=1 / 4, stream_mib_s=150),
    "docker": Aims(cycle=1.0, execute=1 / 5),
}


def print_aims(runtime: str, found: Findings) -> None:
    """Print each claim about a runtime whose case was measured."""
    aims = AIMS[runtime]
    shares = {CYCLE: (aims.cycle, "run"), DESTROY: (aims.destroy, "kill, delete"), EXECUTE: (aims.execute, "exec")}
    for case, comparison in found.comparisons.items():
        medians = {name: samples.percentile(0.5) for name, samples in comparison.arms.items()}
        what = f"{runtime}: {case}, "
        if case in shares:
            aim, verb = shares[case]
            for arm in (OURS, RPC):
                if arm in medians:
                    share = medians[arm] / medians[found.theirs]
                    print_most(f"{what}{arm} / `{found.theirs} {verb}`", share, aim, "x")
        if SHELL in medians:
            print_floor(f"{what}{SHELL} / `{found.theirs} exec`", medians[SHELL] / medians[found.theirs], "x")
        if AGENT in medians:
            print_most(f"{what}{OURS} above the agent's own", medians[OURS] - medians[AGENT], ABOVE_AGENT_MS, "ms")
        if case == STREAM:
            print_least(f"{what}{ENGINE}", SIZE_MIB * 1000 / medians[ENGINE], aims.stream_mib_s, "MiB/s")
    if found.memory_kib is not None:
        print_most(f"{runtime}: server memory for each idle sandbox", found.memory_kib, MEMORY_KIB, "KiB")
