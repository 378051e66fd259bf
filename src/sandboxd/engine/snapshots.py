"""Saving a paused sandbox into the object store, whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxd.core.errors import Invalid, Unavailable, Unsupported
from sandboxd.core.ids import new_internal_id
from sandboxd.core.records import SnapshotRecord

if TYPE_CHECKING:
    from sandboxd.core.capabilities import Capabilities
    from sandboxd.core.records import SandboxRecord
    from sandboxd.core.spec import SandboxSpec
    from sandboxd.engine.parts import Parts
    from sandboxd.ports.images import Images
    from sandboxd.ports.objects import Objects
    from sandboxd.ports.runtime import Instance
    from sandboxd.ports.state import State

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
_NOTED = (
    "snapshot_id",
    "sandbox_internal_id",
    "owner",
    "runtime",
    "image",
    "image_digest",
    "memory_captured",
    "size_bytes",
    "created_at",
)
"""What a manifest says of its snapshot, as the record has it; the rest follows from where it lies."""
_PIECE = 1024 * 1024


async def save_snapshot(record: SandboxRecord, instance: Instance, parts: Parts, images: Images) -> SnapshotRecord:
    """Write the parts of a paused instance and a manifest into a new folder; return its record, already kept.

    The first part is the file system, the last one memory (or the statement that memory was not captured). The image
    below it is held for as long as there is the snapshot.

    Raises:
        Unavailable: the disk refused.
    """
    name = f"snap-{new_internal_id()}"
    await images.rootfs(record.image_digest, user=name)
    try:
        snapshot = await _save(record, instance, parts.objects, name)
        await parts.state.insert_snapshot(snapshot)
    except OSError as error:
        await images.release(name)
        raise Unavailable(
            f"the snapshot cannot be written: {error.strerror}", hint="look at the node's disk"
        ) from error
    except BaseException:
        await asyncio.shield(images.release(name))
        raise
    return snapshot


async def adopt_snapshots(parts: Parts) -> list[str]:
    """Note the snapshots that a dead server completed and did not note, remove what is incomplete; return its names."""
    removed = []
    known = {snapshot.snapshot_id for snapshot in await parts.state.snapshots()}
    for name in set(await parts.objects.names()) - known:
        snapshot = await asyncio.to_thread(_read, parts.objects.path(name))
        if snapshot is None:
            await parts.objects.delete(name)
            removed.append(name)
        else:
            await parts.state.insert_snapshot(snapshot)
    return removed


async def find_snapshot(spec: SandboxSpec, owner: str, state: State) -> SnapshotRecord | None:
    """Return the snapshot that a spec begins from, if any. Only paths that `snapshot` told this owner are understood.

    Raises:
        Invalid: it names none, or parts of two.
    """
    if not spec.snapshot_path:
        if spec.mem_file_path:
            raise Invalid("`mem_file_path` is set without `snapshot_path`", hint="give both as `snapshot` told them")
        return None
    for snapshot in await state.snapshots(owner=owner):
        if snapshot.snapshot_path == spec.snapshot_path:
            if spec.mem_file_path not in ("", snapshot.mem_file_path):
                raise Invalid("`mem_file_path` belongs to another snapshot than `snapshot_path`")
            return snapshot
    raise Invalid(
        f"there is no snapshot `{spec.snapshot_path[:300]}` on this node", hint="give the path that `snapshot` told"
    )


def begin_from(spec: SandboxSpec, snapshot: SnapshotRecord, runtime: str, capabilities: Capabilities) -> SandboxSpec:
    """Return a spec with what the snapshot says where it is silent.

    Raises:
        Unsupported: the memory of the snapshot is asked for, and this runtime cannot bring it back.
        Invalid: with memory, another command is asked for than the one that goes on.
    """
    spec = replace(spec, image=spec.image or snapshot.image)
    if not has_memory(spec, snapshot):
        return spec
    if runtime != snapshot.runtime or not capabilities.memory_snapshot:
        raise Unsupported(
            f"the snapshot holds memory of runtime `{snapshot.runtime}`, which `{runtime}` cannot bring back here",
            hint="leave `mem_file_path` out to begin from its files alone",
        )
    if spec.command not in ((), snapshot.command):
        raise Invalid(
            "another command is asked for than the one that goes on from the snapshot's memory",
            hint="leave it out, or leave `mem_file_path` out to begin from the files alone",
        )
    return replace(spec, command=snapshot.command)


def has_memory(spec: SandboxSpec, snapshot: SnapshotRecord) -> bool:
    """Say whether a sandbox goes on from the snapshot's memory, not from its files alone."""
    return snapshot.memory_captured and bool(spec.mem_file_path)


class VerifiedParts:
    """Snapshots whose memory was found to be what was saved; each is read once while its files do not change."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, int, int], ...]] = {}
        self._turn = asyncio.Lock()

    async def check(self, snapshot: SnapshotRecord) -> None:
        """Read what was saved besides files, which are verified as they are unpacked.

        Raises:
            Invalid: a part is missing or is not what it was.
        """
        async with self._turn:
            stop = threading.Event()
            try:
                await asyncio.to_thread(self._check, snapshot, stop)
            finally:
                stop.set()

    def _check(self, snapshot: SnapshotRecord, stop: threading.Event) -> None:
        folder = Path(snapshot.snapshot_path).parent
        names = tuple(name for name, _ in snapshot.part_digests[1:])
        try:
            stamp = tuple(
                (facts.st_ino, facts.st_size, facts.st_mtime_ns)
                for facts in map(Path.stat, map(folder.joinpath, names))
            )
            if self._known.get(snapshot.snapshot_id) == stamp:
                return
            digests, _ = _measure(folder, names, stop)
        except OSError as error:
            raise Invalid(f"the snapshot `{snapshot.snapshot_id}` is damaged: {error.strerror}") from error
        if stop.is_set():
            return
        if digests != snapshot.part_digests[1:]:
            raise Invalid(f"the snapshot `{snapshot.snapshot_id}` is damaged: its memory is not what was saved")
        self._known[snapshot.snapshot_id] = stamp


async def _save(record: SandboxRecord, instance: Instance, objects: Objects, name: str) -> SnapshotRecord:
    async with objects.stage(name) as folder:
        saved = await instance.snapshot(folder, memory=instance.saves_memory)
        stop = threading.Event()
        try:
            digests, size = await asyncio.to_thread(_measure, folder, saved.parts, stop)
        finally:
            stop.set()  # a thread does not hear of a cancellation
        folder_after = objects.path(name)
        snapshot = SnapshotRecord(
            snapshot_id=name,
            sandbox_internal_id=record.internal_id,
            owner=record.owner,
            runtime=record.runtime,
            image_digest=record.image_digest,
            snapshot_path=str(folder_after / saved.parts[0]),
            mem_file_path=str(folder_after / saved.parts[-1]),
            memory_captured=saved.memory_captured,
            size_bytes=size,
            created_at=time.time(),
            part_digests=digests,
            image=record.spec.image,
            command=record.spec.command,
        )
        (folder / MANIFEST).write_text(json.dumps(_manifest(record, snapshot), indent=1))
    return snapshot


def _measure(folder: Path, parts: tuple[str, ...], stop: threading.Event) -> tuple[tuple[tuple[str, str], ...], int]:
    size = 0
    digests = []
    for part in parts:
        digest = hashlib.sha256()
        with (folder / part).open("rb") as file:
            while not stop.is_set() and (piece := file.read(_PIECE)):
                digest.update(piece)
                size += len(piece)
        digests.append((part, f"sha256:{digest.hexdigest()}"))
    return tuple(digests), size


def _manifest(record: SandboxRecord, snapshot: SnapshotRecord) -> dict[str, object]:
    return {
        "version": MANIFEST_VERSION,
        "flavour": record.flavour,
        "parts": [{"name": name, "digest": digest} for name, digest in snapshot.part_digests],
        "command": list(snapshot.command),
        **{key: getattr(snapshot, key) for key in _NOTED},
    }


def _read(folder: Path) -> SnapshotRecord | None:
    """Return the record of a saved folder as its manifest tells it; None where there is no whole one."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        parts = tuple((str(part["name"]), str(part["digest"])) for part in manifest["parts"])
        return SnapshotRecord(
            snapshot_path=str(folder / parts[0][0]),
            mem_file_path=str(folder / parts[-1][0]),
            part_digests=parts,
            command=tuple(str(word) for word in manifest["command"]),
            **{key: manifest[key] for key in _NOTED},
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
