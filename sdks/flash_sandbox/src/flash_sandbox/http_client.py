"""The client over HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Callable, TypeVar
from urllib.parse import quote

import requests

from flash_sandbox.address import locate, parse
from flash_sandbox.errors import SandboxHTTPError, SandboxNotFoundError
from flash_sandbox.interface import Client
from flash_sandbox.results import ExecResult, MetricsResult, SnapshotResult

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ExecResult", "HTTPClient", "MetricsResult", "SandboxHTTPError", "SandboxNotFoundError", "SnapshotResult"]

_NOT_FOUND = 404
_SHOWN = 200
_Result = TypeVar("_Result")


class HTTPClient(Client):
    """Sandboxes over HTTP.

    A failure to reach the server is both a `SandboxHTTPError` of status 503 or 504 and the exception of `requests` that
    tells it apart: `ConnectionError`, `SSLError`, `ConnectTimeout` or `ReadTimeout`.

    Args:
        host: Name or IP of the server, or its whole address.
        port: Its port, unless `host` is an address.
        address: The whole address, with the path of a reverse proxy if there is one, such as
            `https://proxy.example.com/v1/service/sandbox`; goes before `host`.
        timeout: Seconds to wait for a connection, and for the server to send something; None waits for ever. Assign to
            the attribute of this name to change it.
        session: Carries authentication, certificates or retries of the user's, who closes it.

    Raises:
        ValueError: neither `host` nor `address` was given, or it is malformed.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int = 8080,
        address: str | None = None,
        timeout: float | None = 30.0,
        session: requests.Session | None = None,
    ) -> None:
        self._base_url = _base_url(host, port, address)
        self._owns_session = session is None
        self._session = requests.Session() if session is None else session
        self.timeout = timeout

    def start_sandbox(
        self,
        type: str,  # noqa: A002 - the published name
        image: str,
        command: list[str] | None = None,
        memory_mb: int = 512,
        cpu_cores: float = 1.0,
        kernel_image: str | None = None,
        initrd_path: str | None = None,
        snapshot_path: str | None = None,
        mem_file_path: str | None = None,
    ) -> str:
        wishes = {
            "type": type,
            "image": image,
            "command": command or [],
            "memory_mb": memory_mb,
            "cpu_cores": cpu_cores,
        }
        paths = {
            "kernel_image": kernel_image,
            "initrd_path": initrd_path,
            "snapshot_path": snapshot_path,
            "mem_file_path": mem_file_path,
        }
        wishes.update({key: path for key, path in paths.items() if path is not None})
        answer = self._send(self._session.post, "sandboxes", json=wishes)
        return _read(answer, lambda reply: _text(reply["id"]))

    def stop_sandbox(self, sandbox_id: str) -> None:
        self._send(self._session.delete, _path(sandbox_id))

    def exec_command(self, sandbox_id: str, command: list[str]) -> ExecResult:
        answer = self._send(self._session.post, _path(sandbox_id, "exec"), json={"command": command})
        return _read(
            answer,
            lambda reply: ExecResult(
                _text(reply.get("stdout", "")), _text(reply.get("stderr", "")), int(reply["exit_code"])
            ),
        )

    def get_status(self, sandbox_id: str) -> str:
        answer = self._send(self._session.get, _path(sandbox_id))
        return _read(answer, lambda reply: _text(reply.get("status", "")))

    def get_metrics(self, sandbox_id: str) -> MetricsResult:
        answer = self._send(self._session.get, _path(sandbox_id, "metrics"))
        return _read(answer, _metrics)

    def snapshot_sandbox(self, sandbox_id: str) -> dict[str, str]:
        answer = self._send(self._session.post, _path(sandbox_id, "snapshot"))
        return _read(
            answer, lambda reply: {key: _text(reply.get(key, "")) for key in ("snapshot_path", "mem_file_path")}
        )

    def resume_sandbox(self, sandbox_id: str) -> None:
        self._send(self._session.post, _path(sandbox_id, "resume"))

    def run_python(self, sandbox_id: str, code: str) -> str:
        answer = self._send(self._session.post, _path(sandbox_id, "run_python"), json={"code": code})
        return _read(answer, lambda reply: _text(reply["result"]))

    def get_platform_info(self, sandbox_id: str) -> str:
        answer = self._send(self._session.get, _path(sandbox_id, "platform_info"))
        return _read(answer, _platform)

    def close(self) -> None:
        """Close what this client opened; a session that was given stays open. Later calls still work."""
        if self._owns_session:
            self._session.close()

    def _send(self, verb: Callable[..., requests.Response], path: str, **body: object) -> requests.Response:
        """Ask, and return the answer if it tells of success."""
        try:
            answer = verb(self._base_url + path, timeout=self.timeout, **body)
        except requests.exceptions.RequestException as error:
            raise _explained(error) from error
        if answer.status_code == _NOT_FOUND:
            raise SandboxNotFoundError(_NOT_FOUND, answer.text.strip())
        if answer.status_code // 100 != 2:  # noqa: PLR2004 - any success
            raise SandboxHTTPError(answer.status_code, answer.text.strip())
        return answer


class _UnreachableError(SandboxHTTPError, requests.exceptions.ConnectionError):
    pass


class _UntrustedError(SandboxHTTPError, requests.exceptions.SSLError):
    pass


class _ConnectTimeoutError(SandboxHTTPError, requests.exceptions.ConnectTimeout):
    pass


class _ReadTimeoutError(SandboxHTTPError, requests.exceptions.ReadTimeout):
    pass


def _explained(error: requests.exceptions.RequestException) -> Exception:
    """Return the failure of an exchange as ours too; mistakes in using `requests` stay as they are."""
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return _ConnectTimeoutError(504, str(error))
    if isinstance(error, requests.exceptions.Timeout):
        return _ReadTimeoutError(504, str(error))
    if isinstance(error, requests.exceptions.SSLError):
        return _UntrustedError(503, str(error))
    if isinstance(error, (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        return _UnreachableError(503, str(error))
    return error


def _base_url(host: str | None, port: int, address: str | None) -> str:
    if address is not None:
        where = parse(address)
    elif host is not None:
        where = locate(host, port)
    else:
        raise ValueError("Must provide either 'address' or 'host'")
    return f"{where.scheme}://{where.target}{where.path}/"


def _path(sandbox_id: str, *rest: str) -> str:
    if sandbox_id in {"", ".", ".."}:  # would lead out of /sandboxes/, however escaped
        raise SandboxNotFoundError(_NOT_FOUND, f"sandbox {sandbox_id!r} not found")
    return "/".join(("sandboxes", quote(sandbox_id, safe=""), *rest))


def _read(answer: requests.Response, shape: Callable[[Any], _Result]) -> _Result:
    try:
        return shape(answer.json())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        text = answer.text.strip()
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        raise SandboxHTTPError(502, f"the server's answer makes no sense: {shown}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _metrics(reply: Mapping[str, Any]) -> MetricsResult:
    nothing = vars(MetricsResult())
    return MetricsResult(**{name: type(zero)(reply.get(name, zero)) for name, zero in nothing.items()})


def _platform(reply: Mapping[str, Any]) -> str:
    info = reply["info"]
    return json.dumps(info) if isinstance(info, dict) else _text(info)
