"""Where a Docker daemon listens, and how to connect there."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from sandboxd.core.errors import Unavailable

DEFAULT = "unix:///var/run/docker.sock"
_PLAIN_PORT = 2375


@dataclass(frozen=True, slots=True)
class Address:
    """A Unix socket's path, or a host and a port."""

    text: str
    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def of(cls, setting: str) -> Address:
        """Read a setting; empty means `DOCKER_HOST` and, where that is unset, the usual socket.

        Raises:
            Unavailable: it is no address, or one that needs what we lack.
        """
        text = setting or os.environ.get("DOCKER_HOST", "") or DEFAULT
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise _wrong(text) from None
        match parts.scheme:
            case "unix" if parts.path:
                return cls(text, path=parts.path)
            case "tcp" | "http" if parts.hostname:
                if os.environ.get("DOCKER_TLS_VERIFY", ""):
                    raise Unavailable(
                        "`DOCKER_TLS_VERIFY` is set, and this version does not speak TLS to Docker",
                        hint="forward the daemon's socket through SSH and name that socket",
                    )
                return cls(text, host=parts.hostname, port=port or _PLAIN_PORT)
        raise _wrong(text)

    async def connect(self) -> socket.socket:
        """Return a connected non-blocking socket. Raises OSError."""
        family = socket.AF_UNIX if self.path else socket.AF_INET6 if ":" in self.host else socket.AF_INET
        connecting = socket.socket(family, socket.SOCK_STREAM)
        connecting.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connecting, self.path or (self.host, self.port))
            if not self.path:
                connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            connecting.close()
            raise
        return connecting

    def unreachable(self, error: OSError | None) -> Unavailable:
        """Return the error that says why nobody could be reached there."""
        match error:
            case FileNotFoundError():
                return Unavailable(
                    f"there is no Docker daemon at `{self.text}`: the socket does not exist",
                    hint="start the daemon, or name another in `docker.host`",
                )
            case PermissionError():
                return Unavailable(f"the Docker daemon's socket `{self.text}` may not be used by this user")
            case ConnectionRefusedError():
                return Unavailable(f"the Docker daemon at `{self.text}` refuses connections", hint="is it running?")
        return Unavailable(f"the Docker daemon at `{self.text}` cannot be reached: {error or 'it hung up'}")


def _wrong(text: str) -> Unavailable:
    return Unavailable(f"`{text}` is no address of a Docker daemon", hint="`unix:///PATH` or `tcp://HOST:PORT`")
