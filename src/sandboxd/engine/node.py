"""One node's sandboxes: finds the keeper of each, makes new ones, and sweeps what has run out."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

import structlog

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Conflict, Invalid, NotFound, SandboxdError, Unavailable, Unsupported
from sandboxd.core.ids import check_public_id, new_internal_id, new_sandbox_id
from sandboxd.core.lifecycle import State, Verb
from sandboxd.core.records import SandboxRecord
from sandboxd.core.spec import ProcessSpec, PythonSource
from sandboxd.engine.admission import check_room
from sandboxd.engine.keeper import Keeper
from sandboxd.engine.once import REMEMBERED_S, Draft, Once
from sandboxd.engine.parts import Parts
from sandboxd.engine.recovery import recover
from sandboxd.engine.snapshots import VerifiedParts, begin_from, find_snapshot, has_memory
from sandboxd.ports.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence
    from typing import Self

    from sandboxd.core.events import Output, Truncated
    from sandboxd.core.output import Finished
    from sandboxd.core.records import Metrics, SnapshotRecord
    from sandboxd.core.spec import SandboxSpec
    from sandboxd.engine.inside import Inside
    from sandboxd.engine.policy import Policy
    from sandboxd.ports.engine import ProcessFacts, RunningProcess
    from sandboxd.ports.files import Files
    from sandboxd.ports.images import Images
    from sandboxd.ports.objects import Objects
    from sandboxd.ports.runtime import Runtime
    from sandboxd.ports.state import State as StateFile

SWEEP_INTERVAL_S = 1.0
TRIM_INTERVAL_S = 60.0

_log = structlog.get_logger()


class NodeEngine(Engine):
    """The engine of one state folder. Used as `async with`: entering recovers, leaving lets every sandbox run on.

    `absent` names runtimes that users may ask for and that are not here, each with the sentence of its refusal.
    """

    def __init__(
        self,
        *,
        state: StateFile,
        objects: Objects,
        images: Images,
        runtimes: Mapping[str, Runtime],
        absent: Mapping[str, str],
        policy: Policy,
    ) -> None:
        self._parts = Parts(state=state, objects=objects, images=images, policy=policy)
        self._runtimes = runtimes
        self._absent = absent
        self._keepers: dict[tuple[str, str], Keeper] = {}
        self._touched: dict[str, float] = {}
        self._background = asyncio.TaskGroup()
        self._once = Once(state, self._background)
        self._trimmed_at = 0.0
        self._verified = VerifiedParts()

    async def __aenter__(self) -> Self:
        for keeper in await recover(self._parts, self._runtimes):
            self._keepers[keeper.record.owner, keeper.record.public_id] = keeper
        await self._background.__aenter__()
        self._sweeper = self._background.create_task(self._sweep())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._sweeper.cancel()
        await self._once.leave()
        await self._background.__aexit__(None, None, None)
        try:
            await self._note_activity()
        except SandboxdError as error:
            _log.warning("activity could not be noted", error=str(error))
        await asyncio.gather(*(keeper.leave() for keeper in self._keepers.values()))

    # ---- asking ---------------------------------------------------------------------------------------------------

    async def create(self, owner: str, spec: SandboxSpec, *, key: str = "") -> SandboxRecord:
        prepare = partial(self._prepare, owner, spec)
        if key:
            return await self._once.create(owner, spec, key, find=self._facts_of, prepare=prepare)
        return await (await prepare()).make()

    async def _prepare(self, owner: str, spec: SandboxSpec) -> Draft:
        """Check what was asked, and return what would be made."""
        name, runtime = await self._choose(spec.runtime)
        spec = self._parts.policy.admit(spec, name, runtime.capabilities)
        snapshot = await find_snapshot(spec, owner, self._parts.state)
        if snapshot is not None:
            spec = begin_from(spec, snapshot, name, runtime.capabilities)
            if has_memory(spec, snapshot):
                await self._verified.check(snapshot)
        record = self._new_record(owner, spec, name)
        return Draft(record, make=partial(self._make, record, snapshot), undo=partial(self._undo, record))

    async def _make(self, record: SandboxRecord, snapshot: SnapshotRecord | None) -> SandboxRecord:
        policy = self._parts.policy
        check_room(
            self._parts.objects.path("room").parent,
            memory_bytes=policy.reserved_memory_bytes,
            disk_bytes=policy.reserved_disk_bytes,
        )
        keeper = self._keep(Keeper(record, self._runtimes[record.runtime], self._parts, snapshot=snapshot))
        try:
            await self._parts.state.insert_sandbox(record)
            keeper.begin()
            await keeper.wait_ready()
        except BaseException:
            await asyncio.shield(self._discard(keeper))
            raise
        self._note(keeper.record, "create")
        return keeper.facts()

    async def _undo(self, record: SandboxRecord) -> None:
        """Take away what was made of a draft, if anything was."""
        keeper = self._keepers.get((record.owner, record.public_id))
        if keeper is not None and keeper.record.internal_id == record.internal_id:
            await self._discard(keeper)

    async def get(self, owner: str, sandbox_id: str) -> SandboxRecord:
        return self._find(owner, sandbox_id).facts()

    async def list(self, owner: str) -> list[SandboxRecord]:
        records = [keeper.facts() for (of, _), keeper in self._keepers.items() if of == owner]
        return sorted(records, key=lambda record: record.created_at)

    async def destroy(self, owner: str, sandbox_id: str) -> None:
        keeper = self._find(owner, sandbox_id)
        self._note(keeper.record, "destroy")
        await asyncio.shield(self._bury(keeper, Cause.ASKED, "destroyed by its owner"))

    async def start_process(self, owner: str, sandbox_id: str, spec: ProcessSpec) -> RunningProcess:
        return await self._execute(owner, sandbox_id, spec).start(spec)

    async def start_python(self, owner: str, sandbox_id: str, code: str) -> RunningProcess:
        source = PythonSource(code)
        return await self._execute(owner, sandbox_id, source).start(source)

    async def execute_once(
        self, owner: str, sandbox_id: str, command: ProcessSpec | PythonSource, *, key: str, limit: int
    ) -> Finished:
        def enter() -> tuple[str, Inside]:
            inside = self._execute(owner, sandbox_id, command)
            return self._find(owner, sandbox_id).record.internal_id, inside

        return await self._once.execute(owner, sandbox_id, command, key=key, limit=limit, enter=enter)

    async def processes(self, owner: str, sandbox_id: str) -> Sequence[ProcessFacts]:
        return await self._find(owner, sandbox_id).inside(Verb.EXECUTE, is_activity=False).processes()

    async def collect(self, owner: str, sandbox_id: str, process_id: int) -> RunningProcess:
        keeper = self._find(owner, sandbox_id)
        self._note(keeper.record, "collect", str(process_id))
        return await keeper.inside(Verb.EXECUTE).collect(process_id)

    async def logs(self, owner: str, sandbox_id: str) -> Sequence[Output | Truncated]:
        return await self._find(owner, sandbox_id).logs()

    async def files(self, owner: str, sandbox_id: str) -> Files:
        return self._find(owner, sandbox_id).inside(Verb.USE_FILES).files()

    async def platform_info(self, owner: str, sandbox_id: str) -> dict[str, str]:
        return await self._find(owner, sandbox_id).inside(Verb.EXECUTE).platform()

    async def metrics(self, owner: str, sandbox_id: str) -> Metrics:
        return await self._find(owner, sandbox_id).metrics()

    async def pause(self, owner: str, sandbox_id: str) -> None:
        keeper = self._find(owner, sandbox_id)
        self._require(keeper, "pause", able=self._runtimes[keeper.record.runtime].capabilities.pause)
        self._note(keeper.record, "pause")
        await keeper.pause()

    async def resume(self, owner: str, sandbox_id: str) -> None:
        keeper = self._find(owner, sandbox_id)
        self._note(keeper.record, "resume")
        await keeper.resume()

    async def snapshot(self, owner: str, sandbox_id: str) -> SnapshotRecord:
        keeper = self._find(owner, sandbox_id)
        capabilities = self._runtimes[keeper.record.runtime].capabilities
        self._require(keeper, "snapshot", able=capabilities.filesystem_snapshot or capabilities.memory_snapshot)
        self._note(keeper.record, "snapshot")
        return await keeper.snapshot()

    async def destroy_all(self, reason: str) -> None:
        """End every sandbox of this node: what an operator asks for with `--stop-sandboxes`."""
        keepers = list(self._keepers.values())
        await asyncio.gather(*(self._bury(keeper, Cause.EVICTED, reason) for keeper in keepers))

    # ---- choosing and finding -------------------------------------------------------------------------------------

    async def _choose(self, asked: str) -> tuple[str, Runtime]:
        if asked in self._absent:
            raise Unsupported(self._absent[asked])
        if asked in ("", "auto"):
            return await self._strongest()
        if asked not in self._runtimes:
            known = ", ".join(sorted({"auto", *self._runtimes}))
            raise Invalid(f"unknown sandbox type `{asked[:80]}`", hint=f"this node offers: {known}")
        probe = await self._runtimes[asked].probe()
        if not probe.available:
            raise Unavailable(f"runtime `{asked}` does not work on this node: {probe.sentence}")
        return asked, self._runtimes[asked]

    async def _strongest(self) -> tuple[str, Runtime]:
        reasons = []
        for name in self._parts.policy.strongest_first:
            runtime = self._runtimes.get(name)
            if runtime is None:
                continue
            probe = await runtime.probe()
            if probe.available:
                return name, runtime
            reasons.append(f"{name}: {probe.sentence}")
        raise Unavailable("no runtime works on this node: " + "; ".join(reasons), hint="run `sandboxd doctor`")

    def _new_record(self, owner: str, spec: SandboxSpec, runtime: str) -> SandboxRecord:
        now = time.time()
        cell = self._parts.policy.cell
        return SandboxRecord(
            internal_id=new_internal_id(),
            public_id=new_sandbox_id(cell) if spec.public_id is None else check_public_id(spec.public_id),
            owner=owner,
            node=self._parts.state.node,
            state=State.CREATING,
            spec=spec,
            runtime=runtime,
            created_at=now,
            expires_at=None if spec.lifetime_s is None else now + spec.lifetime_s,
            last_active_at=now,
        )

    def _execute(self, owner: str, sandbox_id: str, command: ProcessSpec | PythonSource) -> Inside:
        keeper = self._find(owner, sandbox_id)
        inside = keeper.inside(Verb.EXECUTE)
        self._note(keeper.record, "execute", command.argv[0] if isinstance(command, ProcessSpec) else "python3")
        return inside

    def _facts_of(self, internal_id: str) -> SandboxRecord | None:
        return next((k.facts() for k in self._keepers.values() if k.record.internal_id == internal_id), None)

    def _find(self, owner: str, sandbox_id: str) -> Keeper:
        keeper = self._keepers.get((owner, sandbox_id))
        if keeper is None:
            raise NotFound(f"sandbox {sandbox_id} not found")
        return keeper

    def _keep(self, keeper: Keeper) -> Keeper:
        key = (keeper.record.owner, keeper.record.public_id)
        if key in self._keepers:
            raise Conflict(f"sandbox {keeper.record.public_id} exists already", hint="choose another id")
        self._keepers[key] = keeper
        return keeper

    def _require(self, keeper: Keeper, verb: str, *, able: bool) -> None:
        if not able:
            raise Unsupported(f"{verb} is not supported by runtime `{keeper.record.runtime}`")

    def _note(self, record: SandboxRecord, verb: str, detail: str = "") -> None:
        self._parts.state.audit(
            owner=record.owner, verb=verb, subject=record.public_id, detail=detail, surface=record.spec.surface
        )

    # ---- ending ---------------------------------------------------------------------------------------------------

    async def _bury(self, keeper: Keeper, cause: Cause, reason: str) -> None:
        await keeper.destroy(cause, reason)
        self._keepers.pop((keeper.record.owner, keeper.record.public_id), None)

    async def _discard(self, keeper: Keeper) -> None:
        """Undo a create that failed or was given up."""
        try:
            await self._bury(keeper, Cause.ASKED, "its creation was given up")
        except SandboxdError as error:
            _log.warning("a failed create left something behind", error=str(error))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            now = time.time()
            await _survived(self._note_activity(), "activity could not be noted")
            if now >= self._trimmed_at + TRIM_INTERVAL_S:
                self._trimmed_at = now
                await _survived(self._once.trim(), "old calls could not be forgotten")
            for keeper in list(self._keepers.values()):
                await _survived(self._sweep_one(keeper, now), f"sweeping {keeper.record.public_id} failed")

    async def _sweep_one(self, keeper: Keeper, now: float) -> None:
        record = keeper.record
        if record.expires_at is not None and record.expires_at <= now:
            self._note(record, "expire")
            await self._bury(keeper, Cause.DEADLINE, "its lifetime ran out")
        elif not _is_idle(keeper, now):
            await keeper.forget_uncertain(now - REMEMBERED_S)
        elif await keeper.has_work():
            keeper.touch()
        else:
            self._note(record, "idle")
            await keeper.stop(Cause.IDLE, f"nothing happened for {record.spec.idle_s:g} s")

    async def _note_activity(self) -> None:
        fresh = {keeper.record.internal_id: keeper.active_at for keeper in self._keepers.values()}
        changed = {key: at for key, at in fresh.items() if self._touched.get(key) != at}
        if changed:
            await self._parts.state.touch_sandboxes(changed)
        self._touched = fresh


async def _survived(step: Awaitable[None], complaint: str) -> None:
    """Do one thing of many that recur: whatever goes wrong is told, and nothing else suffers from it."""
    try:
        await step
    except (SandboxdError, OSError, TimeoutError) as error:
        _log.warning(complaint, error=str(error))
    except Exception:  # noqa: BLE001 - it would end every sandbox's sweep, and the server with it
        _log.exception(complaint)


def _is_idle(keeper: Keeper, now: float) -> bool:
    record = keeper.record
    if record.state is not State.RUNNING or record.spec.idle_s is None or keeper.is_busy:
        return False
    return keeper.active_at + record.spec.idle_s <= now
