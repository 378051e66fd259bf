"""The Docker Engine's HTTP API, one connection a call, so that nothing is left open between calls."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sandboxd.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import ModuleType

    import aiohttp

    from sandboxd.runtimes.docker.address import Address

OLDEST = (1, 41)
"""The version of the API that is spoken, with daemons that know it still."""
PATIENCE_S = 120.0
"""How long a daemon may take for one call: under load a start takes seconds."""
PROBE_PATIENCE_S = 1.0
_CONNECT_PATIENCE_S = 2.0
_JSON = {"Content-Type": "application/json"}
_TAR = {"Content-Type": "application/x-tar"}
_REFUSALS = 400


class Refused(Exception):
    """The daemon said no: the status of its answer and its own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return f"the Docker daemon refuses: {self.message}"


class Api:
    """Calls to one daemon. Each raises `Refused`, or Unavailable where there is no daemon to refuse."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.version = ".".join(map(str, OLDEST))
        self._aiohttp: ModuleType | None = None

    async def get(self, path: str, /, *, patience_s: float = PATIENCE_S, **params: str) -> Any:
        """Return what is at a path."""
        return await self._ask("GET", path, params, patience_s=patience_s)

    async def post(
        self, path: str, body: object = None, /, *, patience_s: float | None = PATIENCE_S, **params: str
    ) -> Any:
        """Have something done."""
        data = None if body is None else json.dumps(body).encode()
        return await self._ask("POST", path, params, data=data, headers=_JSON, patience_s=patience_s)

    async def delete(self, path: str, /, **params: str) -> None:
        """Have something removed."""
        await self._ask("DELETE", path, params)

    async def has(self, path: str, /, **params: str) -> bool:
        """Say whether there is something at a path."""
        try:
            async with self._call("HEAD", path, params, patience_s=PATIENCE_S):
                return True
        except Refused as refused:
            if refused.status == 404:  # noqa: PLR2004 - HTTP's own number
                return False
            raise

    async def upload(self, method: str, path: str, tar: bytes | AsyncIterator[bytes], /, **params: str) -> str:
        """Give the daemon a tar, however long that takes, and return what it says."""
        async with self._call(method, path, params, data=tar, headers=_TAR, patience_s=None) as response:
            return (await response.read()).decode(errors="replace")

    async def download(self, path: str, /, **params: str) -> AsyncIterator[bytes]:
        """Yield the bytes at a path, however long that takes."""
        async with self._call("GET", path, params, patience_s=None) as response:
            async for piece in response.content.iter_any():
                yield piece

    def at(self, path: str) -> str:
        """Return the path of a resource in the version that is spoken; one that begins with `/` is in none."""
        return path if path.startswith("/") else f"/v{self.version}/{path}"

    async def _ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        patience_s: float | None = PATIENCE_S,
    ) -> Any:
        async with self._call(method, path, params, data=data, headers=headers, patience_s=patience_s) as response:
            text = await response.read()
            return json.loads(text) if text and "json" in response.headers.get("Content-Type", "") else None

    @asynccontextmanager
    async def _call(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        *,
        patience_s: float | None,
        data: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        address = self.address
        if address.path and not os.path.exists(address.path):  # noqa: ASYNC240, PTH110 - at once, unless it hangs for all
            raise address.unreachable(FileNotFoundError())
        library = self._aiohttp or await self._load()
        connect_s = min(_CONNECT_PATIENCE_S, patience_s or _CONNECT_PATIENCE_S)
        connector = library.UnixConnector(address.path) if address.path else library.TCPConnector()
        timeout = library.ClientTimeout(total=patience_s, sock_connect=connect_s)
        url = "http://docker" if address.path else f"http://{_bracketed(address.host)}:{address.port}"
        try:
            async with (
                library.ClientSession(connector=connector, timeout=timeout) as client,
                client.request(method, url + self.at(path), params=params, data=data, headers=headers) as response,
            ):
                if response.status >= _REFUSALS:
                    raise Refused(response.status, _words(await response.read()))
                yield response
        except TimeoutError:
            within = connect_s if patience_s is None else patience_s
            raise Unavailable(f"the Docker daemon at `{address.text}` did not answer within {within:g} s") from None
        except library.ClientConnectorError as error:
            raise address.unreachable(error.os_error) from error
        except (library.ClientError, OSError) as error:
            raise Unavailable(f"the Docker daemon at `{address.text}` went away: {error or 'it hung up'}") from error

    async def _load(self) -> ModuleType:
        """Import the HTTP client where a daemon is asked for the first time: it takes a tenth of a second."""
        try:
            self._aiohttp = await asyncio.to_thread(importlib.import_module, "aiohttp")
        except ImportError as error:
            raise Unavailable(
                f"the HTTP client that Docker needs is not installed ({error})", hint="pip install 'sandboxd[docker]'"
            ) from error
        return self._aiohttp


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _words(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"]).strip()
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()[:500] or "no reason given"
