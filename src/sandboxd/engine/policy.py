"""What this node allows and what it assumes where a user is silent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sandboxd.core.errors import Invalid, LimitExceeded, Unsupported
from sandboxd.core.spec import MIB

if TYPE_CHECKING:
    from sandboxd.core.capabilities import Capabilities
    from sandboxd.core.spec import SandboxSpec


@dataclass(frozen=True, slots=True)
class Policy:
    """The node's defaults and maxima. Times are seconds; `None` means none."""

    cell: str = "aa"
    strongest_first: tuple[str, ...] = ("container",)
    """The order in which `auto` looks for a runtime that works here."""
    max_memory_bytes: int | None = None
    max_cpus: float | None = None
    max_pids: int | None = None
    default_lifetime_s: float | None = None
    max_lifetime_s: float | None = None
    default_idle_s: float | None = None
    max_idle_s: float | None = None
    max_execution_s: float | None = 24 * 3600.0
    create_timeout_s: float = 60.0
    retention_s: float = 3600.0
    """How long a sandbox that has stopped or was lost stays known."""
    reserved_memory_bytes: int = 256 * MIB
    reserved_disk_bytes: int = 512 * MIB
    """A create is refused as busy when less than this is free on the node."""

    def admit(self, spec: SandboxSpec, runtime: str, capabilities: Capabilities) -> SandboxSpec:
        """Return `spec` with the node's defaults filled in.

        Raises:
            LimitExceeded: it asks for more than this node allows.
            Unsupported: it asks for what the runtime cannot do.
            Invalid: a time is not positive.
        """
        self._check_maxima(spec)
        _check_capabilities(spec, runtime, capabilities)
        return replace(
            spec,
            lifetime_s=_bounded(spec.lifetime_s, self.default_lifetime_s, self.max_lifetime_s, "lifetime"),
            idle_s=_bounded(spec.idle_s, self.default_idle_s, self.max_idle_s, "idle time"),
        )

    def execution_deadline_s(self, asked: float | None) -> float | None:
        """Return how long a command may run: what was asked, but no longer than the node's maximum."""
        if asked is None or self.max_execution_s is None:
            return asked if self.max_execution_s is None else self.max_execution_s
        return min(asked, self.max_execution_s)

    def _check_maxima(self, spec: SandboxSpec) -> None:
        asked = (
            ("memory", spec.limits.memory_bytes, self.max_memory_bytes, " bytes"),
            ("cpus", spec.limits.cpus, self.max_cpus, ""),
            ("pids", spec.limits.pids, self.max_pids, ""),
        )
        for name, value, maximum, unit in asked:
            if maximum is None:
                continue
            if value is None:
                raise LimitExceeded(f"unbounded {name} is not allowed here", hint=f"the maximum is {maximum}{unit}")
            if value > maximum:
                raise LimitExceeded(f"{name} of {value}{unit} is above this node's maximum of {maximum}{unit}")


def _check_capabilities(spec: SandboxSpec, runtime: str, capabilities: Capabilities) -> None:
    if spec.network not in capabilities.networks:
        offered = ", ".join(sorted(capabilities.networks))
        raise Unsupported(f"runtime `{runtime}` has no network mode `{spec.network}`", hint=f"it offers: {offered}")
    if spec.snapshot_path and not capabilities.restore:
        raise Unsupported(f"runtime `{runtime}` cannot make a sandbox from a snapshot")
    if spec.limits.disk_bytes is not None and not capabilities.disk_limit:
        raise Unsupported(f"runtime `{runtime}` cannot limit disk", hint="leave the disk limit out")
    if spec.limits.cpus is not None and not capabilities.cpu_limit:
        raise Unsupported(f"runtime `{runtime}` cannot limit cpus")
    if not capabilities.memory_limit:
        raise Unsupported(f"runtime `{runtime}` cannot limit memory")
    if not capabilities.pids_limit:
        raise Unsupported(f"runtime `{runtime}` cannot limit the number of processes")


def _bounded(asked: float | None, default: float | None, maximum: float | None, name: str) -> float | None:
    value = asked if asked is not None else default
    if value is not None and value <= 0:
        raise Invalid(f"{name} of {value} s is not positive")
    if maximum is None:
        return value
    if value is None:
        return maximum
    if value > maximum:
        raise LimitExceeded(f"{name} of {value} s is above this node's maximum of {maximum} s")
    return value
