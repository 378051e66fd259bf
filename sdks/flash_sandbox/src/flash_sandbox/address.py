"""Where a server is, from what a user wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import urlsplit

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WHOLE_ADDRESS = re.compile(r".*/.*|\[.*|[^:]*:\d+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """A server and the path under which it answers.

    Attributes:
        scheme: `http` or `https`.
        target: Host and port, as in `[::1]:8080`.
        path: What a reverse proxy strips, without a slash at its end; usually empty.
    """

    scheme: str
    target: str
    path: str = ""


def locate(host: str, port: int) -> Address:
    """Return the address of a host that listens on a port; a host that is an address itself is read as one.

    Raises:
        ValueError: it is an address, and not a good one.
    """
    if _WHOLE_ADDRESS.fullmatch(host.strip()):
        return parse(host)
    return Address("http", f"{_bracketed(host)}:{port}")


def parse(text: str) -> Address:
    """Return the address that a text such as `proxy:8092/v1/service/sandbox` or `https://proxy` means.

    The scheme is http unless the text says otherwise, the port that of the scheme. Credentials, query and fragment are
    dropped.

    Raises:
        ValueError: the scheme is neither http nor https, or the port is no port.
    """
    text = text.strip()
    parts = urlsplit(text if _SCHEME.match(text) else f"http://{text}")
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"cannot speak `{parts.scheme}` to `{text}`: only http and https are known")
    host = _bracketed(parts.hostname or "localhost")
    return Address(parts.scheme, f"{host}:{parts.port or _DEFAULT_PORTS[parts.scheme]}", parts.path.rstrip("/"))


def _bracketed(host: str) -> str:
    try:
        return f"[{IPv6Address(host)}]"
    except ValueError:
        return host
