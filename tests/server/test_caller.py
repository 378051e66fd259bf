"""Calls that end with their caller."""

from __future__ import annotations

import asyncio

import pytest

from sandboxd.server.caller import CallerGone, unless_gone


async def _stays() -> dict[str, str]:
    await asyncio.Event().wait()
    return {}


async def _leaves() -> dict[str, str]:
    await asyncio.sleep(0)
    return {"type": "http.disconnect"}


async def test_the_result_comes_back_while_the_caller_waits() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await unless_gone(_stays, work()) == 7


async def test_work_is_cancelled_and_cleaned_up_when_the_caller_leaves() -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(CallerGone):
        await unless_gone(_leaves, work())
    assert cleaned


async def test_a_cancellation_from_outside_stays_one() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await unless_gone(_stays, _stays())
    assert len(asyncio.all_tasks()) == 1
