"""Saving a paused sandbox into the object store, whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from typing import TYPE_CHECKING

from sandboxd.core.errors import Unavailable
from sandboxd.core.ids import new_internal_id
from sandboxd.core.records import SnapshotRecord

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxd.core.records import SandboxRecord
    from sandboxd.ports.objects import Objects
    from sandboxd.ports.runtime import Instance
    from sandboxd.ports.state import State

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
_PIECE = 1024 * 1024


async def save_snapshot(record: SandboxRecord, instance: Instance, objects: Objects, state: State) -> SnapshotRecord:
    """Write the parts of a paused instance and a manifest into a new folder; return its record, already kept.

    The first part is the file system, the last one memory (or the statement that memory was not captured).

    Raises:
        Unavailable: the disk refused.
    """
    try:
        snapshot = await _save(record, instance, objects)
    except OSError as error:
        raise Unavailable(
            f"the snapshot cannot be written: {error.strerror}", hint="look at the node's disk"
        ) from error
    await state.insert_snapshot(snapshot)
    return snapshot


async def _save(record: SandboxRecord, instance: Instance, objects: Objects) -> SnapshotRecord:
    name = f"snap-{new_internal_id()}"
    async with objects.stage(name) as folder:
        saved = await instance.snapshot(folder)
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
        "snapshot": snapshot.snapshot_id,
        "runtime": record.runtime,
        "flavour": record.flavour,
        "image": record.spec.image,
        "image_digest": record.image_digest,
        "memory_captured": snapshot.memory_captured,
        "created_at": snapshot.created_at,
        "parts": [{"name": name, "digest": digest} for name, digest in snapshot.part_digests],
    }
