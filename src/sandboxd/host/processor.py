"""What this machine's processor can do, as far as programs may have come to rely on it."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Words of the kernel's own among the features: no program asks the processor for them.
_NOT_THE_PROCESSORS = frozenset(
    """
    acc_power amd_dcm aperfmperf arch_perfmon art bts constant_tsc cpb cpuid cpuid_fault cqm_llc cqm_mbm_local
    cqm_mbm_total cqm_occup_llc epb ept ept_ad extd_apicid flexpriority hw_pstate hypervisor ibpb ibrs ibrs_enhanced
    intel_ppin mba nonstop_tsc nonstop_tsc_s3 nopl pebs proc_feedback pti rep_good retpoline ring3mwait rsb_ctxsw sme
    ssbd stibp syscall32 sysenter32 tpr_shadow tsc_known_freq tsc_reliable up user_shstk vmmcall vnmi vpid xtopology
    """.split()  # noqa: SIM905 - read as one would type it
)
_FLAG_LINES = ("flags", "Features")
_CACHE_LINES = ("clflush size",)


@dataclass(frozen=True, slots=True)
class Processor:
    """An architecture, its features by the kernel's words, and the bytes of a cache line (0 where unknown)."""

    machine: str
    features: frozenset[str]
    cache_line: int

    def lacks(self, other: Processor) -> str:
        """Return what a program started on `other` would miss here, as the object of "lacks"; empty for nothing."""
        if other.machine != self.machine:
            return f"the architecture {other.machine}"
        if missing := sorted(other.features - self.features):
            return f"the features {', '.join(missing)}" if len(missing) > 1 else f"the feature {missing[0]}"
        if other.cache_line != self.cache_line:
            return f"cache lines of {other.cache_line} bytes"
        return ""


@cache
def processor() -> Processor:
    """Return this machine's."""
    lines: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        lines.setdefault(name.strip(), value.strip())
    features = next((lines[name] for name in _FLAG_LINES if name in lines), "")
    cache_line = next((int(lines[name]) for name in _CACHE_LINES if name in lines), 0)
    return Processor(platform.machine(), frozenset(features.split()) - _NOT_THE_PROCESSORS, cache_line)
