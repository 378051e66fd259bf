"""The keeper of one sandbox: read downward it is the sandbox's life, read upward its death."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Bug, Conflict, Invalid, Lost, NotFound, SandboxdError, Unavailable
from sandboxd.core.lifecycle import State, Verb, after
from sandboxd.engine.inside import Inside
from sandboxd.engine.snapshots import has_memory, save_snapshot
from sandboxd.ports.runtime import InstanceSpec

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from sandboxd.core.events import Output, Truncated
    from sandboxd.core.records import Metrics, SandboxRecord, SnapshotRecord
    from sandboxd.engine.parts import Parts
    from sandboxd.ports.images import Rootfs
    from sandboxd.ports.runtime import Instance, Runtime

RETRY_S = 2.0
LONGEST_ABSENCE_S = 3600.0
"""How long what runs a sandbox may be away when a new server wants the sandbox back."""

_log = structlog.get_logger()
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a life is over, what is reported of it, and whether anything of it shall stay known."""

    verb: Verb
    cause: Cause
    reason: str
    exit_code: int | None = None
    error: SandboxdError | None = None


class Keeper:
    """Owns one sandbox: its task, its instance, its guest and its row.

    `record`, `active_at` and `is_busy` may be read at any time; all that changes the sandbox goes through the
    methods here.
    """

    def __init__(
        self, record: SandboxRecord, runtime: Runtime, parts: Parts, *, snapshot: SnapshotRecord | None = None
    ) -> None:
        """`snapshot` is what the life of a new sandbox begins from."""
        self.record = record
        self.active_at = record.last_active_at
        self._runtime = runtime
        self._parts = parts
        self._images = runtime.images or parts.images
        self._snapshot = snapshot
        self._instance: Instance | None = None
        self._inside: Inside | None = None
        self._rootfs: Rootfs | None = None
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._over: asyncio.Future[Ending] = loop.create_future()
        self._entered = asyncio.Event()
        self._adopted = False
        self._is_unwritten = False
        self._last_output: Sequence[Output | Truncated] | None = None

    # ---- the life -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the life of a new sandbox; `wait_ready` tells how its birth went."""
        self._task = asyncio.create_task(self._live(), name=f"keeper {self.record.public_id}")

    def adopt(self, instance: Instance) -> None:
        """Take over a sandbox that outlived the server before us."""
        self._instance = instance
        self._adopted = True
        self.begin()

    async def _live(self) -> None:
        with structlog.contextvars.bound_contextvars(sandbox=self.record.public_id):
            try:
                ending = await self._serve()
            except SandboxdError as error:
                ending = Ending(Verb.FAILED, Cause.CRASHED, str(error), error=error)
            except TimeoutError:
                limit = self._parts.policy.create_timeout_s
                late = Unavailable(f"the sandbox was not ready within {limit} s", hint="the node may be overloaded")
                ending = Ending(Verb.FAILED, Cause.DEADLINE, str(late), error=late)
            except Exception as error:  # noqa: BLE001 - whatever it is, the sandbox must still be buried
                _log.exception("the keeper failed")
                bug = Bug(f"keeping the sandbox failed: {error!r}", hint="please report this")
                ending = Ending(Verb.FAILED, Cause.CRASHED, str(bug), error=bug)
            await self._bury(ending)

    async def _serve(self) -> Ending:
        born = await self._unless_over(self._find_again() if self._adopted else self._be_born())
        if not born:
            return self._over.result()
        self._ready.set_result(None)
        watches = [asyncio.create_task(self._watch_death()), asyncio.create_task(self._watch_command())]
        try:
            return await self._over
        finally:
            await _cancelled(*watches)

    async def _be_born(self) -> None:
        rootfs = self._rootfs = await self._find_rootfs()
        self.record = replace(self.record, image_digest=rootfs.image.digest)
        async with asyncio.timeout(self._parts.policy.create_timeout_s):
            await self._make_instance(rootfs)

    async def _find_rootfs(self) -> Rootfs:
        image, user, snapshot = self.record.spec.image, self.record.internal_id, self._snapshot
        if snapshot is None:
            return await self._images.rootfs(image, user=user)
        if (
            image != snapshot.image
            and (await self._images.rootfs(image, user=user)).image.digest != snapshot.image_digest
        ):
            raise Invalid(
                f"the snapshot was made of image `{snapshot.image}`, not of `{image}`", hint="leave the image out"
            )
        [(_, diff_id), *_] = snapshot.part_digests
        return await self._images.derive(
            snapshot.image_digest, Path(snapshot.snapshot_path), diff_id=diff_id, user=user
        )

    async def _make_instance(self, rootfs: Rootfs) -> None:
        record, snapshot = self.record, self._snapshot
        goes_on = snapshot is not None and has_memory(record.spec, snapshot)
        self._instance = await self._runtime.create(
            InstanceSpec(
                internal_id=record.internal_id,
                hostname=record.public_id[:63].lower().strip("-_").replace("_", "-"),
                rootfs=rootfs,
                limits=record.spec.limits,
                network=record.spec.network,
                owner=record.owner,
                memory=Path(snapshot.mem_file_path) if snapshot is not None and goes_on else None,
            )
        )
        if goes_on:
            await self._enter_again(self._instance, rootfs)
        else:
            self._inside = await self._enter(self._instance, rootfs)
            await self._inside.start_command()
            self._entered.set()
        await self._become(Verb.STARTED, flavour=self._instance.flavour)

    async def _find_again(self) -> None:
        """Take the sandbox back, however long what runs it (a daemon that is being restarted) may be away."""
        given_up_at = time.monotonic() + LONGEST_ABSENCE_S
        while True:
            try:
                return await self._take_back()
            except Unavailable as error:
                if time.monotonic() >= given_up_at:
                    raise
                _log.warning("a sandbox cannot be reached yet", error=str(error))
            await asyncio.sleep(RETRY_S)

    async def _take_back(self) -> None:
        if self._instance is None:
            raise Bug("a sandbox is taken back without its instance")
        self._rootfs = await self._images.rootfs(self.record.image_digest, user=self.record.internal_id)
        # The server before us may have died between doing and noting: the instance follows the note.
        if self.record.state is State.PAUSED:
            await self._instance.pause()
            return  # a frozen agent cannot answer: `resume` enters
        async with asyncio.timeout(self._parts.policy.create_timeout_s):
            await self._instance.resume()
            await self._enter_again(self._instance, self._rootfs)

    async def _enter(self, instance: Instance, rootfs: Rootfs) -> Inside:
        return Inside(
            instance,
            await instance.enter(),
            self.record.spec,
            rootfs,
            self._parts.policy,
            touch=self.touch,
        )

    async def _enter_again(self, instance: Instance, rootfs: Rootfs) -> None:
        """Greet a guest that a server before us knew; nobody else speaks to it before its processes are known."""
        inside = await self._enter(instance, rootfs)
        try:
            await inside.take_back()
        except BaseException:
            await inside.close()
            raise
        self._inside = inside
        self.touch()
        self._entered.set()

    async def _watch_death(self) -> None:
        if self._instance is None:
            return
        death = await self._instance.wait_death()
        self._end(Ending(Verb.ENDED, death.cause, death.sentence))

    async def _watch_command(self) -> None:
        await self._entered.wait()
        if self._inside is None or self._instance is None:
            return
        oom_kills_before = self._instance.oom_kills()
        try:
            exited = await self._inside.wait_command()
        except SandboxdError:
            return  # the instance died: the other watch tells how
        if exited is None:
            return
        with suppress(SandboxdError):
            self._last_output = await self._inside.last_output()
        oom = exited.signal and self._instance.oom_kills() > oom_kills_before
        cause = Cause.OOM if oom else Cause.EXITED
        self._end(Ending(Verb.ENDED, cause, f"its command ended with code {exited.code}", exit_code=exited.code))

    # ---- the death ------------------------------------------------------------------------------------------------

    def _end(self, ending: Ending) -> None:
        if not self._over.done():
            self._over.set_result(ending)

    async def _bury(self, ending: Ending) -> None:
        """Take everything away, then say so; a part that will not go is reported and left to the next try."""
        try:
            async with self._turn:
                await self._record_ending(ending)
                await self._remove()
        except (SandboxdError, OSError) as error:
            _log.error("a sandbox could not be removed completely", error=str(error))
        if not self._ready.done():
            self._ready.set_exception(ending.error or self._as_lost(ending))
            self._ready.exception()  # a caller that has gone does not ask: that is no unhandled error

    async def _record_ending(self, ending: Ending) -> None:
        verb = ending.verb
        if verb is Verb.FAILED and self.record.state is not State.CREATING:
            verb = Verb.VANISHED if self._adopted else Verb.ENDED
        retained = time.time() + self._parts.policy.retention_s
        expires = min(filter(None, (self.record.expires_at, retained)))
        await self._conclude(
            verb, cause=ending.cause, reason=ending.reason, exit_code=ending.exit_code, expires_at=expires
        )

    async def _conclude(self, verb: Verb, **facts: object) -> None:
        """Believe the end even where it cannot be written: what fills the disk may be this very sandbox."""
        self.record = self._following(verb, facts)
        self._is_unwritten = True
        try:
            await self._write()
        except Unavailable as error:
            _log.warning("the end of a sandbox is written down later", error=str(error))

    async def _write(self) -> None:
        await self._parts.state.update_sandbox(self.record)
        self._is_unwritten = False

    async def _remove(self) -> None:
        """Remove the instance, and the row when the sandbox is being destroyed."""
        if self._instance is not None:
            await self._instance.destroy()
        if self._inside is not None:
            await self._inside.close()
        self._instance, self._inside = None, None
        await self._images.release(self.record.internal_id)
        if self.record.state is State.DESTROYING:
            await self._parts.state.delete_sandbox(self.record.internal_id)
            self.record = replace(self.record, state=after(self.record.state, Verb.GONE))
        elif self._is_unwritten:
            await self._write()

    def _as_lost(self, ending: Ending) -> Lost:
        return Lost(f"the sandbox ended ({ending.cause}): {ending.reason}")

    # ---- what others ask ------------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether a caller waits for a command."""
        return self._inside is not None and self._inside.busy_processes > 0

    async def wait_ready(self) -> None:
        """Return once commands can run. Raises whatever kept the sandbox from being born."""
        await asyncio.shield(self._ready)

    async def destroy(self, cause: Cause, reason: str) -> None:
        """End the sandbox and return once nothing of it is left; callers that come later wait for the same end.

        Raises:
            Unavailable: a part of it would not go; asking again tries again.
        """
        self._end(Ending(Verb.DESTROY, cause, reason))
        if self._task is not None:
            await asyncio.wait({self._task})
        async with self._turn:
            if self._task is None and self.record.state is State.CREATING:  # its row may not exist yet
                self.record = replace(self.record, state=after(State.CREATING, Verb.DESTROY))
            if self.record.state not in (State.DESTROYING, State.DESTROYED):
                await self._conclude(Verb.DESTROY, cause=self.record.cause or cause)
            if self.record.state is State.DESTROYING:
                await self._remove()
        if self.record.state is not State.DESTROYED:
            raise Unavailable(f"sandbox {self.record.public_id} could not be removed completely", hint="try again")

    async def stop(self, cause: Cause, reason: str) -> None:
        """End the sandbox but keep it known as stopped, with the cause."""
        self._end(Ending(Verb.ENDED, cause, reason))
        if self._task is not None:
            await asyncio.wait({self._task})

    async def leave(self) -> None:
        """Let go of the sandbox without touching it: the next server adopts it."""
        if self._task is not None:
            await _cancelled(self._task)
        if self._inside is not None:
            await self._inside.close()

    def inside(self, verb: Verb, *, is_activity: bool = True) -> Inside:
        """Return the inside of a sandbox that runs, and count this as activity unless somebody only looks.

        Raises:
            Conflict: its state does not allow the verb.
            Lost: it ended unasked.
            Unavailable: a new server has not reached it yet.
        """
        self._check(verb)
        if self._instance is None:
            raise self._ended()
        if self._inside is None:
            raise Unavailable("the server has not reached this sandbox's agent yet", hint="try again")
        if is_activity:
            self.touch()
        return self._inside

    async def logs(self) -> Sequence[Output | Truncated]:
        """Return what is kept of the output of the sandbox's own command, less of it once that has ended."""
        if self._last_output is not None:
            return self._last_output
        return await self.inside(Verb.EXECUTE, is_activity=False).logs()

    async def has_work(self) -> bool:
        """Say whether a command whose server died still runs."""
        return self._inside is not None and await self._inside.has_work()

    async def forget_uncertain(self, before: float) -> None:
        """Give up the uncertain processes that nobody has collected since `before`."""
        if self._inside is not None and self.record.state is State.RUNNING:
            await self._inside.forget_uncertain(before)

    async def metrics(self) -> Metrics:
        """Return a reading."""
        self._check(Verb.MEASURE)
        if self._instance is None:
            raise self._ended()
        return await self._instance.metrics()

    async def pause(self) -> None:
        """Freeze; harmless when repeated."""
        async with self._turn:
            self._check(Verb.PAUSE)
            if self._instance is None:
                raise self._ended()
            if self.record.state is State.RUNNING:
                await self._instance.pause()
                await self._become(Verb.PAUSE)

    async def resume(self) -> None:
        """Thaw; harmless when repeated."""
        async with self._turn:
            self._check(Verb.RESUME)
            if self._instance is None:
                raise self._ended()
            if self.record.state is State.RUNNING:
                return
            await self._instance.resume()
            if self._inside is None and self._rootfs is not None:
                await self._enter_again(self._instance, self._rootfs)
            self.touch()
            await self._become(Verb.RESUME)

    async def snapshot(self) -> SnapshotRecord:
        """Pause, save what the runtime can, stay paused; a failure leaves the sandbox as it was."""
        async with self._turn:
            self._check(Verb.SNAPSHOT)
            if self._instance is None:
                raise self._ended()
            was_running = self.record.state is State.RUNNING
            await self._instance.pause()
            try:
                saved = await self._save(self._instance)
            except BaseException:
                if was_running:
                    await asyncio.shield(self._instance.resume())
                raise
            await self._become(Verb.SNAPSHOT)
            return saved

    async def _save(self, instance: Instance) -> SnapshotRecord:
        """Save a paused instance, unless its life ends before that is done."""
        saved: list[SnapshotRecord] = []

        async def save() -> None:
            saved.append(await save_snapshot(self.record, instance, self._parts, self._images))

        if not await self._unless_over(save()):
            raise self._as_lost(self._over.result())
        return saved[0]

    def facts(self) -> SandboxRecord:
        """Return what is known of the sandbox, up to its last activity."""
        return replace(self.record, last_active_at=self.active_at)

    def touch(self) -> None:
        """Count this moment as activity."""
        self.active_at = time.time()

    # ---- small things ---------------------------------------------------------------------------------------------

    def _check(self, verb: Verb) -> None:
        if self.record.state is State.LOST:
            raise self._ended()
        if self.record.state is State.DESTROYED:  # while the caller waited for its turn
            raise NotFound(f"sandbox {self.record.public_id} not found")
        try:
            after(self.record.state, verb)
        except Conflict as conflict:
            if self.record.cause is None:
                raise
            raise Conflict(
                f"{conflict.message} (cause: {self.record.cause}: {self.record.reason})", hint=conflict.hint
            ) from conflict

    def _ended(self) -> Lost:
        cause = self.record.cause or Cause.ASKED
        return Lost(f"sandbox {self.record.public_id} is {self.record.state} (cause: {cause}: {self.record.reason})")

    async def _become(self, verb: Verb, **facts: object) -> None:
        """Write the new state, then believe it."""
        following = self._following(verb, facts)
        await self._parts.state.update_sandbox(following)
        self.record = following

    def _following(self, verb: Verb, facts: dict[str, object]) -> SandboxRecord:
        return replace(self.facts(), state=after(self.record.state, verb), **facts)  # type: ignore[arg-type]

    async def _unless_over(self, step: Coroutine[object, object, _T]) -> bool:
        """Run `step` unless the life is over before it is done; then it is cancelled and has cleaned up."""
        task = asyncio.ensure_future(step)
        try:
            either: set[asyncio.Future[Any]] = {task, self._over}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return True
            return False
        finally:
            await _cancelled(task)


async def _cancelled(*tasks: asyncio.Task[_T]) -> None:
    """Cancel tasks and wait until they have ended; their outcome no longer matters."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # asked for, so that it is not reported as never retrieved
