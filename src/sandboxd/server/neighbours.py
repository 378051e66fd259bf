"""Who may talk to a server on loopback: any web page could reach it, so Host and Origin must be ours."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Neighbours:
    """Judges a request by its Host and Origin.

    A name that resolves to loopback only by trickery (DNS rebinding) still stands in Host, and a page that calls us
    from elsewhere stands in Origin. Loopback names and addresses pass with any port, and so do the names `hosts`;
    `origins` pass as they are.
    """

    def __init__(self, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._hosts = frozenset(host.lower() for host in hosts) | {"localhost"}
        self._origins = frozenset(origin.lower().rstrip("/").encode() for origin in origins)
        self._is_ours = lru_cache(maxsize=256)(self._judge)

    def refusal(self, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """Return why a request with these headers is refused; empty when it is not."""
        hosts = 0
        for name, value in headers:
            if name == b"host":
                hosts += 1
                if not self._is_ours(b"//" + value):
                    return f"host `{_shown(value)}` is not this server; if it is, add it to `http.allowed_hosts`"
            elif name == b"origin" and value.lower() not in self._origins and not self._is_ours(value):
                return f"origin `{_shown(value)}` is foreign; if it is yours, add it to `http.allowed_origins`"
        return "" if hosts == 1 else "a request needs exactly one Host"

    def _judge(self, url: bytes) -> bool:
        try:
            name = urlsplit(url.decode("ascii")).hostname or ""
        except ValueError:
            return False
        name = name.removesuffix(".")
        return name in self._hosts or _is_loopback(name)


def is_loopback(host: str) -> bool:
    """Return whether listening on `host` reaches this machine only."""
    return host.lower() == "localhost" or _is_loopback(host.strip("[]"))


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or bool(mapped and mapped.is_loopback)


def _shown(value: bytes) -> str:
    return value[:200].decode("ascii", "replace")
