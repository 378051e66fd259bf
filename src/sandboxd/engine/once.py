"""Calls under an idempotency key: each happens once, whoever repeats it, and whichever server is asked."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

from sandboxd.core.calls import CallRecord, call_digest, check_key
from sandboxd.core.errors import Bug, Busy, Conflict, Lost, NotFound, SandboxdError, Uncertain
from sandboxd.core.output import Finished, gather
from sandboxd.core.records import SandboxRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sandboxd.core.spec import ProcessSpec, PythonSource, SandboxSpec
    from sandboxd.engine.inside import Inside
    from sandboxd.engine.processes import CallersProcess
    from sandboxd.ports.state import State

REMEMBERED_S = 24 * 3600.0
"""How long a call is remembered after it was begun, and its result after it came."""
MOST_AT_ONCE = 64
"""Commands under a key that may run in one sandbox at once: they outlive their callers, so nothing else bounds them."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Draft:
    """A sandbox that could be made. `undo` takes away what `make` made, and does nothing where there is nothing."""

    record: SandboxRecord
    make: Callable[[], Awaitable[SandboxRecord]]
    undo: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Running:
    """A command under a key that is being followed, whoever waits for it. Its end is a value, also where it failed."""

    digest: str
    sandbox: str
    end: asyncio.Task[Finished | SandboxdError]


class Once:
    """Remembers calls in `state`; commands under way run in tasks of `background`."""

    def __init__(self, state: State, background: asyncio.TaskGroup) -> None:
        self._state = state
        self._background = background
        self._turns: dict[tuple[str, str], tuple[asyncio.Lock, int]] = {}
        self._running: dict[tuple[str, str], _Running] = {}

    async def create(
        self,
        owner: str,
        spec: SandboxSpec,
        key: str,
        *,
        find: Callable[[str], SandboxRecord | None],
        prepare: Callable[[], Awaitable[Draft]],
    ) -> SandboxRecord:
        """Make a sandbox, or return the one that an equal call has made.

        `find` returns what is known of a sandbox by its internal id. A call that failed or was given up is undone and
        forgotten.
        """
        digest = call_digest("create", replace(spec, surface=""))
        async with self._turn(owner, check_key(key)):
            known = await self._known(owner, key, digest)
            if known is not None and isinstance(known.result, SandboxRecord):
                return known.result
            made = find(known.subject) if known is not None else None
            if known is not None and made is not None:  # a server died between its birth and the note of it
                await self._state.put_call(replace(known, result=made))
                return made
            draft = await prepare()
            call = CallRecord(owner, key, digest, draft.record.internal_id, time.time())
            await self._state.put_call(call)
            try:
                made = await draft.make()
                await self._state.put_call(replace(call, result=made))
            except BaseException:
                await asyncio.shield(self._give_up(call, draft))
                raise
            return made

    async def execute(
        self,
        owner: str,
        sandbox_id: str,
        command: ProcessSpec | PythonSource,
        *,
        key: str,
        limit: int,
        enter: Callable[[], tuple[str, Inside]],
    ) -> Finished:
        """Run a command in a sandbox, or tell how the one ended that an equal call has begun.

        `enter` returns the sandbox's internal id and its inside; it is not called where the end is known. From the
        moment that the command may run, no caller that leaves changes anything.

        Raises:
            Uncertain: a server died before it was known whether the command ran, or its result is no longer kept.
            Busy: too many commands with a key run in this sandbox.
        """
        digest = call_digest("execute", sandbox_id, command)
        name = owner, check_key(key)
        async with self._turn(*name):
            running = self._running.get(name)
            if running is None:
                known = await self._known(*name, digest)
                if known is not None and isinstance(known.result, Finished):
                    return known.result
                internal_id, inside = enter()
                self._check_room(internal_id)
                call = known or CallRecord(owner, key, digest, internal_id, time.time())
                collect = partial(self._collect, call, internal_id, inside)
                start = partial(self._start, call, inside, command)
                end = self._background.create_task(self._follow(collect if known else start, limit))
                end.add_done_callback(lambda _: self._running.pop(name, None))
                running = self._running[name] = _Running(digest, internal_id, end)
            elif running.digest != digest:
                raise _taken()
        outcome = await asyncio.shield(running.end)
        if isinstance(outcome, SandboxdError):
            raise outcome
        return outcome

    async def trim(self) -> None:
        """Forget what is older than it need be."""
        await self._state.trim_calls(before=time.time() - REMEMBERED_S)

    async def leave(self) -> None:
        """Let the commands under way run on without us: the next server is told of them by their guests."""
        ends = [running.end for running in self._running.values()]
        for end in ends:
            end.cancel()
        if ends:
            await asyncio.wait(ends)

    def _check_room(self, sandbox: str) -> None:
        if sum(running.sandbox == sandbox for running in self._running.values()) >= MOST_AT_ONCE:
            raise Busy(
                f"{MOST_AT_ONCE} commands with an idempotency key run in this sandbox already", hint="let one end first"
            )

    async def _follow(
        self, begin: Callable[[], Awaitable[tuple[CallersProcess, CallRecord]]], limit: int
    ) -> Finished | SandboxdError:
        """Bring a command to its end and note it; when we end first, leave it to the next server."""
        try:
            process, call = await begin()
            return await self._finish(process, call, limit)
        except SandboxdError as error:
            return error
        except Exception as error:  # noqa: BLE001 - told to whoever waits; nothing else may suffer
            _log.exception("following a command failed")
            return Bug(f"following a command failed: {error!r}", hint="please report this")

    async def _finish(self, process: CallersProcess, call: CallRecord, limit: int) -> Finished:
        try:
            finished = await gather(process.events(), limit=limit, missed=process.missed)
        except asyncio.CancelledError:
            process.let_go()
            raise
        except BaseException:
            await process.__aexit__()
            raise
        try:
            await self._state.put_call(replace(call, result=finished, created_at=time.time()))
        except SandboxdError as error:
            _log.warning("the result of a call could not be kept", error=str(error))
        await process.__aexit__()
        return finished

    async def _start(
        self, call: CallRecord, inside: Inside, command: ProcessSpec | PythonSource
    ) -> tuple[CallersProcess, CallRecord]:
        await self._state.put_call(call)
        try:
            process = await inside.start(command)
        except (Uncertain, Lost):
            raise
        except SandboxdError:  # refused: nothing ran
            await self._state.delete_call(call.owner, call.key)
            raise
        call = replace(call, process_id=process.process_id, pid=process.pid)
        try:
            await self._state.put_call(call)
        except SandboxdError as error:
            _log.warning("the beginning of a call could not be noted", error=str(error))
        except BaseException:
            process.let_go()
            raise
        return process, call

    async def _collect(self, call: CallRecord, internal_id: str, inside: Inside) -> tuple[CallersProcess, CallRecord]:
        try:
            if call.process_id is not None and call.subject == internal_id:
                return await inside.collect(call.process_id, pid=call.pid), call
        except NotFound:
            pass
        raise Uncertain(
            "it is not known whether or how this command ran: its server died, or its result is no longer kept",
            hint="look at what it may have done before you run it again under another key",
        )

    async def _give_up(self, call: CallRecord, draft: Draft) -> None:
        await draft.undo()
        await self._state.delete_call(call.owner, call.key)

    async def _known(self, owner: str, key: str, digest: str) -> CallRecord | None:
        known = await self._state.find_call(owner, key)
        if known is None or known.created_at < time.time() - REMEMBERED_S:
            return None
        if known.digest != digest:
            raise _taken()
        return known

    @asynccontextmanager
    async def _turn(self, owner: str, key: str) -> AsyncIterator[None]:
        """Let one call of each key at a time through."""
        name = owner, key
        lock, waiting = self._turns.get(name, (asyncio.Lock(), 0))
        self._turns[name] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._turns.pop(name)
            if waiting > 1:
                self._turns[name] = lock, waiting - 1


def _taken() -> Conflict:
    return Conflict("this idempotency key was used for another request", hint="repeat that request, or use another key")
