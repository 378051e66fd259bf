"""Clients that trust a CA of the user's, against a server that encrypts every port."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trustme
from tests.sdks.flash_sandbox.conftest import Installed
from tests.sdks.venvs import client_python
from tests.surfaces.fake_engine import FakeEngine
from tests.surfaces.live import LiveDoors

from sandboxd.server.settings import Settings, Tls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIFE = """
import sys
import flash_sandbox
address, client = sys.argv[1:]
with getattr(flash_sandbox, client)(address=address) as client:
    sandbox = client.start_sandbox(type="container", image="alpine:latest")
    print(client.get_status(sandbox))
    print(len(client.exec_command(sandbox, ["sh", "-c", "head -c 1000000 /dev/zero | tr '\\\\0' x"]).stdout))
    client.stop_sandbox(sandbox)
    try:
        client.get_status(sandbox)
    except Exception as error:
        print("NotFound" in type(error).__name__)
"""
LIVED = ["running", "1000000", "True"]


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDoors]:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued = authority.issue_cert("localhost")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    (folder / "key.pem").touch(mode=0o600)
    (folder / "key.pem").write_bytes(issued.private_key_pem.bytes())
    settings = replace(Settings(), tls=Tls(cert=str(folder / "cert.pem"), key=str(folder / "key.pem")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(folder / "ca.pem"))
        patch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(folder / "ca.pem"))
        with LiveDoors(FakeEngine(folder), settings) as live:
            yield live


def at(server: str, prefix: str) -> str:
    return f"https://localhost:{server.rpartition(':')[2]}{prefix}"


@pytest.mark.parametrize("prefix", ["", "/v1/service/sandbox"])
@pytest.mark.parametrize(
    ("client", "door"), [("HTTPClient", "http"), ("SandboxClient", "http"), ("SandboxClient", "grpc")]
)
def test_ours(client: str, door: str, prefix: str, encrypted: LiveDoors, installed: Installed) -> None:
    address = at(encrypted.address if door == "http" else encrypted.grpc, prefix)
    assert installed.run("-", address, client, code=LIFE).split() == LIVED


@pytest.mark.parametrize("version", ["0.1.0", "0.1.1"])
def test_the_published_http_client(version: str, encrypted: LiveDoors, tmp_path: Path) -> None:
    """Its gRPC client cannot encrypt."""
    published = Installed(client_python(f"flash-sandbox=={version}"), tmp_path)
    assert published.run("-", at(encrypted.address, ""), "HTTPClient", code=LIFE).split() == LIVED


def test_who_does_not_trust_the_ca_is_told(
    encrypted: LiveDoors, installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(AssertionError, match="CERTIFICATE_VERIFY_FAILED"):
        installed.run("-", at(encrypted.address, ""), "HTTPClient", code=LIFE)
