"""Encryption of every port with one certificate, and what is refused at the start."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest
import trustme
from structlog.testing import capture_logs
from tests.server.shown import Shown, application
from tests.surfaces.fake_engine import FakeEngine
from tests.surfaces.live import free_ports
from websockets.asyncio.client import connect

from sandboxd.core.errors import Invalid
from sandboxd.ports.surface import Bounds
from sandboxd.server.certificate import Certificate, renewed_by_hangup
from sandboxd.server.doors import Doors
from sandboxd.server.settings import Grpc, Http, Settings, Tls
from sandboxd.surfaces.grpc import sandbox_pb2 as wire
from sandboxd.surfaces.grpc.calls import Calls
from sandboxd.surfaces.grpc.serving import Patience, Serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Tls:
    return write(tmp_path, authority)


def write(folder: Path, authority: trustme.CA) -> Tls:
    """Write a certificate for this machine and its key."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.touch(mode=0o600)
    key.write_bytes(issued.private_key_pem.bytes())
    return Tls(cert=str(certificate), key=str(key))


def trusting(authority: trustme.CA, *protocols: str, most: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    if most is not None:
        context.maximum_version = most
    return context


@dataclass
class Encrypted:
    """A server with all its doors, encrypted."""

    port: int
    grpc_port: int
    authority: trustme.CA
    doors: Doors

    def chosen(self, port: int, *protocols: str) -> str | None:
        """Return the protocol that a connection gets."""
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            trusting(self.authority, *protocols).wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            return connection.selected_alpn_protocol()

    def serial(self, port: int) -> str:
        """Return the number of the certificate that is shown."""
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            trusting(self.authority).wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            shown = connection.getpeercert()
            assert shown is not None
            return str(shown["serialNumber"])

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=10, context=trusting(self.authority))
        connection.request("GET", path)
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        return answer

    def status(self, port: int, prefix: str = "") -> str:
        """Ask over gRPC for a sandbox that does not exist; return the server's words."""
        credentials = grpc.ssl_channel_credentials(self.authority.cert_pem.bytes())
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            call = channel.unary_unary(
                f"{prefix}/sandbox.SandboxService/GetStatus",
                request_serializer=wire.StatusRequest.SerializeToString,
                response_deserializer=wire.StatusResponse.FromString,
            )
            with pytest.raises(grpc.RpcError) as caught:
                call(wire.StatusRequest(id="sb-1"), timeout=10)
        return str(caught.value.details())


@pytest.fixture
async def encrypted(tmp_path: Path, authority: trustme.CA, files: Tls) -> AsyncIterator[Encrypted]:
    async with serving(tmp_path, authority, files) as there:
        yield there


@asynccontextmanager
async def serving(folder: Path, authority: trustme.CA, files: Tls) -> AsyncIterator[Encrypted]:
    port, grpc_port = free_ports(2)
    settings = Settings(http=Http(port=port), grpc=Grpc(port=grpc_port), tls=files)
    ready = asyncio.Event()
    calls = Calls(FakeEngine(folder), Bounds(), owner="local")
    async with (
        Doors(settings, grace_s=0.5) as doors,
        Serving(calls, patience=Patience(), note=lambda _: None) as served,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(doors.serve(application(Shown()), served, listening=ready.set))
        await ready.wait()
        try:
            yield Encrypted(port, grpc_port, authority, doors)
        finally:
            doors.stop()


async def test_every_port_is_encrypted(encrypted: Encrypted) -> None:
    assert encrypted.doors.addresses == [
        f"https://127.0.0.1:{encrypted.port}",
        f"grpcs://127.0.0.1:{encrypted.grpc_port}",
    ]
    assert await asyncio.to_thread(encrypted.get, "/give/all") == (200, b"firstlast")
    for port in (encrypted.port, encrypted.grpc_port):
        for prefix in ("", "/v1/service/sandbox"):
            assert "sb-1" in await asyncio.to_thread(encrypted.status, port, prefix)
    context = trusting(encrypted.authority)
    async with connect(f"wss://localhost:{encrypted.port}/ws/echo", ssl=context) as client:
        for message in ("hi", b"x" * 200_000):
            await client.send(message)
            assert await client.recv() == message


async def test_http2_is_chosen_by_none_but_who_speaks_nothing_else(encrypted: Encrypted) -> None:
    for offered, chosen in [
        (("h2", "http/1.1"), "http/1.1"),
        (("http/1.1",), "http/1.1"),
        (("h2",), "h2"),
        ((), None),
    ]:
        assert await asyncio.to_thread(encrypted.chosen, encrypted.port, *offered) == chosen
    assert await asyncio.to_thread(encrypted.chosen, encrypted.grpc_port, "h2") == "h2"


async def test_what_is_not_encrypted_is_hung_up_on(encrypted: Encrypted) -> None:
    for port in (encrypted.port, encrypted.grpc_port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /give/all HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        with suppress(ConnectionResetError):
            received = await asyncio.wait_for(reader.read(), 10)
        assert b"HTTP/" not in received
        writer.close()
    assert (await asyncio.to_thread(encrypted.get, "/give/all"))[0] == 200


async def test_old_versions_of_tls_are_refused(encrypted: Encrypted) -> None:
    def ask(most: ssl.TLSVersion) -> str | None:
        context = trusting(encrypted.authority)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = most
        with (
            socket.create_connection(("127.0.0.1", encrypted.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            return connection.version()

    with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises((ssl.SSLError, ConnectionResetError)):
        await asyncio.to_thread(ask, ssl.TLSVersion.TLSv1_1)
    assert await asyncio.to_thread(ask, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert await asyncio.to_thread(ask, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"


async def test_a_renewed_certificate_is_shown_to_the_next_caller(
    encrypted: Encrypted, tmp_path: Path, authority: trustme.CA, files: Tls
) -> None:
    ports = (encrypted.port, encrypted.grpc_port)
    before = {await asyncio.to_thread(encrypted.serial, port) for port in ports}
    async with connect(f"wss://localhost:{encrypted.port}/ws/echo", ssl=trusting(authority)) as open_before:
        with renewed_by_hangup(encrypted.doors.certificate):
            write(tmp_path, authority)
            os.kill(os.getpid(), signal.SIGHUP)
            async with asyncio.timeout(10):
                while (after := await asyncio.to_thread(encrypted.serial, ports[0])) in before:
                    await asyncio.sleep(0.01)
        assert {await asyncio.to_thread(encrypted.serial, port) for port in ports} == {after}
        await open_before.send("still here")
        assert await open_before.recv() == "still here"
    with capture_logs() as lines:
        (tmp_path / "key.pem").write_bytes(authority.issue_cert("localhost").private_key_pem.bytes())
        assert encrypted.doors.certificate is not None
        encrypted.doors.certificate.renew()
    assert [line["event"] for line in lines] == ["certificate not renewed"]
    assert await asyncio.to_thread(encrypted.serial, ports[0]) == after


@pytest.mark.parametrize("kind", list(trustme.KeyType))
def test_a_key_of_another_certificate_is_told(
    files: Tls, tmp_path: Path, authority: trustme.CA, kind: trustme.KeyType
) -> None:
    other = authority.issue_cert("localhost", key_type=kind)
    (tmp_path / "key.pem").write_bytes(other.private_key_pem.bytes())
    with pytest.raises(Invalid, match=r"the key `.*key\.pem` does not belong to the certificate `.*cert\.pem`"):
        Certificate(files)


@pytest.mark.parametrize("name", ["cert", "key"])
def test_files_that_are_no_use_are_told(files: Tls, tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name}.pem"
    file.write_text("nonsense")
    with pytest.raises(Invalid, match="are not a certificate and its unencrypted key"):
        Certificate(files)
    file.unlink()
    with pytest.raises(Invalid, match=rf"`tls\.{name}`: `.*{name}\.pem` cannot be read: No such file or directory"):
        Certificate(files)
    file.mkdir()
    with pytest.raises(Invalid, match="cannot be read: Is a directory"):
        Certificate(files)


def test_a_key_that_needs_a_password_is_told_and_none_is_asked_for(files: Tls, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as pem  # noqa: PLC0415 - for this test alone

    key = pem.load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    locked = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(b"secret"))
    (tmp_path / "key.pem").write_bytes(locked)
    with pytest.raises(Invalid, match="unencrypted key"):
        Certificate(files)


def test_a_key_that_all_may_read_is_warned_of(files: Tls, tmp_path: Path) -> None:
    with capture_logs() as lines:
        Certificate(files)
        assert not lines
        (tmp_path / "key.pem").chmod(0o644)
        Certificate(files)
    assert [line["log_level"] for line in lines] == ["warning"]


@pytest.mark.parametrize(("given", "missing"), [("cert", "key"), ("key", "cert")])
def test_neither_goes_without_the_other(given: str, missing: str) -> None:
    with pytest.raises(Invalid, match=rf"`tls\.{given}` is set without `tls\.{missing}`"):
        Settings(tls=Tls(**{given: "file"})).check()
