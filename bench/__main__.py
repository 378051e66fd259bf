"""The command: measure everything on this machine, print it, and write it down if asked."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import docker, images
from bench.aims import print_aims
from bench.cases import BURST, CYCLE, DESTROY, EXECUTE, ROWS, STREAM, Bench, prepared
from bench.measure import Findings
from bench.report import machine, print_comparison, print_machine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.measure import Comparison

DOCKER_CASES = ("docker-cycle", "docker-execute")
KINDS = ("cycle", "destroy", "execute", "row", "burst", "memory", "stream")
CASES = (
    *KINDS,
    *(f"gvisor-{kind}" for kind in ("cycle", "destroy", "execute", "row", "stream")),
    *DOCKER_CASES,
    "images",
)
FLAVOURS = {"container": ("crun", "runc"), "gvisor": ("runsc", "runsc-ptrace")}


def main() -> None:
    """Parse, measure, report."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all unless told")
    parser.add_argument("--rounds", type=int, default=40, help="samples of each arm (default 40)")
    parser.add_argument("--json", type=Path, help="file that takes all figures")
    parser.add_argument("--images", type=Path, default=Path("/var/lib/sandboxd/images"), help="the images folder")
    for runtime, names in FLAVOURS.items():
        option = "--flavour" if runtime == "container" else f"--{runtime}-flavour"
        told = f"what our server uses for `{runtime}` ({names[0]})"
        parser.add_argument(option, dest=runtime, choices=names, default=names[0], help=told)
    asked = parser.parse_args()
    chosen = asked.cases or list(CASES)
    if unknown := set(chosen) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    flavours = {runtime: getattr(asked, runtime) for runtime in FLAVOURS}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that nothing of ours outlives us

    facts = machine() | {"ours": ", ".join(flavours.values())}
    print_machine(facts)
    found = {runtime: _measure(runtime, chosen, asked.rounds, asked.images, flavours) for runtime in FLAVOURS}
    found[docker.DOCKER] = _measure_docker(chosen, asked.rounds)
    print()
    for runtime, findings in found.items():
        print_aims(runtime, findings)
    unpacking = images.measure() if "images" in chosen else {}
    if asked.json:
        record = {"machine": facts, "runtimes": {runtime: _record(findings) for runtime, findings in found.items()}}
        record["images"] = unpacking
        asked.json.write_text(json.dumps(record, indent=2) + "\n")


def _measure(runtime: str, chosen: list[str], rounds: int, images: Path, flavours: Mapping[str, str]) -> Findings:
    prefix = "" if runtime == "container" else f"{runtime}-"
    kinds = [kind for kind in KINDS if prefix + kind in chosen]
    if not kinds:
        return Findings()
    with (
        tempfile.TemporaryDirectory(prefix="sandboxd-bench-") as folder,
        prepared(Path(folder), images, runtime, flavours) as bench,
    ):
        return _compare(runtime, bench, kinds, rounds)


def _measure_docker(chosen: list[str], rounds: int) -> Findings:
    findings = Findings(docker.DOCKER)
    if not set(chosen) & set(DOCKER_CASES):
        return findings
    with tempfile.TemporaryDirectory(prefix="sandboxd-bench-") as folder, docker.prepared(Path(folder)) as bench:
        measures = ((CYCLE, bench.cycle), (EXECUTE, bench.execute))
        for name, (case, measure) in zip(DOCKER_CASES, measures, strict=True):
            if name in chosen:
                findings.comparisons[case] = measure(rounds)
                print_comparison(f"{docker.DOCKER}: {case}", findings.comparisons[case])
    return findings


def _compare(runtime: str, bench: Bench, kinds: list[str], rounds: int) -> Findings:
    findings = Findings(bench.theirs)

    def note(case: str, comparison: Comparison) -> None:
        findings.comparisons[case] = comparison
        print_comparison(f"{runtime}: {case}", comparison)

    if "cycle" in kinds:
        note(CYCLE, bench.cycle(rounds))
    if "destroy" in kinds:
        note(DESTROY, bench.destroy(rounds))
    if "execute" in kinds:
        note(EXECUTE, bench.execute(rounds))
    if "row" in kinds:
        note(ROWS, bench.execute_in_a_row(max(1, rounds // 2)))
    if "burst" in kinds:
        whole, each = bench.burst(max(1, rounds // 4))
        note(f"{BURST} execs at once, all", whole)
        note(f"{BURST} execs at once, each", each)
    if "stream" in kinds:
        note(STREAM, bench.stream(max(1, rounds // 3)))
    if "memory" in kinds:
        findings.memory_kib = bench.memory_kib()
    return findings


def _record(findings: Findings) -> dict[str, Any]:
    return {
        "cases": {
            case: {
                "rounds": comparison.rounds,
                "noisy_rounds": comparison.noisy,
                "arms": {
                    name: {**samples.summary(), "times_ms": [round(taken, 4) for taken in samples.times_ms]}
                    for name, samples in comparison.arms.items()
                },
            }
            for case, comparison in findings.comparisons.items()
        },
        "server_kib_per_idle_sandbox": findings.memory_kib,
    }


if __name__ == "__main__":
    main()
