"""Where an instance's things lie on disk, and what is noted there for a server after us."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sandboxd.host.pidfd import ProcessName

RECORDS = Path("/run/sandboxd/records")
"""Not in the state folder: it ends with the boot, as the instances do, and its path is short enough for a socket."""


@dataclass(frozen=True, slots=True)
class Birth:
    """What is noted before anything is made.

    `targets` are the trees of the root file system, `pids` is the limit on processes inside,
    `memory_bytes` that on memory.
    """

    flavour: str
    base: int
    targets: tuple[str, ...]
    pids: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one instance. `state` is the state folder."""

    state: Path
    internal_id: str

    @property
    def folder(self) -> Path:
        """All files of the instance, OCI bundle included."""
        return self.state / "instances" / self.internal_id

    @property
    def to_guest(self) -> Path:
        """FIFO of the bytes for the agent."""
        return self.folder / "to-guest"

    @property
    def from_guest(self) -> Path:
        """FIFO of the agent's bytes."""
        return self.folder / "from-guest"

    @property
    def disk(self) -> Path:
        """The writable layers."""
        return self.folder / "disk"

    @property
    def stderr(self) -> Path:
        """What the runtime and the agent said on stderr."""
        return self.folder / "stderr"

    @property
    def log(self) -> Path:
        """The runtime's log."""
        return self.folder / "log"

    @property
    def configuration(self) -> Path:
        """The OCI configuration; the runtime wants this name."""
        return self.folder / "config.json"

    @property
    def pid(self) -> Path:
        """Where the runtime notes the agent's pid."""
        return self.folder / "pid"

    @property
    def _birth(self) -> Path:
        return self.folder / "birth.json"

    @property
    def _process(self) -> Path:
        return self.folder / "process.json"

    @property
    def record(self) -> Path:
        """Where the runtime's program keeps what it knows of the instance."""
        return RECORDS / self.internal_id

    @property
    def control(self) -> Path:
        """Where a kernel of the instance's own takes questions."""
        return self.record / f"runsc-{self.internal_id}.sock"

    def uppers(self) -> list[tuple[str, Path]]:
        """Return the writable layers by the path they have inside."""
        birth = self.birth()
        targets = birth.targets if birth else ()
        return [(target, self.disk / str(index) / "upper") for index, target in enumerate(targets)]

    def note_birth(self, birth: Birth) -> None:
        """Note how the instance is made."""
        self._birth.write_text(json.dumps(asdict(birth)))

    def birth(self) -> Birth | None:
        """Return how the instance was made; None where we died before that was noted."""
        try:
            noted = json.loads(self._birth.read_text())
            return Birth(
                noted["flavour"],
                noted["base"],
                tuple(noted["targets"]),
                noted.get("pids", 0),
                noted.get("memory_bytes", 0),
            )
        except (FileNotFoundError, ValueError):
            return None

    def note_process(self, name: ProcessName) -> None:
        """Note which process the agent is."""
        self._process.write_text(json.dumps(asdict(name)))

    def process(self) -> ProcessName | None:
        """Return which process the agent was; None where we died before that was noted."""
        try:
            return ProcessName(**json.loads(self._process.read_text()))
        except (FileNotFoundError, ValueError):
            return None
