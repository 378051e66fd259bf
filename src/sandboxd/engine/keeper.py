"""The keeper of one sandbox: read downward it is the sandbox's life, read upward its death."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from sandboxd.core.causes import Cause
from sandboxd.core.errors import Bug, Conflict, Invalid, Lost, NotFound, SandboxdError, Unavailable, Unsupported
from sandboxd.core.lifecycle import State, Verb, after
from sandboxd.core.records import ImageConfig
from sandboxd.core.spec import ProcessSpec
from sandboxd.engine.processes import CallersProcess
from sandboxd.engine.snapshots import save_snapshot
from sandboxd.ports.runtime import InstanceSpec

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sandboxd.core.records import Metrics, SandboxRecord, SnapshotRecord
    from sandboxd.engine.policy import Policy
    from sandboxd.ports.guest import Guest
    from sandboxd.ports.images import Images, Rootfs
    from sandboxd.ports.objects import Objects
    from sandboxd.ports.runtime import Instance, Runtime
    from sandboxd.ports.state import State as StateFile

MAIN_PROCESS = 1
"""The id of a sandbox's own command: always the first process started in it."""
LONGEST_ARGUMENT = 120_000
"""Bytes that one argument may take; the kernel refuses 131,072."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_log = structlog.get_logger()
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Parts:
    """What every keeper of a node works with."""

    state: StateFile
    objects: Objects
    images: Images
    policy: Policy


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

    `record`, `active_at` and `busy_processes` may be read at any time; all that changes the sandbox goes through the
    methods here.
    """

    def __init__(self, record: SandboxRecord, runtime: Runtime, parts: Parts) -> None:
        self.record = record
        self.active_at = record.last_active_at
        self.busy_processes = 0
        self._runtime = runtime
        self._parts = parts
        self._instance: Instance | None = None
        self._guest: Guest | None = None
        self._rootfs: Rootfs | None = None
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._over: asyncio.Future[Ending] = loop.create_future()
        self._entered = asyncio.Event()
        self._adopted = False
        self._is_unwritten = False

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
        async with asyncio.timeout(self._parts.policy.create_timeout_s):
            born = await self._unless_over(self._take_back() if self._adopted else self._be_born())
        if not born:
            return self._over.result()
        self._ready.set_result(None)
        watches = [asyncio.create_task(self._watch_death()), asyncio.create_task(self._watch_command())]
        try:
            return await self._over
        finally:
            await _cancelled(*watches)

    async def _be_born(self) -> None:
        record, parts = self.record, self._parts
        self._rootfs = await parts.images.rootfs(record.spec.image, user=record.internal_id)
        self.record = replace(self.record, image_digest=self._rootfs.image.digest)
        self._instance = await self._runtime.create(
            InstanceSpec(
                internal_id=record.internal_id,
                hostname=record.public_id[:63].lower().strip("-_").replace("_", "-"),
                rootfs=self._rootfs,
                limits=record.spec.limits,
                network=record.spec.network,
            )
        )
        self._guest = await self._instance.enter()
        await self._start_command(self._guest)
        self._entered.set()
        await self._become(Verb.STARTED, flavour=self._instance.flavour)

    async def _take_back(self) -> None:
        if self._instance is None:
            raise Bug("a sandbox is taken back without its instance")
        self._rootfs = await self._parts.images.rootfs(self.record.image_digest, user=self.record.internal_id)
        # The server before us may have died between doing and noting: the instance follows the note.
        if self.record.state is State.PAUSED:
            await self._instance.pause()
            return  # a frozen agent cannot answer: `resume` enters
        await self._instance.resume()
        await self._enter_again(self._instance)

    async def _enter_again(self, instance: Instance) -> None:
        """Greet a guest that a server before us knew, and end the commands whose callers were cut off with it."""
        guest = self._guest = await instance.enter()
        for status in await guest.processes():
            if status.process_id == MAIN_PROCESS and self.record.spec.command:
                continue
            process = await guest.attach(status.process_id)
            if status.code is None:
                _log.info("ending a command whose caller was cut off", process=status.process_id)
                await process.signal(signal.SIGKILL, descendants=True)
            await process.forget()
        self._entered.set()

    async def _start_command(self, guest: Guest) -> None:
        spec, config = self.record.spec, self._image_config()
        directory = spec.cwd or config.cwd
        if directory:
            await guest.make_directory(directory, parents=True)
        argv = ((*config.entrypoint, *spec.command) if spec.entrypoint else spec.command) if spec.command else ()
        if not argv:
            return
        process = await guest.start(self._in_image(ProcessSpec(argv=argv, attached=False)))
        if process.process_id != MAIN_PROCESS:
            raise Bug(f"the sandbox's own command has the process id {process.process_id}")
        if not process.pid:
            raise Invalid(f"the command `{argv[0]}` cannot be run in image `{spec.image}`", hint="check its path")

    async def _watch_death(self) -> None:
        if self._instance is None:
            return
        death = await self._instance.wait_death()
        self._end(Ending(Verb.ENDED, death.cause, death.sentence))

    async def _watch_command(self) -> None:
        await self._entered.wait()
        if not self.record.spec.command or self._guest is None or self._instance is None:
            return
        oom_kills_before = self._instance.oom_kills()
        try:
            exited = await (await self._guest.attach(MAIN_PROCESS)).wait()
        except SandboxdError:
            return  # the instance died: the other watch tells how
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
        if self._guest is not None:
            await self._guest.close()
        self._instance, self._guest = None, None
        await self._parts.images.release(self.record.internal_id)
        if self.record.state is State.DESTROYING:
            await self._parts.state.delete_sandbox(self.record.internal_id)
            self.record = replace(self.record, state=after(self.record.state, Verb.GONE))
        elif self._is_unwritten:
            await self._write()

    def _as_lost(self, ending: Ending) -> Lost:
        return Lost(f"the sandbox ended ({ending.cause}): {ending.reason}")

    # ---- what others ask ------------------------------------------------------------------------------------------

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
        if self._guest is not None:
            await self._guest.close()

    async def start_process(self, spec: ProcessSpec) -> CallersProcess:
        """Start a command in the image's environment; it ends with its caller."""
        instance, guest = self._inside(Verb.EXECUTE)
        oom_kills_before = instance.oom_kills()
        process = await guest.start(self._in_image(spec))
        self.busy_processes += 1
        return CallersProcess(process, instance.oom_kills, oom_kills_before, left=self._process_left)

    async def start_python(self, code: str) -> CallersProcess:
        """Start python3 on `code`, given on stdin where it is too long for one argument."""
        if self._rootfs is None or not self._rootfs.python:
            raise Unsupported(
                f"image `{self.record.spec.image}` has no python3 and this node has no interpreter to lend",
                hint="use an image with python3, or run `./dev images` on the node",
            )
        if len(code.encode(errors="surrogateescape")) < LONGEST_ARGUMENT:
            return await self.start_process(ProcessSpec(argv=(*self._rootfs.python, "-c", code)))
        process = await self.start_process(ProcessSpec(argv=(*self._rootfs.python, "-"), stdin=True))
        try:
            await process.write_stdin(code.encode(errors="surrogateescape"))
            await process.close_stdin()
        except Conflict:
            return process  # it ended before reading all: its own words say why
        except BaseException:
            await process.__aexit__()
            raise
        return process

    async def platform(self) -> dict[str, str]:
        """Return uname as seen inside, and an empty `processor`, as Python's platform module has it on Linux."""
        _, guest = self._inside(Verb.EXECUTE)
        return {**await guest.platform(), "processor": ""}

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
            if self._guest is None:
                await self._enter_again(self._instance)
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
            saved.append(await save_snapshot(self.record, instance, self._parts.objects, self._parts.state))

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

    def _inside(self, verb: Verb) -> tuple[Instance, Guest]:
        self._check(verb)
        if self._instance is None or self._guest is None:
            raise self._ended()
        self.touch()
        return self._instance, self._guest

    def _ended(self) -> Lost:
        cause = self.record.cause or Cause.ASKED
        return Lost(f"sandbox {self.record.public_id} is {self.record.state} (cause: {cause}: {self.record.reason})")

    def _process_left(self) -> None:
        self.busy_processes -= 1
        self.touch()

    def _in_image(self, spec: ProcessSpec) -> ProcessSpec:
        config, sandbox = self._image_config(), self.record.spec
        env = {"PATH": DEFAULT_PATH, **dict(config.env), **dict(sandbox.env), **dict(spec.env)}
        return replace(
            spec,
            env=tuple(env.items()),
            cwd=spec.cwd or sandbox.cwd or config.cwd,
            user=spec.user or sandbox.user or config.user,
            deadline_s=self._parts.policy.execution_deadline_s(spec.deadline_s) if spec.attached else spec.deadline_s,
        )

    def _image_config(self) -> ImageConfig:
        return self._rootfs.config if self._rootfs is not None else ImageConfig()

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
