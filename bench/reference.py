"""What we compare with: an OCI program on the bundle of one of our own sandboxes, as fast as its commands allow.

The bundle is mounted beforehand and only once, which is to the reference's advantage: our own create pays for it. The
root file system, namespaces, limits, seccomp profile and mounts are the same; only what runs inside differs, since
there is no agent. Programs are started with posix_spawn and awaited by the kernel's word, never by polling; orphans are
reaped at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.measure import timed_ms
from bench.serving import IMAGE
from bench.streaming import SIZE_MIB, WRITE
from bench.worker import answer_forever
from sandboxd.core.spec import MIB
from sandboxd.guest.binary import agent_binary
from sandboxd.host import syscalls, userns
from sandboxd.host.private_mounts import WORKSPACE
from sandboxd.host.spawn import tail
from sandboxd.images.store import ImageStore
from sandboxd.runtimes.oci import disk, rootfs
from sandboxd.runtimes.oci.flavours import FLAVOURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandboxd.ports.images import Rootfs

NAME = "bench-reference"
IDLE = ["/bin/sleep", "1000000"]
TRUE = ["/bin/true"]
READ_SIZE = 256 * 1024


class Reference:
    """A program and two bundles: one whose command is `true`, one that idles."""

    def __init__(self, folder: Path, flavour: str, donor: dict[str, Any], image: Rootfs) -> None:
        self._folder = folder
        self._command = FLAVOURS[flavour].command(str(folder / "root"), str(folder / "log"))
        self._runs = 0
        self._base = int(donor["linux"]["uidMappings"][0]["hostID"])
        syscalls.become_subreaper()
        syscalls.unshare_mounts()
        WORKSPACE.mkdir(parents=True, exist_ok=True)
        syscalls.mount("bench", WORKSPACE, "tmpfs", syscalls.MS_NOSUID, "mode=711")
        trees = disk.prepare(folder / "disk", image, NAME)
        namespace = userns.make(self._base)
        rootfs.assemble(NAME, rootfs.Parts(trees, lent=()), userns_fd=namespace, base=self._base)
        os.close(namespace)
        agent = shutil.copy(agent_binary(), WORKSPACE / "agent")
        for name, command in (("true", TRUE), ("idle", IDLE)):
            bundle = folder / name
            bundle.mkdir()
            (bundle / "config.json").write_text(json.dumps(_adapted(donor, command, str(agent), name)))

    def run(self) -> float:
        """`run` of `true`: made, run, removed."""
        self._runs += 1
        return timed_ms(lambda: self._do("run", "--bundle", str(self._folder / "true"), f"{NAME}-{self._runs}"))

    def version(self) -> float:
        """Start the program only to let it say which it is: no command of it can take less."""
        return timed_ms(lambda: self._do("--version"))

    def start(self, name: str) -> None:
        """Start an idle sandbox; not timed."""
        bundle, pid = str(self._folder / "idle"), str(self._folder / f"{name}.pid")
        self._do("run", "--detach", "--pid-file", pid, "--bundle", bundle, name)

    def destroy(self, name: str) -> float:
        """Kill an idle sandbox, wait for its end, and delete it."""
        pid = int((self._folder / f"{name}.pid").read_text())
        return timed_ms(lambda: self._kill_and_delete(name, pid))

    def execute(self, name: str) -> float:
        """`exec` of `true` in an idle sandbox."""
        return timed_ms(lambda: self._do("exec", name, *TRUE))

    def stream(self, name: str) -> float:
        """`exec` of what writes a lot to stdout, a pipe that we read until its end."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, READ_SIZE)
        came = 0
        try:
            before = time.perf_counter_ns()
            pid = self._spawn("exec", name, *WRITE.split(), stdout=writing)
            os.close(writing)
            while data := os.read(reading, READ_SIZE):
                came += len(data)
            self._end("exec", pid)
            taken = (time.perf_counter_ns() - before) / 1e6
        finally:
            os.close(reading)
        if came != SIZE_MIB * MIB:
            raise RuntimeError(f"{came} bytes came")
        return taken

    def burst(self, name: str, width: int) -> list[float]:
        """Many at once: the milliseconds from the start to the end of each."""
        before = time.perf_counter_ns()
        waiting = {self._spawn("exec", name, *TRUE) for _ in range(width)}
        taken = []
        while waiting:
            pid, status = os.waitpid(-1, 0)
            if pid in waiting:
                waiting.remove(pid)
                taken.append((time.perf_counter_ns() - before) / 1e6)
                _check(status, f"one of {width} `exec`", self._folder / "stderr")
        return taken

    def close(self) -> None:
        """Remove the mounts, and the cgroups that the program leaves above its own."""
        rootfs.dismantle(NAME)
        for folder in Path("/sys/fs/cgroup").glob(f"**/{NAME}"):
            folder.rmdir()

    def _kill_and_delete(self, name: str, pid: int) -> None:
        handle = os.pidfd_open(pid)
        try:
            self._do("kill", name, "KILL")
            select.select([handle], [], [])
        finally:
            os.close(handle)
        self._reap_orphans()
        self._do("delete", name)
        self._reap_orphans()

    def _reap_orphans(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def _do(self, *arguments: str) -> None:
        self._end(arguments[0], self._spawn(*arguments))

    def _end(self, verb: str, pid: int) -> None:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        _check(os.waitpid(pid, 0)[1], f"`{verb}`", self._folder / "stderr")

    def _spawn(self, *arguments: str, stdout: int | None = None) -> int:
        null = os.devnull
        to = (os.POSIX_SPAWN_OPEN, 1, null, os.O_WRONLY, 0) if stdout is None else (os.POSIX_SPAWN_DUP2, stdout, 1)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, null, os.O_RDONLY, 0),
            to,
            (os.POSIX_SPAWN_OPEN, 2, str(self._folder / "stderr"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        ]
        command = [*self._command, *arguments]
        return os.posix_spawnp(command[0], command, os.environ, file_actions=actions, setsigdef=(signal.SIGPIPE,))


def _adapted(donor: dict[str, Any], command: Sequence[str], agent: str, name: str) -> dict[str, Any]:
    """The donor's configuration with another program, root mount and cgroup, and nothing else."""
    bundle: dict[str, Any] = json.loads(json.dumps(donor))
    bundle["root"]["path"] = str(rootfs.place_of(NAME))
    bundle["process"]["args"] = list(command)
    bundle["linux"]["cgroupsPath"] = f"/{NAME}/{os.getpid()}-{name}"
    for mount in bundle["mounts"]:
        if mount["source"].startswith(f"{WORKSPACE}/"):
            mount["source"] = agent
    return bundle


def _check(status: int, what: str, stderr: Path) -> None:
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        raise RuntimeError(f"{what} ended with {code}: {tail(stderr)}")


def main(folder: Path, flavour: str, configuration: Path, images: Path) -> None:
    """Answer until told no more."""
    donor = json.loads(configuration.read_text())
    store = ImageStore(images)
    reference = Reference(folder, flavour, donor, asyncio.run(store.rootfs(IMAGE, user=NAME)))
    try:
        answer_forever(
            {
                "run": reference.run,
                "version": reference.version,
                "start": reference.start,
                "destroy": reference.destroy,
                "execute": reference.execute,
                "burst": reference.burst,
                "stream": reference.stream,
            }
        )
    finally:
        reference.close()
        asyncio.run(store.release(NAME))
        store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(Path, sys.argv[3:]))
