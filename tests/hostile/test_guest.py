"""Noise and silence from a guest, seen from the host's half of the protocol."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.guest.agents import RealAgent
from tests.guest.asking import run, sh, until
from tests.guest.frames import raw_bytes
from tests.guest.played import PlayedGuest, begin, meet

from sandboxd.core.errors import SandboxdError, Uncertain
from sandboxd.core.spec import ProcessSpec
from sandboxd.guest import link
from sandboxd.guest.frames import GUEST_FRAMES, LIMIT_GUEST_FRAME, Forget, Signal, Start

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 500
FRAMES = 20
LITTLE_S = 0.2


@pytest.fixture
def real(tmp_path: Path) -> Iterator[RealAgent]:
    with RealAgent("fifo", tmp_path) as agent:
        yield agent


async def test_no_frame_however_wrong_is_more_than_a_lost_guest() -> None:
    """Right in form, random in meaning: for every type, with sizes and numbers at the edges of what fits."""
    dice = random.Random(3)  # noqa: S311 - noise, not secrets
    unforeseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unforeseen.append(context))
    made: list[PlayedGuest] = []
    calm, calms = await meet(made)
    for _ in range(ROUNDS):
        guest, played = await meet(made)
        process, _ = await begin(guest, played, stdin=True)
        waiting = [
            asyncio.ensure_future(call)
            for call in (process.wait(), process.signal(9), guest.platform(), guest.status("/"), guest.processes())
        ]
        await asyncio.sleep(0)
        for _ in range(FRAMES):
            with suppress(BlockingIOError, BrokenPipeError):
                played.socket.send(_frame(dice))
        await asyncio.sleep(0.001)
        await guest.close()
        for ended in await asyncio.gather(*waiting, return_exceptions=True):
            assert not isinstance(ended, Exception) or isinstance(ended, SandboxdError), ended
        played.socket.close()
    assert not unforeseen
    _, start = await begin(calm, calms)
    assert start.argv == (b"/bin/it",)
    await calm.close()
    calms.socket.close()


async def test_a_guest_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[PlayedGuest] = []
    guest, played = await meet(made)
    monkeypatch.setattr(link, "PATIENCE_S", LITTLE_S)
    for call, doing in ((guest.start(ProcessSpec(("it",))), "cannot start `it`"), (guest.status("/x"), "look at `/x`")):
        with pytest.raises(Uncertain, match=f"{doing}: the guest has not answered") as caught:
            await call
        assert "destroy the sandbox if that lasts" in str(caught.value)
    _, process_id = await played.expect(Start)
    sent = [await played.sent() for _ in range(2)]
    assert [(type(each.frame), each.id) for each in sent] == [(Signal, process_id), (Forget, process_id)]
    await guest.close()
    played.socket.close()


async def test_a_command_whose_guest_lets_its_deadline_pass_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[PlayedGuest] = []
    monkeypatch.setattr("sandboxd.guest.process.OVERDUE_S", LITTLE_S)
    guest, played = await meet(made)
    process, _ = await begin(guest, played, deadline_s=0.01)
    with pytest.raises(Uncertain, match="time ran out"):
        await process.wait()
    await played.expect(Signal)
    await played.expect(Forget)
    await guest.close()
    played.socket.close()


async def test_an_agent_that_goes_on_later_does_not_run_what_was_given_up(
    real: RealAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    guest = await real.connect()
    monkeypatch.setattr(link, "PATIENCE_S", LITTLE_S)
    os.kill(_agent_of(real), signal.SIGSTOP)
    for _ in range(20):
        with pytest.raises(Uncertain, match="cannot start `/bin/sh`: the guest has not answered"):
            await guest.start(sh(f"sleep 5; touch {tmp_path}/late"))
        monkeypatch.setattr(link, "PATIENCE_S", 0.01)
    monkeypatch.undo()
    os.kill(_agent_of(real), signal.SIGCONT)
    out, _, _ = await run(guest, sh("echo alive"))
    assert out == b"alive\n"
    await until(lambda: not _children_of(_agent_of(real)))
    assert await guest.processes() == []
    assert not (tmp_path / "late").exists()
    await real.close()


def _frame(dice: random.Random) -> bytes:
    kind = dice.choice([*GUEST_FRAMES, dice.randrange(256)])
    size = dice.choice([0, 1, 4, 8, 17, 29, 60, 500, LIMIT_GUEST_FRAME - 20, LIMIT_GUEST_FRAME])
    payload = dice.choice([bytes(size), b"\xff" * size, dice.randbytes(size)])
    return raw_bytes(
        kind, payload, dice.choice([0, 1, 2, 2**31, 2**31 + 1, 2**32 - 1]), flags=dice.choice([0, 0, 1, 255])
    )


def _agent_of(real: RealAgent) -> int:
    (pid,) = _children_of(real._process.pid)
    return pid


def _children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
