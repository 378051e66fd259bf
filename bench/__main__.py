"""The command: measure everything on this machine, print it, and write it down if asked."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cases import AGENT, BURST, OURS, RUNC, Bench, prepared
from bench.report import machine, print_aim, print_comparison, print_machine

if TYPE_CHECKING:
    from bench.measure import Comparison

CASES = ("cycle", "destroy", "execute", "row", "burst", "memory")


def main() -> None:
    """Parse, measure, report."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all unless told")
    parser.add_argument("--rounds", type=int, default=60, help="samples of each arm (default 60)")
    parser.add_argument("--json", type=Path, help="file that takes all figures")
    parser.add_argument("--images", type=Path, default=Path("/var/lib/sandboxd/images"), help="the images folder")
    parser.add_argument("--flavour", choices=("crun", "runc"), default="crun", help="what our server uses (crun)")
    asked = parser.parse_args()
    chosen = asked.cases or list(CASES)
    if unknown := set(chosen) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")

    facts = machine() | {"ours": asked.flavour}
    print_machine(facts)
    with (
        tempfile.TemporaryDirectory(prefix="sandboxd-bench-") as folder,
        prepared(Path(folder), asked.images, asked.flavour) as bench,
    ):
        comparisons = _compare(bench, chosen, asked.rounds)
        memory = bench.memory_kib() if "memory" in chosen else None
    print()
    _print_aims(comparisons, memory)
    if asked.json:
        asked.json.write_text(json.dumps(_record(facts, comparisons, memory), indent=2) + "\n")


def _compare(bench: Bench, chosen: list[str], rounds: int) -> dict[str, Comparison]:
    comparisons: dict[str, Comparison] = {}

    def note(case: str, comparison: Comparison) -> None:
        comparisons[case] = comparison
        print_comparison(case, comparison)

    if "cycle" in chosen:
        note("create + exec + destroy", bench.cycle(rounds))
    if "destroy" in chosen:
        note("destroy", bench.destroy(rounds))
    if "execute" in chosen:
        note("exec", bench.execute(rounds))
    if "row" in chosen:
        note("execs in a row", bench.execute_in_a_row(rounds))
    if "burst" in chosen:
        whole, each = bench.burst(max(1, rounds // 4))
        note(f"{BURST} execs at once, all", whole)
        note(f"{BURST} execs at once, each", each)
    return comparisons


def _print_aims(comparisons: dict[str, Comparison], memory: float | None) -> None:
    def median(case: str, arm: str) -> float:
        return comparisons[case].arms[arm].percentile(0.5)

    if (case := "create + exec + destroy") in comparisons:
        print_aim("create + exec + destroy / `runc run`", median(case, OURS) / median(case, RUNC), 1.5, "x")
    if (case := "destroy") in comparisons:
        print_aim("destroy / kill + `runc delete`", median(case, OURS) / median(case, RUNC), 1.0, "x")
    if (case := "exec") in comparisons:
        print_aim("exec / `runc exec`", median(case, OURS) / median(case, RUNC), 0.125, "x")
        print_aim("a lone exec above the agent's own time", median(case, OURS) - median(case, AGENT), 1.0, "ms")
    if (case := "execs in a row") in comparisons:
        print_aim("an exec in a row above the agent's own", median(case, OURS) - median(case, AGENT), 1.0, "ms")
    if memory is not None:
        print_aim("server memory for each idle sandbox", memory, 100.0, "KiB")


def _record(facts: dict[str, Any], comparisons: dict[str, Comparison], memory: float | None) -> dict[str, Any]:
    return {
        "machine": facts,
        "cases": {
            case: {
                "rounds": comparison.rounds,
                "noisy_rounds": comparison.noisy,
                "arms": {
                    name: {**samples.summary(), "times_ms": [round(taken, 4) for taken in samples.times_ms]}
                    for name, samples in comparison.arms.items()
                },
            }
            for case, comparison in comparisons.items()
        },
        "server_kib_per_idle_sandbox": memory,
    }


if __name__ == "__main__":
    main()
