"""User namespaces as values: a descriptor that stands for a mapping of ids, holding no process."""

from __future__ import annotations

import errno
import os
import signal
from collections import OrderedDict

from sandboxd.host import spawn

IDS = 65_536
"""How many ids a range holds."""
_KEPT = 64


def make(base: int) -> int:
    """Return a descriptor of a new user namespace that maps 0..65535 to `base`.. on the host; takes 2 ms or so.

    The namespace lives as long as the descriptor and what is made with it.

    Raises:
        OSError: the machine allows no user namespaces, or not these ids.
    """
    # `cat` echoes a byte only once `unshare` has made the namespace and executed it: there is nothing to poll.
    to_child, asked = os.pipe()
    answered, from_child = os.pipe()
    try:
        pid = spawn.start(["unshare", "--user", "cat"], spawn.Streams(to_child, from_child, 2))
    finally:
        os.close(to_child)
        os.close(from_child)
    try:
        os.write(asked, b".")
        if os.read(answered, 1) != b".":
            raise PermissionError(errno.EPERM, "the machine refuses it", "make a user namespace")
        for kind in ("uid_map", "gid_map"):
            _write(f"/proc/{pid}/{kind}", f"0 {base} {IDS}\n")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(asked)
        os.close(answered)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, "map ids into a user namespace") from error
    finally:
        os.close(fd)


class UserNamespaces:
    """Descriptors by range, made when first asked for; the least recently used are let go."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._fds: OrderedDict[int, int] = OrderedDict()

    def fd(self, base: int) -> int:
        """Return the descriptor of the range's namespace; it stays ours and is valid until the next call."""
        if base not in self._fds:
            self._fds[base] = make(base)
            if len(self._fds) > self._kept:
                os.close(self._fds.popitem(last=False)[1])
        self._fds.move_to_end(base)
        return self._fds[base]

    def close(self) -> None:
        """Let go of all of them."""
        while self._fds:
            os.close(self._fds.popitem()[1])
