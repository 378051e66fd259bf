"""Whether an OCI program works on this node, found out by making an instance with it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxd.core.errors import SandboxdError
from sandboxd.core.records import ImageConfig, ImageRecord
from sandboxd.host import spawn
from sandboxd.ports.images import Rootfs, Tree
from sandboxd.ports.runtime import InstanceSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandboxd.ports.runtime import Instance
    from sandboxd.runtimes.oci.flavours import Flavour


async def why_not(
    flavour: Flavour, internal_id: str, state: Path, make: Callable[[InstanceSpec, Flavour], Awaitable[Instance]]
) -> str:
    """Return an empty text when `make` works with this flavour, else a sentence. Nothing is left of the attempt."""
    try:
        with tempfile.TemporaryDirectory(prefix="probe-", dir=state) as lower:
            instance = await make(_spec(internal_id, Path(lower)), flavour)
            await instance.destroy()
    except SandboxdError as error:
        return str(error)
    return ""


async def version(flavour: Flavour) -> str:
    """Return the program's name and version in its own words: `runc version 1.1.5`."""
    result = await spawn.run([flavour.binary, "--version"])
    return result.output.partition(";")[0] if result.status == 0 else flavour.name


def _spec(internal_id: str, lower: Path) -> InstanceSpec:
    image = ImageRecord("probe", "", ImageConfig(), layers=(), size_bytes=0, created_at=0.0)
    return InstanceSpec(internal_id, "probe", Rootfs(image, (Tree("/", (lower,)),), python=()))
