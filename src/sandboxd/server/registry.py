"""Who is plugged in: the runtimes by the names that users say, as dotted names of their classes."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sandboxd.core.errors import Bug, Invalid, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sandboxd.ports.images import Images
    from sandboxd.ports.runtime import Runtime
    from sandboxd.server.settings import Settings

AUTOMATIC = frozenset({"", "auto"})
"""What users say to get the node's default, and operators to get the strongest that works."""

Options = dict[str, Any]


def _oci(settings: Settings, node: str, _store: Images | None) -> Options:
    return {"folder": settings.state, "node": node, "flavours": settings.runtime.flavours}


def _runsc(settings: Settings, node: str, _store: Images | None) -> Options:
    # What the two make lies apart, so that each finds its own again.
    return {"folder": settings.state / "gvisor", "node": f"{node}-gvisor", "flavours": settings.runtime.gvisor_flavours}


def _docker(settings: Settings, node: str, store: Images | None) -> Options:
    wishes = settings.docker
    return {
        "folder": settings.state / "docker",
        "node": node,
        "store": store,
        "host": wishes.host,
        "runtime": wishes.runtime,
        "share_files": wishes.share_files,
    }


PRESENT: Mapping[str, tuple[str, Callable[[Settings, str, Images | None], Options]]] = {
    "gvisor": ("sandboxd.runtimes.oci.runtime:OciRuntime", _runsc),
    "container": ("sandboxd.runtimes.oci.runtime:OciRuntime", _oci),
    "docker": ("sandboxd.runtimes.docker.runtime:DockerRuntime", _docker),
}
"""Each runtime's class, called with `name` and what the function makes of the settings, the node id and the node's own
image store; the strongest wall first."""

ASKED_FOR = frozenset({"docker"})
"""Runtimes that `auto` never means: what they need belongs to somebody else."""

_MICROVM = "boots a kernel of its own, and this version of sandboxd cannot do that; ask for `gvisor`"

ABSENT: Mapping[str, str] = {
    "firecracker": f"runtime `firecracker` {_MICROVM}",
    "linux-firecracker": f"runtime `linux-firecracker` {_MICROVM}",
    "linux-kvm": f"runtime `linux-kvm` {_MICROVM}",
    "macos-vz": "runtime `macos-vz` needs a node that runs macOS; ask for `auto`",
}
"""Names that users know and this version lacks, each with the sentence of its refusal."""


def runtimes(settings: Settings, node: str, store: Images | None = None) -> dict[str, Runtime]:
    """Make every runtime that is here, by name. None is probed yet. `store` holds the node's own images.

    Raises:
        Invalid: `runtime.default` is no runtime.
        Unsupported: `runtime.default` is one that this version lacks.
    """
    choose("auto", settings)
    return {name: _make(name, settings, node, store) for name in PRESENT}


def choose(asked: str, settings: Settings) -> tuple[str, ...]:
    """Return the runtimes that a user's word means: the first of them that works here is taken.

    Raises:
        Invalid: nobody knows the word.
        Unsupported: it is a runtime that this version lacks; never is another taken in its place.
    """
    name = settings.runtime.default if asked in AUTOMATIC else asked
    if name in AUTOMATIC:
        return tuple(name for name in PRESENT if name not in ASKED_FOR)
    if name in PRESENT:
        return (name,)
    if name in ABSENT:
        raise Unsupported(ABSENT[name])
    close = difflib.get_close_matches(name, [*PRESENT, *ABSENT], n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"this node offers: {', '.join(['auto', *PRESENT])}"
    raise Invalid(f"there is no runtime `{name[:80]}`", hint=hint)


def _make(name: str, settings: Settings, node: str, store: Images | None) -> Runtime:
    dotted, options = PRESENT[name]
    module, _, attribute = dotted.partition(":")
    try:
        maker = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise Bug(f"runtime `{name}` cannot be loaded: {error}") from error
    runtime: Runtime = maker(name=name, **options(settings, node, store))
    return runtime
