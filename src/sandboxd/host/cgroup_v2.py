"""cgroup v2: one directory for all controllers."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sandboxd.host.cgroups import Cgroup, Usage, fields, kill_each, number, read

if TYPE_CHECKING:
    from pathlib import Path


class CgroupV2(Cgroup):
    """The directory `folder` of the unified hierarchy."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folders(self) -> list[Path]:
        return [self._folder] if self._folder.is_dir() else []

    def usage(self) -> Usage:
        used = number(self._folder / "memory.current")
        read_bytes, written_bytes = self._block_bytes()
        return Usage(
            memory_bytes=max(0, used - fields(self._folder / "memory.stat").get("inactive_file", 0)),
            memory_limit_bytes=number(self._folder / "memory.max"),
            cpu_ns=fields(self._folder / "cpu.stat").get("usage_usec", 0) * 1000,
            pids=number(self._folder / "pids.current"),
            block_read_bytes=read_bytes,
            block_write_bytes=written_bytes,
        )

    def oom_kills(self) -> int:
        return fields(self._folder / "memory.events").get("oom_kill", 0)

    def pids_refusals(self) -> int:
        return fields(self._folder / "pids.events").get("max", 0)

    def limit_pids(self, count: int) -> None:
        (self._folder / "pids.max").write_text(str(count))

    def limit_memory(self, size: int) -> None:
        (self._folder / "memory.max").write_text(str(size))

    def start_freezing(self) -> None:
        (self._folder / "cgroup.freeze").write_text("1")

    def thaw(self) -> None:
        (self._folder / "cgroup.freeze").write_text("0")

    def is_frozen(self) -> bool:
        return fields(self._folder / "cgroup.events").get("frozen", 0) == 1

    def kill(self) -> None:
        try:
            (self._folder / "cgroup.kill").write_text("1")
        except FileNotFoundError:  # before Linux 5.14, or the cgroup is gone
            with suppress(FileNotFoundError):
                kill_each(self)

    def _block_bytes(self) -> tuple[int, int]:
        counts = {"rbytes": 0, "wbytes": 0}
        for word in read(self._folder / "io.stat").split():
            key, _, value = word.partition("=")
            if key in counts:
                counts[key] += int(value)
        return counts["rbytes"], counts["wbytes"]
