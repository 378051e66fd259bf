"""Figures as people and as programs want to read them."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxd.runtimes.oci.flavours import FLAVOURS

if TYPE_CHECKING:
    from bench.measure import Comparison

ROW = "{:<36} {:<20} {:>5} {:>7} {:>9} {:>9} {:>9} {:>9}"


def machine() -> dict[str, str | int | float]:
    """Where the figures were taken."""
    return {
        "cpu": _line("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count() or 0,
        "memory": _line("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "cgroups": "v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1",
        "python": platform.python_version(),
        "uvloop": version("uvloop"),
        "runc": _first_line("runc", "--version"),
        "crun": _first_line("crun", "--version"),
        "docker": _first_line("docker", "--version"),
        "runsc": _first_line(FLAVOURS["runsc"].binary, "--version"),
        "load": os.getloadavg()[0],
        "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def print_machine(facts: dict[str, str | int | float]) -> None:
    """Print where the figures were taken."""
    for name, value in facts.items():
        print(f"{name + ':':<9} {value}")
    print()
    print(ROW.format("case", "arm", "n", "failed", "min ms", "p50 ms", "p95 ms", "p99 ms"))


def print_comparison(case: str, comparison: Comparison) -> None:
    """Print one line an arm, and how many rounds found the machine busy."""
    for name, samples in comparison.arms.items():
        figures = samples.summary()
        times = (f"{figures[key]:.2f}" for key in ("min_ms", "p50_ms", "p95_ms", "p99_ms"))
        print(ROW.format(case, name, figures["n"], figures["failed"], *times), flush=True)
        for failure in sorted(set(samples.failures))[:3]:
            print(f"  failed: {failure}")
    if comparison.noisy:
        print(f"  {comparison.noisy} of {comparison.rounds} rounds began on a busy machine; they are kept")


def print_most(text: str, figure: float, aim: float, unit: str) -> None:
    """Print a claim of at most so much, with its figure."""
    _print_aim(text, figure, f"at most {aim:g}", unit, is_met=figure <= aim)


def print_least(text: str, figure: float, aim: float, unit: str) -> None:
    """Print a claim of at least so much, with its figure."""
    _print_aim(text, figure, f"at least {aim:g}", unit, is_met=figure >= aim)


def print_floor(text: str, figure: float, unit: str) -> None:
    """Print what no server can go below."""
    print(f"{text:<82} {figure:>8.2f} {unit:<5} the floor")


def _print_aim(text: str, figure: float, aim: str, unit: str, *, is_met: bool) -> None:
    print(f"{text:<82} {figure:>8.2f} {unit:<5} aim {aim}: {'met' if is_met else 'missed'}")


def _line(path: str, key: str) -> str:
    lines = Path(path).read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "unknown")


def _first_line(*command: str) -> str:
    try:
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "none"
    return outcome.stdout.partition("\n")[0]
