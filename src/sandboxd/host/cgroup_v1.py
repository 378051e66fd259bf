"""cgroup v1: one directory in each controller's own hierarchy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxd.host.cgroups import Cgroup, Usage, fields, kill_each, number, read

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_UNLIMITED = 1 << 62


class CgroupV1(Cgroup):
    """`name` is the path below every hierarchy's root; `roots` are those roots by controller."""

    def __init__(self, roots: Mapping[str, Path], name: str) -> None:
        self._folders = {controller: root / name for controller, root in roots.items()}

    def folders(self) -> list[Path]:
        return [folder for folder in dict.fromkeys(self._folders.values()) if folder.is_dir()]

    def usage(self) -> Usage:
        memory = self._folders["memory"]
        used = number(memory / "memory.usage_in_bytes")
        limit = number(memory / "memory.limit_in_bytes")
        block = self._block_bytes()
        return Usage(
            memory_bytes=max(0, used - fields(memory / "memory.stat").get("total_inactive_file", 0)),
            memory_limit_bytes=limit if limit < _UNLIMITED else 0,
            cpu_ns=number(self._folders["cpuacct"] / "cpuacct.usage"),
            pids=number(self._folders["pids"] / "pids.current"),
            block_read_bytes=block["Read"],
            block_write_bytes=block["Write"],
        )

    def oom_kills(self) -> int:
        return fields(self._folders["memory"] / "memory.oom_control").get("oom_kill", 0)

    def pids_refusals(self) -> int:
        return fields(self._folders["pids"] / "pids.events").get("max", 0)

    def limit_pids(self, count: int) -> None:
        (self._folders["pids"] / "pids.max").write_text(str(count))

    def limit_memory(self, size: int) -> None:
        memory = self._folders["memory"]
        files = [memory / "memory.limit_in_bytes", memory / "memory.memsw.limit_in_bytes"]
        if size > number(files[0]):  # memory is never more than memory and swap
            files.reverse()
        for file in files:
            if file.exists():
                file.write_text(str(size))

    def start_freezing(self) -> None:
        (self._folders["freezer"] / "freezer.state").write_text("FROZEN")

    def thaw(self) -> None:
        (self._folders["freezer"] / "freezer.state").write_text("THAWED")

    def is_frozen(self) -> bool:
        return read(self._folders["freezer"] / "freezer.state").strip() == "FROZEN"

    def kill(self) -> None:
        kill_each(self)
        if read(self._folders["freezer"] / "freezer.state").strip() not in ("THAWED", ""):
            self.thaw()  # here a frozen process dies only once it is thawed

    def _block_bytes(self) -> dict[str, int]:
        total = {"Read": 0, "Write": 0}
        for line in read(self._folders["blkio"] / "blkio.throttle.io_service_bytes_recursive").splitlines():
            match line.split():
                case [_device, ("Read" | "Write") as direction, count]:
                    total[direction] += int(count)
        return total
