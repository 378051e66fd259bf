"""What must be finished is finished, and a cancellation is not forgotten over it."""

from __future__ import annotations

import asyncio

import pytest

from sandboxd.host.finish import finish


async def test_the_result_and_the_error_come_through() -> None:
    assert await finish(asyncio.sleep(0, "result")) == "result"
    with pytest.raises(ZeroDivisionError):
        await finish(_fail())


async def test_cancellation_waits_for_the_end_and_is_then_raised() -> None:
    steps: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.05)
        steps.append("finished")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await finish(work())
    assert steps == ["finished"]


async def test_a_failure_under_cancellation_does_not_replace_it() -> None:
    async def work() -> None:
        await asyncio.sleep(0.05)
        await _fail()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await finish(work())


async def _fail() -> None:
    raise ZeroDivisionError
