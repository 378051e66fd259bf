"""The server's certificate: read before anything is served, offered on every port, read again when it was renewed."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from sandboxd.core.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandboxd.server.settings import Tls

HTTP = ("http/1.1", "h2")
"""What the HTTP port speaks, best first: only who speaks nothing but HTTP/2, which is gRPC's clients, gets that."""
GRPC = ("h2",)

_log = structlog.get_logger()


class Certificate:
    """A certificate with its key, and what offers it to those who connect. TLS 1.2 or later.

    Raises:
        Invalid: a file cannot be read or is not what it should be, or the key is another certificate's.
    """

    def __init__(self, settings: Tls) -> None:
        self._certificate = Path(settings.cert).expanduser().absolute()
        self._key = Path(settings.key).expanduser().absolute()
        self._contexts: list[ssl.SSLContext] = []
        self._check()

    def offer(self, protocols: tuple[str, ...]) -> ssl.SSLContext:
        """Return what encrypts connections that then speak one of `protocols`, the first that the caller speaks too."""
        context = self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(list(protocols))
        self._contexts.append(context)
        return context

    def renew(self) -> None:
        """Read the files again; connections from now on get what they hold, or what was there if they are no good."""
        try:
            self._check()
            for context in self._contexts:
                self._load(context)
        except Invalid as error:
            _log.error("certificate not renewed", why=str(error))
        else:
            _log.info("certificate renewed", file=str(self._certificate))

    def _check(self) -> None:
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        mode = os.stat(self._key).st_mode  # noqa: PTH116 - as good as any
        if mode & (stat.S_IROTH | stat.S_IWOTH):
            _log.warning("private key open to all", file=str(self._key), hint="take its permissions from others")

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        for name, file in (("tls.cert", self._certificate), ("tls.key", self._key)):
            try:
                file.open("rb").close()
            except OSError as error:
                raise Invalid(f"`{name}`: `{file}` cannot be read: {error.strerror}") from error
        try:
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except ssl.SSLError as error:
            raise Invalid(_reason(error, self._certificate, self._key)) from error
        return context


@contextmanager
def renewed_by_hangup(certificate: Certificate | None) -> Iterator[None]:
    """Let SIGHUP renew the certificate, if there is one, while the block runs. Only in the main thread."""
    if certificate is None:
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, certificate.renew)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def _no_password() -> str:
    return ""  # else OpenSSL asks for it on the terminal


def _reason(error: ssl.SSLError, certificate: Path, key: Path) -> str:
    if error.reason in ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
        return f"the key `{key}` does not belong to the certificate `{certificate}`"
    return f"`{certificate}` and `{key}` are not a certificate and its unencrypted key, both as PEM"
