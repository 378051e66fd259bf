"""Memory without end, and files without number."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hostile.conftest import Target

    Eventually = Callable[[Callable[[], object], Callable[[], object]], None]

HOG = "head -c 400000000 /dev/zero | tail"
FILES = int(os.environ.get("HOSTILE_FILES", "10000"))
"""How many files a sandbox makes before it is destroyed; a million takes minutes."""
A_FILE_S = 0.001
SOON_S = 5.0


@pytest.fixture
def memory_mb() -> int:
    return 64


def test_a_memory_hog_ends_alone_or_with_its_sandbox(target: Target, eventually: Eventually) -> None:
    answer = target.shell(HOG)
    if target.kind.has_own_kernel:
        assert answer.status == 410
        assert "the sandbox ran out of memory" in answer.text
        eventually(lambda: target.told()["status"] == "stopped", target.told)
        assert target.told()["cause"] == "oom"
        later = target.ask("true")
        assert later.status == 409
        assert "cause: oom" in later.text
    else:
        told = answer.json
        assert (told["exit_code"], told["cause"]) == (137, "oom")
        assert "the sandbox is out of memory" in told["stderr"]
        assert target.told()["status"] == "running"
        assert target.ask("echo", "alive").json["stdout"] == "alive\n"


def test_a_hog_that_makes_itself_small_does_not_take_the_agent_along(target: Target) -> None:
    """The kernel is told to prefer whatever we started; a program may take that back for itself."""
    if target.kind.has_own_kernel:
        pytest.skip("its kernel ends with whatever runs out of memory")
    for _ in range(3):
        told = target.shell(f"echo 0 > /proc/self/oom_score_adj; {HOG}").json
        assert (told["exit_code"], told["cause"]) == (137, "oom")
    assert target.ask("echo", "alive").json["stdout"] == "alive\n"


@pytest.mark.timeout(60 + FILES * A_FILE_S * 4)
def test_files_without_number_are_gone_in_time(target: Target) -> None:
    folder = target.outside.folder
    target.shell("mkdir /m; (i=0; while true; do : > /m/$i; i=$((i+1)); done) &")
    while target.told()["status"] == "running" and not target.wrote(f"m/{FILES}"):  # as long as the test may take
        time.sleep(0.05)
    made = sum(1 for place in target.wrote("m") for _ in os.scandir(place))
    assert made >= FILES or target.told()["cause"] == "oom"
    assert target.destroy() < SOON_S + made * A_FILE_S
    assert not folder.exists()
