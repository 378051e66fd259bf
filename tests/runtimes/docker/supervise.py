"""Runs `dockerd` apart from everything else: its mounts, its orphans and its end belong to this process.

Commands come on stdin, one a line: `start ARGUMENTS`, `stop`, `kill`; each is answered by a line. At the end of stdin,
or when whoever started us is gone, all of it ends and is removed, the folder that we run in included.
"""

from __future__ import annotations

import ctypes
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
CLONE_NEWNS, MS_REC, MS_PRIVATE, MNT_DETACH = 0x0002_0000, 0x4000, 0x4_0000, 2
PATIENCE_S = 20.0
CGROUPS = Path("/sys/fs/cgroup")
LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Obey until there is nobody to obey."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if LIBC.unshare(CLONE_NEWNS) or LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        raise SystemExit(os.strerror(ctypes.get_errno()))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    supervisor = Supervisor()
    try:
        supervisor.obey()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        supervisor.end_all()
        remove_traces(Path.cwd())


def remove_traces(folder: Path) -> None:
    """Remove the daemon's folder and its cgroups, also where whoever started us was killed."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        place = line.split()[1]
        if place.startswith(f"{folder}/"):
            LIBC.umount2(place.encode(), MNT_DETACH)
    deadline = time.monotonic() + PATIENCE_S
    while left := [path for hierarchy in (CGROUPS, *CGROUPS.iterdir()) for path in _cgroups(hierarchy, folder.name)]:
        for path in left:
            with suppress(OSError):  # what was killed takes a moment to leave it
                path.rmdir()
        if time.monotonic() > deadline:
            break
        time.sleep(0.005)
    shutil.rmtree(folder)


def _cgroups(hierarchy: Path, name: str) -> list[Path]:
    """Return the daemon's cgroups in a hierarchy, the innermost first."""
    return sorted((hierarchy / f"sandboxd-test-{name}").glob("**/"), reverse=True)


class Supervisor:
    """Keeps one daemon, and everything that it leaves to us."""

    def __init__(self) -> None:
        self._daemon = 0
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._waker, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(woken)

    def obey(self) -> None:
        """Carry out commands until there are no more."""
        pending = b""
        while True:
            for ready in select.select([0, self._waker], [], [])[0]:
                if ready == self._waker:
                    os.read(self._waker, 4096)
                    _reap()
                    continue
                piece = os.read(0, 65536)
                if not piece:
                    return
                *lines, pending = (pending + piece).split(b"\n")
                for line in lines:
                    self._carry_out(shlex.split(line.decode()))
                    os.write(1, b"done\n")

    def end_all(self) -> None:
        """End the daemon as it likes, then whatever is left below us."""
        self._end(signal.SIGTERM)
        while children := _children():
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            _reap()
            time.sleep(0.005)

    def _carry_out(self, words: list[str]) -> None:
        match words:
            case ["start", *arguments]:
                with open("dockerd.log", "ab") as log:  # noqa: PTH123 - in our own folder
                    daemon = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                self._daemon = daemon.pid
                daemon.returncode = 0  # reaped by us, not by it
            case ["stop"]:
                self._end(signal.SIGTERM)
            case ["kill"]:
                self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if not self._daemon:
            return
        deadline = time.monotonic() + PATIENCE_S
        os.kill(self._daemon, number)
        while self._daemon in _children():
            _reap()
            if time.monotonic() > deadline:
                os.kill(self._daemon, signal.SIGKILL)
            time.sleep(0.005)
        self._daemon = 0


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as listed:  # noqa: PTH123 - the kernel's
        return [int(word) for word in listed.read().split()]


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    main()
