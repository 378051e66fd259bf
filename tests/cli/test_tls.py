"""The command line and a server with a certificate."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trustme
from tests.cli.conftest import Shell
from tests.surfaces.fake_engine import FakeEngine
from tests.surfaces.live import LiveDoors

from sandboxd.core.ids import new_internal_id
from sandboxd.core.lifecycle import State
from sandboxd.core.records import SandboxRecord
from sandboxd.core.spec import SandboxSpec
from sandboxd.server.settings import Settings, Tls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECORD = SandboxRecord(
    internal_id=new_internal_id(),
    public_id="sb-aatls",
    owner="local",
    node="fake",
    state=State.RUNNING,
    spec=SandboxSpec(runtime="container", image="alpine:latest"),
    runtime="container",
    created_at=time.time(),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `cert.pem` and its `key.pem`, `ca.pem` that signed it, and `other.pem` that did not, are."""
    place = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(place / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(place / "other.pem"))
    issued.cert_chain_pems[0].write_to_path(str(place / "cert.pem"))
    (place / "key.pem").touch(mode=0o600)
    issued.private_key_pem.write_to_path(str(place / "key.pem"), append=True)
    return place


@pytest.fixture(scope="module")
def encrypted(folder: Path) -> Iterator[Shell]:
    engine = FakeEngine(folder)
    engine.records[RECORD.owner, RECORD.public_id] = RECORD
    settings = replace(Settings(), tls=Tls(cert=str(folder / "cert.pem"), key=str(folder / "key.pem")))
    with LiveDoors(engine, settings) as live:
        yield Shell(f"https://localhost:{live.host_port.rpartition(':')[2]}")


def test_a_server_whose_certificate_is_trusted_is_asked_and_talked_with(encrypted: Shell, folder: Path) -> None:
    trust = ["--ca", str(folder / "ca.pem")]
    assert encrypted.run("ps", "-q", *trust).stdout == b"sb-aatls\n"
    assert encrypted.run("exec", "-i", *trust, "sb-aatls", "cat", data=b"x" * 300_000).stdout == b"x" * 300_000


@pytest.mark.parametrize("trust", [[], ["--ca", "{folder}/other.pem"]])
def test_another_certificate_is_refused_with_a_sentence(encrypted: Shell, folder: Path, trust: list[str]) -> None:
    given = [word.format(folder=folder) for word in trust]
    for words, code in ((["ps", *given], 1), (["exec", *given, "sb-aatls", "true"], 125)):
        told = encrypted.run(*words, code=code).stderr.decode()
        assert told.startswith(f"error: the server at {encrypted.server} cannot be trusted: ")
        assert told.endswith("\nhint: name the certificate it should have with --ca\n")


def test_a_file_without_certificates_is_refused(encrypted: Shell, folder: Path) -> None:
    for file in ("key.pem", "none.pem"):
        told = encrypted.run("ps", "--ca", str(folder / file), code=2).stderr.decode()
        assert told.startswith(f"error: `{folder / file}` holds no certificates")
