"""Our flash client passes its own tests, those of the published one, and promises what it keeps."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from tests.sdks.venvs import cache

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sdks.flash_sandbox.conftest import Installed

PUBLISHED = "flash-sandbox==0.1.1"
PUBLISHED_SHA256 = "afa03074f870c8b97f277a088e95c2126ff3ae4467c08b15024fe9484acce7db"
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")


@pytest.fixture(scope="session")
def published_source() -> Path:
    """The published client's source archive, kept outside the tree."""
    folder = cache().with_name("sources")
    path = folder / "flash_sandbox-0.1.1.tar.gz"
    if not path.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        only_this = ["--no-deps", "--no-binary", "flash-sandbox", "--dest", str(folder), PUBLISHED]
        subprocess.run([*pip, *only_this], check=True)
    assert sha256(path.read_bytes()).hexdigest() == PUBLISHED_SHA256
    return path


def test_it_passes_its_own_tests(installed: Installed, sdk: Path) -> None:
    said = installed.run(*PYTEST, "-c", sdk / "pyproject.toml", sdk / "tests")
    assert "passed" in said
    assert "skipped" not in said


def test_it_passes_the_tests_of_the_published_client(
    installed: Installed, published_source: Path, tmp_path: Path
) -> None:
    with tarfile.open(published_source) as archive:
        tests = archive.extractfile("flash_sandbox-0.1.1/tests/test_http_client.py")
        assert tests is not None
        (tmp_path / "test_http_client.py").write_bytes(tests.read())
    assert "43 passed" in installed.run(*PYTEST, "test_http_client.py", cwd=tmp_path)


def test_its_messages_are_those_of_the_published_client(
    installed: Installed, published_source: Path, tmp_path: Path
) -> None:
    """Equal but for `go_package`, which no wire carries. Two files of one name do not fit into one process."""
    with tarfile.open(published_source) as archive:
        messages = archive.extractfile("flash_sandbox-0.1.1/flash_sandbox/proto/sandbox_pb2.py")
        assert messages is not None
        (tmp_path / "sandbox_pb2.py").write_bytes(messages.read())
    show = (
        "from google.protobuf.descriptor_pb2 import FileDescriptorProto\n"
        "described = FileDescriptorProto.FromString(sandbox_pb2.DESCRIPTOR.serialized_pb)\n"
        "described.ClearField('options')\n"
        "print(described)\n"
    )
    theirs = installed.run("-c", f"import sandbox_pb2\n{show}", cwd=tmp_path)
    ours = installed.run("-c", f"from flash_sandbox.proto import sandbox_pb2\n{show}", cwd=tmp_path)
    assert ours == theirs


def test_what_is_generated_is_current(sdk: Path) -> None:
    check = [sys.executable, str(sdk / "generate"), "--check"]
    outcome = subprocess.run(check, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_its_oldest_dependencies_are_those_its_generated_code_accepts(installed: Installed, sdk: Path) -> None:
    metadata = installed.run("-c", "import importlib.metadata as m; print(m.requires('sandboxd-flash-sandbox'))")
    proto = sdk / "src" / "flash_sandbox" / "proto"
    grpc = (proto / "sandbox_pb2_grpc.py").read_text().partition("GRPC_GENERATED_VERSION = '")[2].partition("'")[0]
    protobuf = (proto / "sandbox_pb2.py").read_text().partition("# Protobuf Python Version: ")[2].partition("\n")[0]
    assert f"'grpcio>={grpc}'" in metadata
    assert f">={protobuf}" in metadata
