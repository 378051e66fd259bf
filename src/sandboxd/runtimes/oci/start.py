"""How an instance is made, step by step, each of which `OciInstance.destroy` can undo."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from sandboxd.core.errors import Unavailable
from sandboxd.guest.fifo import make_fifos
from sandboxd.host import spawn
from sandboxd.host.finish import finish
from sandboxd.host.pidfd import ProcessName
from sandboxd.host.private_mounts import copy_into_workspace
from sandboxd.runtimes.oci.bundle import AGENT, Placement, configuration
from sandboxd.runtimes.oci.disk import WritableTree, prepare
from sandboxd.runtimes.oci.flavours import FLAVOURS
from sandboxd.runtimes.oci.memory import lend, needed_to_restore
from sandboxd.runtimes.oci.rootfs import Parts, assemble, dismantle, place_of, place_of_lent

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxd.host.cgroup_tree import CgroupTree
    from sandboxd.host.private_mounts import PrivateMounts
    from sandboxd.host.strays import Strays
    from sandboxd.host.userns import UserNamespaces
    from sandboxd.ports.runtime import InstanceSpec
    from sandboxd.runtimes.oci.flavours import Flavour
    from sandboxd.runtimes.oci.layout import Birth, Layout

_PATIENCE_S = 30.0
_OPEN_FILES = 65_536
_LONGEST_LINE = 2000
_TASKS_A_PROCESS = 20
"""How many threads a kernel of its own may need for one process inside, which it limits there itself: with margin."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all instances of a runtime are made with."""

    cgroups: CgroupTree
    mounts: PrivateMounts
    userns: UserNamespaces
    strays: Strays
    agent: Path
    agent_digest: str


async def start(workshop: Workshop, flavour: Flavour, spec: InstanceSpec, layout: Layout, birth: Birth) -> ProcessName:
    """Make and start an instance; return the agent's process.

    Raises:
        Unavailable: the program refused or the kernel did; in its words. What was made so far is left as it is.
    """
    # Meanwhile, so that the program need not wait for it.
    hastened = asyncio.get_running_loop().run_in_executor(None, workshop.cgroups.hasten)
    try:
        # Cancellation is heard between the two, never within: a program cut half-way leaves children nobody knows.
        parts = await finish(asyncio.to_thread(_lay_out, workshop, spec, layout, birth))
        process = await finish(_launch(workshop, flavour, layout, birth, parts, _verb(spec)))
        limit = (spec.limits.pids + 1) * (_TASKS_A_PROCESS if flavour.has_own_kernel else 1)  # 1 is the agent
        workshop.cgroups.cgroup(layout.internal_id).limit_pids(limit)
    except OSError as error:
        raise Unavailable(f"the sandbox could not be made: {error}") from error
    finally:
        await finish(hastened)
    return process


def _verb(spec: InstanceSpec) -> tuple[str, ...]:
    """Return what the program shall do, with the options to it."""
    if spec.memory is None:
        return ("run",)
    # What was different about the other instance is meant to be: its ids, cgroup and limits.
    return ("--restore-spec-validation=ignore", "restore", "--background", "--image-path", str(spec.memory.parent))


async def _launch(
    workshop: Workshop, flavour: Flavour, layout: Layout, birth: Birth, parts: Parts, verb: tuple[str, ...]
) -> ProcessName:
    try:
        status = await _wait(await workshop.mounts.run(_mount_and_spawn, workshop, flavour, layout, birth, parts, verb))
    finally:
        await workshop.mounts.run(dismantle, layout.internal_id)
    if status != 0:
        raise Unavailable(f"{flavour.name} could not start the sandbox: {_words(layout) or f'exit status {status}'}")
    workshop.strays.look()
    process = ProcessName.of(int(layout.pid.read_text()))
    layout.note_process(process)
    return process


def _lay_out(workshop: Workshop, spec: InstanceSpec, layout: Layout, birth: Birth) -> Parts:
    """Make all files of the instance, first of all the note that says what else may exist of it."""
    layout.folder.mkdir(parents=True, mode=0o700)
    layout.note_birth(birth)
    layout.record.mkdir(parents=True, mode=0o700)
    make_fifos(layout.folder)
    trees = prepare(layout.disk, spec.rootfs, spec.hostname)
    _make_agent_place(trees[0])
    lent = [source for source, _ in spec.rootfs.binds]
    placement = Placement(
        root=str(place_of(spec.internal_id)),
        agent=str(place_of(workshop.agent.name)),
        lent=tuple(str(place_of_lent(spec.internal_id, index)) for index in range(len(lent))),
        base=birth.base,
        cgroup=f"{workshop.cgroups.parent}/{spec.internal_id}",
        limits_swap=workshop.cgroups.limits_swap,
        has_own_kernel=FLAVOURS[birth.flavour].has_own_kernel,
        open_files=min(_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
    )
    layout.configuration.write_text(json.dumps(configuration(_lent_memory(spec), placement)))
    return Parts(trees, lent)


def _lent_memory(spec: InstanceSpec) -> InstanceSpec:
    """Return the spec with as much memory as bringing memory back takes; it is taken back once it is not used."""
    if spec.memory is None:
        return spec
    limits = spec.limits
    return replace(spec, limits=replace(limits, memory_bytes=lend(limits.memory_bytes, needed_to_restore(spec.memory))))


def _make_agent_place(top: WritableTree) -> None:
    folder = top.make_directory(PurePosixPath(AGENT).parent)
    if folder is None:
        raise NotADirectoryError(f"`{PurePosixPath(AGENT).parent}` of the image is not a directory")
    (folder / PurePosixPath(AGENT).name).touch()


def _mount_and_spawn(
    workshop: Workshop, flavour: Flavour, layout: Layout, birth: Birth, parts: Parts, verb: tuple[str, ...]
) -> int:
    """Put the root together and start the program in sight of it; return its pid."""
    copy_into_workspace(workshop.agent)
    assemble(layout.internal_id, parts, userns_fd=workshop.userns.fd(birth.base), base=birth.base)
    with ExitStack() as opened:
        streams = spawn.Streams(
            stdin=_open(layout.to_guest, os.O_RDWR, opened),
            stdout=_open(layout.from_guest, os.O_RDWR, opened),
            # A file: the program hands it on to the agent, and a pipe would keep its reader waiting for ever.
            stderr=_open(layout.stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, opened),
        )
        command = flavour.command(str(layout.record), str(layout.log))
        options = ["--detach", "--bundle", str(layout.folder), "--pid-file", str(layout.pid), layout.internal_id]
        return spawn.start([*command, *verb, *options], streams)


def _open(path: Path, flags: int, opened: ExitStack) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    opened.callback(os.close, fd)
    return fd


async def _wait(pid: int) -> int:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await spawn.wait(pid)
    except TimeoutError as error:
        raise Unavailable(f"the runtime did not start the sandbox within {_PATIENCE_S:.0f} s") from error


def _words(layout: Layout) -> str:
    """Return what the program said about its failure: the messages of its log, or (usage may follow) its first line."""
    messages = re.findall(r'"?msg"?[=:]"((?:[^"\\]|\\.)*)"', spawn.tail(layout.log))
    if messages or not layout.stderr.exists():
        return "; ".join(messages)
    with layout.stderr.open(errors="replace") as said:
        return said.readline(_LONGEST_LINE).strip()
