"""A thread with a mount tree of its own, where root file systems are put together and runtimes are started.

What is mounted there is invisible to the rest of the machine and gone with our process, however that ends. A program
started from the thread sees its tree.
"""

from __future__ import annotations

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from sandboxd.host import syscalls
from sandboxd.host.finish import finish

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

WORKSPACE = Path("/run/sandboxd/mounts")
"""A tmpfs of our own in the private tree (an empty folder on the host), which any user may pass through."""


class PrivateMounts:
    """Runs functions in that thread, one at a time, in order."""

    def __init__(self, hidden: tuple[Path, ...] = ()) -> None:
        """Prepare nothing yet. `hidden` names mounts that shall not exist in the private tree."""
        self._hidden = hidden
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mounts")
        self._ready = False

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function there. Cancellation waits until it has returned, so that no work goes on unseen."""
        return await finish(asyncio.wrap_future(self._executor.submit(self._call, function, *args, **kwargs)))

    def close(self) -> None:
        """End the thread and with it everything mounted. Harmless when repeated."""
        self._executor.shutdown(wait=True)

    def _call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if not self._ready:
            self._prepare()
            self._ready = True
        return function(*args, **kwargs)

    def _prepare(self) -> None:
        WORKSPACE.mkdir(parents=True, exist_ok=True)
        WORKSPACE.parent.chmod(0o755)  # whatever our umask: sandboxes' own users pass through
        syscalls.unshare_mounts()
        for path in self._hidden:
            syscalls.unmount(path)
        syscalls.mount("sandboxd", WORKSPACE, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=711,size=64m")


def copy_into_workspace(source: Path) -> Path:
    """Copy a program into the workspace, where sandboxes' own users can reach it; once per name. For `run`."""
    target = WORKSPACE / source.name
    if not target.exists():
        partial = target.with_suffix(".partial")
        shutil.copyfile(source, partial)
        partial.chmod(0o755)
        partial.rename(target)
    return target
