"""What a user asks for: a sandbox, or a process in one. Frozen values with their own checks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from sandboxd.core.errors import Invalid

MIB = 1024 * 1024
MINIMUM_MEMORY = 8 * MIB
MOST_MEMORY_MB = 1 << 24
MAXIMUM_REQUEST = 1 * MIB
"""Most bytes that argv, environment and working directory of one process may take together."""


class PullPolicy(StrEnum):
    """When a registry is asked for an image: when it is not here, each time whether it has changed, or never."""

    MISSING = "missing"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Limits:
    """Ceilings, not reservations. `None` means the node's own default or no ceiling where the node sets none."""

    memory_bytes: int = 512 * MIB
    cpus: float | None = 1.0
    pids: int = 512
    disk_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.memory_bytes < MINIMUM_MEMORY:
            raise Invalid(f"memory of {self.memory_bytes} bytes is below the minimum of {MINIMUM_MEMORY}")
        if self.cpus is not None and not 0.01 <= self.cpus <= 1024:  # noqa: PLR2004 - the sentence names both
            raise Invalid(f"cpus of {self.cpus} is not between 0.01 and 1024")
        if self.pids < 4:  # noqa: PLR2004 - the sentence names it
            raise Invalid(f"a limit of {self.pids} processes is below the minimum of 4")
        if self.disk_bytes is not None and self.disk_bytes < MIB:
            raise Invalid(f"disk of {self.disk_bytes} bytes is below the minimum of {MIB}")

    def adjusted(self, *, memory_mb: int | None, cpu_cores: float | None) -> Limits:
        """Return these limits with a user's wishes in them; `None` wishes nothing, and neither do 0 MiB.

        0 cores mean no ceiling.

        Raises:
            Invalid: a wish is outside what any node takes.
        """
        if memory_mb is not None and not 0 <= memory_mb <= MOST_MEMORY_MB:
            raise Invalid(f"`memory_mb` of {memory_mb} is not between 0 and {MOST_MEMORY_MB}")
        return replace(
            self,
            memory_bytes=memory_mb * MIB if memory_mb else self.memory_bytes,
            cpus=self.cpus if cpu_cores is None else cpu_cores or None,
        )


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """Rows and columns of a terminal."""

    rows: int = 24
    columns: int = 80


@dataclass(frozen=True, slots=True)
class ResourceLimit:
    """One rlimit: the kernel's number of the resource, its soft and its hard value."""

    resource: int
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A command to run in a guest.

    `env` is added to the image's environment; `cwd` and `user` left empty mean the image's. `user` is a name or a
    number, optionally `:group`. `terminal` joins output into one channel. `deadline_s` is counted inside the guest:
    when it passes, the process and every descendant are killed. `attached` output waits for its reader; detached
    output goes to a bounded ring that drops its oldest bytes.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = ""
    user: str = ""
    stdin: bool = False
    terminal: TerminalSize | None = None
    rlimits: tuple[ResourceLimit, ...] = ()
    deadline_s: float | None = None
    attached: bool = True

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0]:
            raise Invalid("the command is empty", hint="give at least the program to run")
        texts = [*self.argv, self.cwd, self.user, *(f"{key}={value}" for key, value in self.env)]
        if any("\0" in text for text in texts):
            raise Invalid("the command, its environment or its directory holds a NUL character")
        if any(not key or "=" in key for key, _ in self.env):
            raise Invalid("an environment variable's name is empty or holds `=`")
        size = sum(len(text.encode(errors="surrogateescape")) + 1 for text in texts)
        if size > MAXIMUM_REQUEST:
            raise Invalid(f"the command takes {size} bytes, more than the {MAXIMUM_REQUEST} allowed")
        if self.deadline_s is not None and self.deadline_s <= 0:
            raise Invalid(f"a deadline of {self.deadline_s} s has already passed")


@dataclass(frozen=True, slots=True)
class PythonSource:
    """Source to run with the sandbox's python3, or with ours where the image has none."""

    code: str


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """A sandbox to make.

    `runtime` is what the user said (`container`, `auto`, …). An empty `command` keeps the sandbox alive with the
    agent alone. `lifetime_s` and `idle_s` of `None` mean the node's defaults. `entrypoint` says whether the image's
    entrypoint is put before `command`. `snapshot_path` and `mem_file_path` name a snapshot to begin from, as `snapshot`
    told them; an empty `image` then means the one it was made of.
    """

    runtime: str
    image: str
    command: tuple[str, ...] = ()
    entrypoint: bool = False
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = ""
    user: str = ""
    limits: Limits = field(default_factory=Limits)
    network: str = "offline"
    lifetime_s: float | None = None
    idle_s: float | None = None
    public_id: str | None = None
    surface: str = ""
    snapshot_path: str = ""
    mem_file_path: str = ""
