"""How a call is served: found by the end of its path, held to a deadline, cancelled with its caller, and told of."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from sandboxd.core.calls import check_key
from sandboxd.core.errors import Bug, DeadlineExceeded, Denied, SandboxdError, Uncertain
from sandboxd.surfaces.grpc.errors import STATUS, fail
from sandboxd.surfaces.grpc.methods import PATH, Method, decode, methods

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Self

    from google.protobuf.message import Message

    from sandboxd.surfaces.grpc.calls import Calls

IDEMPOTENCY_KEY = "idempotency-key"
"""Metadata under which a caller names a call that it may repeat."""
ORIGIN = "origin"
"""Metadata in which browsers, and proxies in their name, tell which page calls."""
WARNING_KEY = "sandboxd-warning"
"""Trailing metadata that names what was accepted but not acted on."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Served:
    """A call that has ended: its path without prefix, its status, and how long it took."""

    path: str
    status: grpc.StatusCode
    seconds: float
    sandbox: str


@dataclass(frozen=True, slots=True)
class Patience:
    """Longest times in seconds, `None` for no limit: of a call that runs a command, and of any other."""

    command_s: float | None = None
    other_s: float | None = None


class Serving(grpc.GenericRpcHandler):
    """Serves the service under every path prefix, since clients behind a proxy send theirs along.

    Used as `async with`; leaving waits for every call to end. `note` is told of each that has. `foreign` says why a web
    page's origin is refused, and nothing for one that is not.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        patience: Patience,
        note: Callable[[Served], None],
        foreign: Callable[[bytes], str] = lambda _: "",
    ) -> None:
        self._foreign = foreign
        self._patience = patience
        self._note = note
        self._served = {name: self._serving(method) for name, method in methods(calls).items()}
        self._outliving = asyncio.TaskGroup()
        self._under_way: set[asyncio.Future[Any]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._cutting = False

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return what serves a path, if anything does."""
        front, _, name = handler_call_details.method.rpartition("/")
        return self._served.get(name) if front.endswith(PATH) else None

    async def __aenter__(self) -> Self:
        await self._outliving.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is not None:
            self.cut()
        await self._idle.wait()
        await self._outliving.__aexit__(None, None, None)

    async def wait_idle(self) -> None:
        """Return when no call is under way."""
        await self._idle.wait()

    def cut(self) -> None:
        """Cancel every call that is under way; its caller is told that its outcome is uncertain."""
        self._cutting = True
        for work in self._under_way:
            work.cancel()

    def _serving(self, method: Method) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def serve(body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            return await self._serve(method, body, context)

        return grpc.unary_unary_rpc_method_handler(serve)

    async def _serve(self, method: Method, body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        began = time.perf_counter()
        status, sandbox = grpc.StatusCode.CANCELLED, ""
        call = asyncio.current_task()
        assert call is not None, "a coroutine runs in nothing"  # noqa: S101 - for the type checker
        self._begin(call)
        try:
            self._refuse_pages(context)
            request, warnings = decode(method, body)
            sandbox = getattr(request, "id", "")
            if warnings:
                context.set_trailing_metadata(tuple((WARNING_KEY, warning) for warning in warnings))
            arguments = (request, _key(context)) if method.takes_key else (request,)
            answer = await self._answer(method, arguments)
            status = grpc.StatusCode.OK
            return answer.SerializeToString()
        except SandboxdError as error:
            status = STATUS[type(error)]
            await fail(context, error)
        except asyncio.CancelledError:
            if not self._cutting:
                raise
            status = STATUS[Uncertain]
            await fail(context, Uncertain("the server is stopping and cut this call off", hint="look before repeating"))
        finally:
            self._end(call)
            self._note(Served(f"{PATH}/{method.name}", status, time.perf_counter() - began, sandbox))

    async def _answer(self, method: Method, arguments: tuple[object, ...]) -> Message:
        work = self._work(method, arguments)
        if method.outlives_caller:
            outliving = self._outliving.create_task(work)
            self._begin(outliving)
            outliving.add_done_callback(self._end)
            answer = await asyncio.shield(outliving)
        else:
            answer = await work
        if isinstance(answer, SandboxdError):
            raise answer
        return answer

    def _refuse_pages(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        for name, value in context.invocation_metadata() or ():
            if name == ORIGIN:
                refusal = self._foreign(value.encode() if isinstance(value, str) else value)
                if refusal:
                    raise Denied(refusal)

    def _begin(self, work: asyncio.Future[Any]) -> None:
        self._under_way.add(work)
        self._idle.clear()

    def _end(self, work: asyncio.Future[Any]) -> None:
        self._under_way.discard(work)
        if not self._under_way:
            self._idle.set()

    async def _work(self, method: Method, arguments: tuple[object, ...]) -> Message | SandboxdError:
        """Return the answer or what went wrong; raises nothing but a cancellation."""
        try:
            return await _within(
                self._patience.command_s if method.runs_command else self._patience.other_s, method.call(*arguments)
            )
        except SandboxdError as error:
            if isinstance(error, Bug):
                _log.error("bug", method=method.name, exc_info=True)
            return error
        except Exception:  # noqa: BLE001 - one call may fail, the server may not
            _log.exception("unforeseen failure", method=method.name)
            return Bug("an unforeseen failure of the server", hint="please report it")


def _key(context: grpc.aio.ServicerContext[bytes, bytes]) -> str:
    """Return the caller's idempotency key, empty where it gave none."""
    for name, value in context.invocation_metadata() or ():
        if name == IDEMPOTENCY_KEY:
            return check_key(value if isinstance(value, str) else value.decode("latin-1"))
    return ""


async def _within(limit: float | None, work: Awaitable[Message]) -> Message:
    try:
        async with asyncio.timeout(limit) as deadline:
            return await work
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise DeadlineExceeded(f"the call did not end within {limit:g} s and was given up") from error
