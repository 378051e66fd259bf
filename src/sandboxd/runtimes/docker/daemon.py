"""What there is to know of a daemon before anything is made with it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandboxd.core.errors import Unavailable
from sandboxd.guest.binary import agent_binary
from sandboxd.runtimes.docker.api import OLDEST, PROBE_PATIENCE_S, Api, Refused
from sandboxd.runtimes.docker.configuration import Placement
from sandboxd.runtimes.docker.instance import Kind

if TYPE_CHECKING:
    from pathlib import Path

_NO_SUCH_IMAGE = 404
MARKER = "marker-"
"""How the names begin of files that are made to be looked for."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """One daemon, as it was found."""

    sentence: str
    runtime: str
    """The program that isolates where nothing else is asked for."""
    programs: dict[str, str]
    """What each of its runtimes executes, by name."""
    storage: str
    agent: Path | None
    """The agent, where the daemon sees our files."""

    def kind(self, runtime: str, program: str) -> Kind:
        """Return what an instance of `program` is; empty for the default."""
        program = program or self.runtime
        return Kind(runtime, f"{runtime}/{program}", self._has_own_kernel(program), self.agent is not None)

    def placement(self, node: str, program: str) -> Placement:
        """Return how new instances are made."""
        return Placement(node, program, self._has_own_kernel(program or self.runtime), self.agent)

    def _has_own_kernel(self, program: str) -> bool:
        return "runsc" in self.programs.get(program, program)


async def find_out(api: Api, *, folder: Path, runtime: str, share_files: str) -> Daemon:
    """Ask a daemon for all of it. Quick, whatever is wrong.

    Raises:
        Unavailable: there is no daemon, it is too old, it lacks `runtime`, or it is not of Linux.
    """
    try:
        version = await api.get("/version", patience_s=PROBE_PATIENCE_S)
        api.version = spoken(version)
        info = await api.get("info", patience_s=PROBE_PATIENCE_S)
    except Refused as refused:
        raise Unavailable(f"the Docker daemon at `{api.address.text}` refuses: {refused.message}") from refused
    if info["OSType"] != "linux":
        raise Unavailable(f"the Docker daemon at `{api.address.text}` runs {info['OSType']}, not linux")
    programs = {name: str(entry.get("path", name)) for name, entry in info["Runtimes"].items()}
    chosen = runtime or info["DefaultRuntime"]
    if chosen not in programs:
        raise Unavailable(f"the Docker daemon has no runtime `{chosen}`", hint=f"it has: {', '.join(sorted(programs))}")
    agent = agent_binary()
    shares = share_files == "yes" or (share_files == "auto" and await _sees(api, agent, folder))
    return Daemon(
        sentence=f"Docker Engine {info['ServerVersion']} with {chosen}, "
        + ("sharing our files" if shares else "to which the agent is uploaded"),
        runtime=chosen,
        programs=programs,
        storage=info["Driver"],
        agent=agent if shares else None,
    )


def spoken(version: dict[str, Any]) -> str:
    """Return the version of the API to speak. Raises Unavailable when the daemon is too old for ours."""
    newest, oldest = (_numbers(version.get(key, "0.0")) for key in ("ApiVersion", "MinAPIVersion"))
    if newest < OLDEST:
        raise Unavailable(
            f"the Docker daemon is too old: version {version.get('Version')} speaks API {version.get('ApiVersion')}",
            hint=f"API {'.'.join(map(str, OLDEST))} (Docker 20.10) or newer is needed",
        )
    return ".".join(map(str, max(OLDEST, oldest)))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


async def _sees(api: Api, agent: Path, folder: Path) -> bool:
    """Say whether the daemon sees our files: it looks for a mount's source before it looks for the image."""
    marker = folder / f"{MARKER}{secrets.token_hex(16)}"
    marker.touch()
    try:
        mounts = [
            {"Type": "bind", "Source": str(source), "Target": f"/{index}", "ReadOnly": True}
            for index, source in enumerate((marker, agent))
        ]
        body = {"Image": "sandboxd.invalid/none:none", "HostConfig": {"Mounts": mounts}}
        await api.post("containers/create", body, patience_s=PROBE_PATIENCE_S)
    except Refused as refused:
        return refused.status == _NO_SUCH_IMAGE
    finally:
        marker.unlink()
    return False
