"""Output without end, output that is no text, and callers that do not read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Server
    from tests.hostile.conftest import Target

    Eventually = Callable[[Callable[[], object], Callable[[], object]], None]

MIB = 1024 * 1024
LIMIT = 16 * MIB
FORGET_PEAK = "5"


class Memory:
    """How far the server's memory rises above where it was."""

    def __init__(self, server: Server) -> None:
        self._process = Path(f"/proc/{server.pid}")
        (self._process / "clear_refs").write_text(FORGET_PEAK)
        self._before = self._read("VmRSS")

    def risen(self) -> int:
        """Return by how many bytes its highest was above its first."""
        return self._read("VmHWM") - self._before

    def _read(self, name: str) -> int:
        (line,) = (line for line in (self._process / "status").read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024


@pytest.fixture
def memory(server: Server) -> Memory:
    return Memory(server)


def test_a_hundred_mebibytes_are_cut_and_cost_little(target: Target, memory: Memory) -> None:
    target.shell("yes | head -c 1048576 > /mebibyte")
    told = target.shell("cat $(yes /mebibyte | head -100); echo done >&2").json
    assert told["exit_code"] == 0
    assert told["stdout"][:LIMIT].count("y\n") == LIMIT // 2
    assert told["stdout"][LIMIT:] == f"\n[sandboxd: cut at {LIMIT} bytes, {100 * MIB - LIMIT} more were dropped]\n"
    assert told["stderr"] == "done\n"
    assert memory.risen() < 8 * LIMIT


def test_the_dearest_bytes_have_a_bounded_price(target: Target, memory: Memory) -> None:
    """A zero byte takes six in JSON, one that is no text three; both on both channels, far beyond the limit."""
    for make in ("cat", "tr '\\0' '\\377'"):
        answer = target.shell(f"head -c 17000000 /dev/zero | {make} | tee /dev/stderr")
        assert answer.text.count(f"[sandboxd: cut at {LIMIT} bytes, {17_000_000 - LIMIT} more were dropped]") == 2
    assert memory.risen() < 32 * LIMIT


def test_what_is_no_text_is_replaced(target: Target) -> None:
    told = target.ask("printf", r"a\377\376\200b\303\251\355\240\200c\360\237\230")
    assert told.json["stdout"] == "a���b\u00e9���c�"
    told = target.shell(r"printf '\033[2J\000\001\r' >&2")
    assert told.json["stderr"] == "\x1b[2J\0\1\r"


def test_output_without_end_stops_with_its_caller(target: Target, memory: Memory, eventually: Eventually) -> None:
    callers = [target.ask_aside("sh", "-c", "yes | head -c 10000000 | wc -c") for _ in range(2)]
    with target.caller("yes"), target.caller("sh", "-c", "yes no >&2"), target.caller("yes", hard=True):
        eventually(lambda: target.lists("yes no"), lambda: "it does not begin")
        assert [caller.result().json["stdout"] for caller in callers] == ["10000000\n"] * 2
    eventually(lambda: not target.lists("yes"), lambda: target.ask("ps").json["stdout"])
    assert memory.risen() < 12 * LIMIT


def test_a_caller_that_does_not_read_its_answer_costs_only_that_answer(
    target: Target, memory: Memory, eventually: Eventually
) -> None:
    with target.caller("sh", "-c", "yes | head -c 16777216; touch /done"):
        eventually(lambda: target.wrote("done"), lambda: "it does not end")
        assert target.ask("echo", "alive").json["stdout"] == "alive\n"
    assert memory.risen() < 8 * LIMIT
