"""Who may talk to a server: any web page could reach one on loopback, so Host and Origin must be ours."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_HOST = re.compile(rb"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{0,5})?")
_ORIGIN = re.compile(rb"https?://" + _HOST.pattern, re.IGNORECASE)


class Neighbours:
    """Judges a request by its Host and Origin.

    A name that resolves to loopback only by trickery (DNS rebinding) still stands in Host, and a page that calls us
    from elsewhere stands in Origin. Loopback names and addresses pass with any port, and so do the names `hosts`;
    `origins` pass as they are. Hosts may be left unjudged, where any name may lead here.
    """

    def __init__(self, hosts: Iterable[str] = (), origins: Iterable[str] = (), *, judges_hosts: bool = True) -> None:
        self._hosts = frozenset(host.lower().removesuffix(".") for host in hosts) | {"localhost"}
        self._origins = frozenset(origin.lower().rstrip("/").encode() for origin in origins)
        self._judges_hosts = judges_hosts
        self._is_ours = lru_cache(maxsize=256)(self._judge)

    def refusal(self, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """Return why a request with these headers is refused; empty when it is not."""
        hosts = 0
        for name, value in headers:
            if name == b"host":
                hosts += 1
                if self._judges_hosts and not self._is_ours(_HOST, value):
                    return f"host `{_shown(value)}` is not this server; if it is, add it to `http.allowed_hosts`"
            elif name == b"origin" and (foreign := self.foreign(value)):
                return foreign
        return "" if hosts == 1 or not self._judges_hosts else "a request needs exactly one Host"

    def foreign(self, origin: bytes) -> str:
        """Return why a page of this origin is refused; empty when it is not."""
        if origin.lower() in self._origins or self._is_ours(_ORIGIN, origin):
            return ""
        return f"origin `{_shown(origin)}` is foreign; if it is yours, add it to `http.allowed_origins`"

    def _judge(self, shape: re.Pattern[bytes], value: bytes) -> bool:
        found = shape.fullmatch(value)
        if found is None:
            return False
        name = found[1].decode().lower().removesuffix(".")
        return name in self._hosts or _is_loopback(name.strip("[]"))


def is_loopback(host: str) -> bool:
    """Return whether listening on `host` reaches this machine only."""
    return host.lower() == "localhost" or _is_loopback(host.strip("[]"))


def judging(host: str, hosts: Sequence[str], origins: Sequence[str]) -> Neighbours | None:
    """Return the judge of what comes to a server that listens on `host`, if anything has to be judged there.

    Beyond loopback only what is configured is: Host where there are `hosts`, and Origin where there are any of both.
    """
    if is_loopback(host):
        return Neighbours(hosts, origins)
    return Neighbours(hosts, origins, judges_hosts=bool(hosts)) if hosts or origins else None


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or bool(mapped and mapped.is_loopback)


def _shown(value: bytes) -> str:
    return value[:200].decode("ascii", "replace")
