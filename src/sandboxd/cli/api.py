"""A server's own API as the command line asks it, on one connection."""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec
import typer

from sandboxd.core.errors import LEAVES, Bug, Conflict, Invalid, NotFound, SandboxdError, Unavailable
from sandboxd.surfaces.native.wire import ErrorBody, SandboxBody, SandboxesBody

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Self

Server = Annotated[
    str, typer.Option("--server", metavar="URL", envvar="SANDBOXD_SERVER", help="Server to ask.", show_default=True)
]
Authority = Annotated[
    Path | None,
    typer.Option(
        "--ca", metavar="FILE", envvar="SANDBOXD_CA", help="Certificates (PEM) that an https server may have."
    ),
]
Since = Annotated[
    str, typer.Option(metavar="OUT[,ERR]", help="Leave out so many bytes from the beginning of stdout and stderr.")
]
DEFAULT_SERVER = "http://127.0.0.1:8080"

_Shape = TypeVar("_Shape", bound=msgspec.Struct)

ROOT = "/api/v1/sandboxes"
PIECE_BYTES = 128 * 1024
_PORTS = {"http": 80, "https": 443}
_CONNECT_S = 10.0
_BY_CODE = {leaf.code: leaf for leaf in LEAVES}
_MOST_TEXT = 300


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is: its URL taken apart."""

    url: str
    secure: bool
    host: str
    port: int
    path: str
    authority: Path | None

    @classmethod
    def at(cls, url: str, authority: Path | None) -> Place:
        """Return the place that a URL names. Raises Invalid."""
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS[parts.scheme]
        except (ValueError, KeyError):
            raise Invalid(f"`{url}` is not the URL of a server", hint=f"such as {DEFAULT_SERVER}") from None
        if not parts.hostname or parts.query or parts.username:
            raise Invalid(f"`{url}` is not the URL of a server", hint=f"such as {DEFAULT_SERVER}")
        return cls(url, parts.scheme == "https", parts.hostname, port, parts.path.rstrip("/"), authority)

    @property
    def netloc(self) -> str:
        """Host and port as they stand in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def tls(self) -> ssl.SSLContext | None:
        """Return how to check the server's certificate; None where it has none. Raises Invalid."""
        if not self.secure:
            return None
        try:
            return ssl.create_default_context(cafile=self.authority)
        except OSError as error:
            raise Invalid(f"`{self.authority}` holds no certificates: {error}") from error

    def unreachable(self, error: Exception) -> Unavailable:
        """Return what to say when nobody answers."""
        if isinstance(error, ssl.SSLCertVerificationError):
            hint = "name the certificate it should have with --ca"
            return Unavailable(f"the server at {self.url} cannot be trusted: {error.verify_message}", hint=hint)
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        hint = "start one with `sandboxd serve`, or name another with --server"
        return Unavailable(f"no server answers at {self.url}: {reason}", hint=hint)


class Api:
    """Asks one server. Used as a context manager; one answer at a time."""

    def __init__(self, server: str, authority: Path | None) -> None:
        self.place = place = Place.at(server, authority)
        tls = place.tls()
        self._connection = (
            http.client.HTTPConnection(place.host, place.port, timeout=_CONNECT_S)
            if tls is None
            else http.client.HTTPSConnection(place.host, place.port, timeout=_CONNECT_S, context=tls)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """Return the whole answer.

        Raises:
            Unavailable: nobody answers.
            SandboxdError: the server refuses.
        """
        with self._asking(method, path, query) as response:
            return response.read()

    def lines(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[bytes]:
        """Yield an answer line by line as it comes. Raises like `ask`."""
        with self._asking("GET", path, query) as response:
            while line := response.readline():
                yield line

    def pieces(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[bytes]:
        """Yield an answer piece by piece as it comes. Raises like `ask`."""
        with self._asking("GET", path, query) as response:
            while piece := response.read(PIECE_BYTES):
                yield piece

    def put(self, path: str, query: Mapping[str, str], body: Iterable[bytes] = ()) -> None:
        """Send a body piece by piece. Raises like `ask`."""
        with self._asking("PUT", path, query, body) as response:
            response.read()

    def sandboxes(self) -> list[SandboxBody]:
        """Return all sandboxes, oldest first."""
        return decoded(self.ask("GET", ROOT), SandboxesBody).sandboxes

    def find(self, beginning: str) -> str:
        """Return the id of the only sandbox whose id begins so. Raises NotFound or Conflict."""
        ids = [sandbox.id for sandbox in self.sandboxes()]
        if beginning in ids:
            return beginning
        found = [candidate for candidate in ids if beginning and candidate.startswith(beginning)]
        if not found:
            raise NotFound(f"there is no sandbox `{beginning}`", hint="`sandboxd ps` lists them")
        if len(found) > 1:
            raise Conflict(f"{len(found)} sandboxes begin with `{beginning}`", hint="give more of the id")
        return found[0]

    @contextlib.contextmanager
    def _asking(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Iterable[bytes] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        reached = False
        try:
            self._send(method, self.place.path + path + encoded(query), body)
            response = self._connection.getresponse()
            reached = True
            self._check(response)
            yield response
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            if reached:
                raise Unavailable(f"the answer of {self.place.url} was cut off") from error
            raise self.place.unreachable(error) from error
        except BaseException:
            self._connection.close()  # part of the answer may be unread
            raise

    def _check(self, response: http.client.HTTPResponse) -> None:
        if response.status >= 300:  # noqa: PLR2004 - nothing is ever redirected
            raise refusal(self.place, response.status, response.read())

    def _send(self, method: str, path: str, body: Iterable[bytes] | None) -> None:
        connection = self._connection
        if connection.sock is None:
            connection.connect()
        if connection.sock is not None:
            connection.sock.settimeout(None)
        if body is None:
            connection.request(method, path)
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused half-way: the answer says why
            connection.request(method, path, iter(body), {"Transfer-Encoding": "chunked"}, encode_chunked=True)


def path_of(sandbox_id: str) -> str:
    """Return the path of a sandbox."""
    return f"{ROOT}/{quote(sandbox_id, safe='')}"


def encoded(query: Mapping[str, str] | None) -> str:
    """Return a query string; what is no text in it goes as the bytes it stands for."""
    if not query:
        return ""
    return "?" + urlencode([(key, os.fsencode(value)) for key, value in query.items()], quote_via=quote)


def decoded(body: bytes, shape: type[_Shape]) -> _Shape:
    """Return JSON as its type. Raises Unavailable where a server that is not ours said it."""
    try:
        return msgspec.json.decode(body, type=shape)
    except ValueError as error:
        raise Unavailable(f"what the server said cannot be understood: {error}") from error


def offsets(text: str) -> dict[int, int]:
    """Return how many bytes of stdout and stderr, `OUT[,ERR]`, are to be left out. Raises Invalid."""
    stdout, _, stderr = text.partition(",")
    if not all(part.isascii() and part.isdigit() for part in (stdout, stderr or "0")):
        raise Invalid(f"`{text}` is not a number of bytes, or two with a comma between them")
    return {1: int(stdout), 2: int(stderr or "0")}


def since_query(told: Mapping[int, int]) -> dict[str, str]:
    """Return the query that leaves out what was told."""
    return {"stdout_since": str(told[1]), "stderr_since": str(told[2])}


def refusal(place: Place, status: int, body: bytes) -> SandboxdError:
    """Return the error that a server told."""
    try:
        return error_of(msgspec.json.decode(body, type=ErrorBody))
    except ValueError:
        text = body[:_MOST_TEXT].decode(errors="replace").strip()
        return Unavailable(f"{place.url} answered with status {status}: {text}", hint="is it a `sandboxd` server?")


def error_of(told: ErrorBody) -> SandboxdError:
    """Return what a server told as the error that it was there."""
    return _BY_CODE.get(told.code, Bug)(told.message, hint=told.hint)
