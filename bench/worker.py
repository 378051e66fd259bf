"""A helper process that does things when told and times them itself, so that telling costs nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

from sandboxd.core.errors import SandboxdError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Worker:
    """The telling side. Leaving its `with` block ends the process."""

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", module, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        self.ask("ready")
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        self._process.stdin.close()
        self._process.wait()

    def ask(self, verb: str, **details: object) -> Any:
        """Have one thing done and return its outcome.

        Raises:
            RuntimeError: it failed there, or the process is gone.
        """
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        assert self._process.stdout is not None  # noqa: S101 - asked for above
        self._process.stdin.write(json.dumps([verb, details]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the helper ended while asked to {verb}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["outcome"]


def answer_forever(verbs: dict[str, Callable[..., object]]) -> None:
    """The told side: do what each line asks until there are no more."""
    for line in sys.stdin:
        verb, details = json.loads(line)
        try:
            _say(verbs[verb](**details) if verb != "ready" else True)
        except (OSError, RuntimeError) as error:
            _say_failure(verb, error)


async def answer_in_loop(verbs: dict[str, Callable[..., Awaitable[object]]]) -> None:
    """The told side in an event loop, which runs on between the lines."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        verb, details = json.loads(line)
        try:
            _say(await verbs[verb](**details) if verb != "ready" else True)
        except (OSError, RuntimeError, SandboxdError) as error:
            _say_failure(verb, error)


def _say(outcome: object) -> None:
    print(json.dumps({"outcome": outcome}), flush=True)


def _say_failure(verb: str, error: Exception) -> None:
    print(json.dumps({"error": f"{verb}: {error}"}), flush=True)
