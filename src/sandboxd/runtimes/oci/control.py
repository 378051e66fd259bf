"""gVisor's kernel of one instance, asked over its control socket what its own program would ask there.

That program takes 30 ms and more to start; the question takes less than one.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

from sandboxd.core.errors import Lost, Unavailable
from sandboxd.host.finish import finish

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

_PIECE = 256 * 1024
_STOPPING_PATIENCE_S = 5.0
_OTHERS_PATIENCE_S = 60.0
_STEP_S = 0.01
_LONGEST_ANSWER = 64 * 1024 * 1024
_AT_WORK = tuple(f"boot.(*containerManager).{verb}(" for verb in ("Checkpoint", "Pause", "Resume"))
_PROCESS = "kernel.(*Task).run("
_STOPPED = "kernel.(*Task).doStop("


class Kernel:
    """One instance's kernel. It answers unless its cgroup is frozen. All methods raise Lost when it is gone."""

    def __init__(self, path: Path) -> None:
        """`path` is the socket's."""
        self._path = path

    async def stop(self) -> None:
        """Let no process go on; returns when none does. Stops add up: as many calls of `go_on` are needed.

        Raises:
            Unavailable: some process does not stand still within seconds; all go on again then.
        """
        try:
            async with asyncio.timeout(_STOPPING_PATIENCE_S):
                await self._ask("containerManager.Pause")
        except TimeoutError as error:
            await self.go_on()
            raise Unavailable(f"the processes did not stand still within {_STOPPING_PATIENCE_S:.0f} s") from error

    async def go_on(self) -> None:
        """Undo one `stop`; to be called only after one, since the kernel ends where there was none."""
        await self._ask("containerManager.Resume")

    async def tidy(self) -> None:
        """Let go of memory that it took for something and needs no more."""
        await self._ask("Usage.Reduce", {})

    async def is_stopped(self) -> bool:
        """Say whether `stop` has been called (by whomever) and not undone, once nobody's request is being worked on.

        Raises:
            Unavailable: what somebody before us asked for takes very long.
        """
        try:
            async with asyncio.timeout(_OTHERS_PATIENCE_S):
                while _is_at_work(stacks := await self._stacks()):  # noqa: ASYNC110 - it tells only when asked
                    await asyncio.sleep(_STEP_S)
        except TimeoutError as error:
            raise Unavailable("the sandbox is still being saved for a server before this one") from error
        processes = [stack for stack in stacks if _PROCESS in stack]
        # One that waits for another is stopped too, but that other one is not.
        return bool(processes) and all(_STOPPED in stack for stack in processes)

    async def save(self, files: Sequence[int], *, meanwhile: Callable[[], Awaitable[None]]) -> None:
        """Write its state, the table of its memory's pages and these into three open files, then live on.

        `meanwhile` is called while it writes. However that ends, the writing is over when this returns or raises.

        Raises:
            Unavailable: it could not, in its words.
        """
        options = {"have_pages_file": True, "Resume": True, "metadata": {"compression": "none"}}
        with await self._put("containerManager.Checkpoint", options, files) as connection:
            try:
                await meanwhile()
            finally:
                answer = await finish(_answer(connection))
        _result(answer)

    async def _stacks(self) -> list[str]:
        return str(await self._ask("debug.Stacks")).split("\n\n")

    async def _ask(self, method: str, argument: dict[str, Any] | None = None) -> Any:
        with await self._put(method, argument) as connection:
            return _result(await _answer(connection))

    async def _put(
        self, method: str, argument: dict[str, Any] | None = None, files: Sequence[int] = ()
    ) -> socket.socket:
        """Put a question, with descriptors that the kernel gets copies of; return where the answer comes."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await asyncio.get_running_loop().sock_connect(connection, str(self._path))
            # Far smaller than the socket's buffer, so that it goes out whole.
            socket.send_fds(connection, [json.dumps({"method": method, "arg": argument}).encode()], list(files))
        except OSError as error:
            connection.close()
            raise Lost(f"the sandbox's kernel cannot be asked: {error.strerror}") from error
        except BaseException:
            connection.close()
            raise
        return connection


def _is_at_work(stacks: Sequence[str]) -> bool:
    return any(work in stack for stack in stacks for work in _AT_WORK)


def _result(answer: dict[str, Any]) -> Any:
    if not answer["success"]:
        # The first line says what; stacks may follow.
        raise Unavailable(f"the sandbox's kernel refused: {str(answer['err']).partition(chr(10))[0]}")
    return answer["result"]


async def _answer(connection: socket.socket) -> dict[str, Any]:
    """Return an answer, which is a JSON object and nothing else."""
    told = bytearray()
    while len(told) < _LONGEST_ANSWER:
        try:
            piece = await asyncio.get_running_loop().sock_recv(connection, _PIECE)
        except OSError:
            break
        if not piece:
            break
        told += piece
        if piece.endswith((b"}", b"}\n")):
            try:
                return dict(json.loads(told))
            except ValueError:
                continue  # there is more to come
    raise Lost("the sandbox's kernel ended before it answered")
