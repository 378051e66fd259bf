"""What is saved of a paused container: its writable layer, and a note that its memory is not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandboxd.core.errors import Unavailable, Unsupported
from sandboxd.core.parts import MEMORY, ROOTFS, without_memory
from sandboxd.host.layer_tar import Subtree, write_layer
from sandboxd.runtimes.docker.api import Refused
from sandboxd.runtimes.docker.committed import write_committed
from sandboxd.runtimes.docker.configuration import NODE

if TYPE_CHECKING:
    from sandboxd.runtimes.docker.api import Api

OURS = frozenset({".sandboxd", ".dockerenv", "dev", "proc", "sys"})

_HIDDEN = ".gvisor.filestore.*"


async def save(
    api: Api, inspected: dict[str, Any], folder: Path, *, runtime: str, flavour: str, is_here: bool
) -> tuple[str, ...]:
    """Write both parts of a snapshot into `folder` and return their names; cancellation stops the writing first.

    Raises:
        LimitExceeded: a path is longer than the kernel takes.
        Unsupported: a file has a name that stands for a removal in a layer, or files lie outside the writable layer.
        Unavailable: Docker could not.
    """
    volumes = [mount["Destination"] for mount in inspected["Mounts"] if mount["Type"] == "volume"]
    if volumes:
        raise Unsupported(
            f"the image keeps `{volumes[0]}` in a volume, which Docker does not save with the sandbox",
            hint="use an image without volumes",
        )
    upper = _upper(inspected) if is_here else None
    if upper is not None and any(upper.glob(_HIDDEN)):
        raise Unsupported(
            f"`{inspected['HostConfig']['Runtime']}` keeps what the sandbox writes where Docker cannot see it",
            hint="configure it with `--overlay2=none`",
        )
    try:
        if upper is not None:
            await write_layer([Subtree("/", upper)], folder / ROOTFS, leave_out=OURS)
        else:
            await write_committed(
                api,
                inspected["Id"],
                inspected["Image"],
                folder / ROOTFS,
                node=inspected["Config"]["Labels"][NODE],
                leave_out=OURS,
            )
    except Refused as refused:
        if "/.wh." in refused.message:
            raise Unsupported(f"a name of a file cannot be saved: {refused.message}") from refused
        raise Unavailable(f"Docker cannot save the sandbox: {refused.message}") from refused
    (folder / MEMORY).write_text(without_memory(runtime, flavour))
    return (ROOTFS, MEMORY)


def _upper(inspected: dict[str, Any]) -> Path | None:
    """Return the folder of the writable layer, where Docker has one and we may read it."""
    driver = inspected["GraphDriver"]
    if driver["Name"] != "overlay2":
        return None
    upper = Path(driver["Data"]["UpperDir"])
    return upper if os.access(upper, os.R_OK | os.X_OK) else None
