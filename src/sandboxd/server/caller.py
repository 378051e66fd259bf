"""A caller that hangs up: its call is cancelled, in this one place for all routes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_Result = TypeVar("_Result")

BRIEF_S = 0.01


class CallerGone(Exception):
    """The caller closed its connection before it had its answer."""


async def unless_gone(
    receive: Callable[[], Awaitable[Any]],
    work: Awaitable[_Result],
    *,
    after: Callable[[], Awaitable[None]] | None = None,
) -> _Result:
    """Return what `work` returns; cancel it, and wait for its clean-up, when the caller hangs up first.

    `work` must not raise, and nobody else may receive: where the body has not been received yet, `after` returns once
    it has. A hang-up is looked for once the work has taken longer than `BRIEF_S`: most calls are over by then and pay
    nothing for the watch.

    Raises:
        CallerGone: the caller hung up.
    """
    result: list[_Result] = []
    try:
        async with asyncio.TaskGroup() as group:
            watches: list[asyncio.Task[None]] = []
            loop = asyncio.get_running_loop()
            timer = loop.call_later(BRIEF_S, lambda: watches.append(group.create_task(_wait_gone(receive, after))))
            try:
                result.append(await work)
            finally:
                timer.cancel()
                for watch in watches:
                    watch.cancel()
    except* CallerGone:
        result.clear()
    if not result:
        raise CallerGone
    return result[0]


async def _wait_gone(receive: Callable[[], Awaitable[Any]], after: Callable[[], Awaitable[None]] | None) -> None:
    if after is not None:
        await after()
    while (await receive())["type"] != "http.disconnect":
        pass
    raise CallerGone
