"""`sandboxd image pull`, `import` through skopeo's transports, `inspect` and `gc`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.images.layout import MINE, Layout, sha256, tar
from tests.images.registry import PASSWORD, USER, Registry, running
from typer.testing import CliRunner, Result

from sandboxd.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacking images needs root")
LAYER = tar(("f", {}, b"1"))


def run(folder: Path, *words: str, typed: str | None = None) -> Result:
    command = ["image", words[0], "--images", str(folder / "images"), *words[1:]]
    return CliRunner().invoke(app, command, input=typed)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running(tmp_path_factory.mktemp("registry"), login=True) as started:
        yield started


@pytest.fixture
def reference(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "none.json"))
    return registry.push(Layout(tmp_path / "pushed").image(LAYER), "app:1")


def test_an_image_is_pulled_inspected_and_collected(tmp_path: Path, reference: str) -> None:
    done = run(tmp_path, "pull", reference, "--creds", f"{USER}:{PASSWORD}")
    assert done.exit_code == 0, done.output
    name, digest = done.stdout.split()
    assert name == reference
    steps = [line.split()[0] for line in done.stderr.splitlines()]
    assert steps == ["asking", "downloading", "unpacking"]
    found = json.loads(run(tmp_path, "inspect", reference).stdout)
    assert found["digest"] == digest
    assert found["names"] == [reference]
    assert found["origins"][0].startswith(f"{reference.rpartition(':')[0]}@sha256:")
    assert found["layers"] == [{"digest": sha256(LAYER).removeprefix("sha256:"), "size_bytes": 1}]
    assert found["config"]["command"] == ["serve"]
    planned = run(tmp_path, "gc", "--max-bytes", "0", "--dry-run")
    assert planned.stdout == f"{reference} {digest} would go\n"
    assert run(tmp_path, "gc").stdout == ""
    assert run(tmp_path, "gc", "--max-bytes", "0", "--pulled").stdout == f"{reference} {digest} went\n"
    assert json.loads(run(tmp_path, "ls", "--json").stdout) == []


def test_a_password_is_asked_for_and_never_an_argument(tmp_path: Path, reference: str) -> None:
    assert run(tmp_path, "pull", reference, "--creds", USER, typed=f"{PASSWORD}\n").exit_code == 0


def test_logins_come_from_a_file_too(tmp_path: Path, reference: str, registry: Registry) -> None:
    login = ["skopeo", "login", "--tls-verify=false", "--authfile", str(tmp_path / "auth.json"), "-u", USER, "-p"]
    subprocess.run([*login, PASSWORD, registry.host], check=True, stdout=subprocess.DEVNULL)
    assert run(tmp_path, "pull", reference, "--authfile", str(tmp_path / "auth.json")).exit_code == 0
    other = run(tmp_path, "pull", reference, "--set", f"image.auth_file={tmp_path / 'auth.json'}")
    assert other.exit_code == 0


def test_refusals_are_a_sentence_and_a_hint(tmp_path: Path, reference: str) -> None:
    done = run(tmp_path, "pull", reference)
    assert done.exit_code == 1
    assert f"error: the registry does not let this node pull `{reference}`\nhint: log in" in done.stderr
    foreign = run(tmp_path, "pull", reference, "--platform", "linux/other")
    assert f"error: this node is linux/{MINE}, it cannot run images for `linux/other`" in foreign.stderr
    absent = run(tmp_path, "pull", reference, "--policy", "never")
    assert f"error: there is no image `{reference}` on this node" in absent.stderr
    strict = run(tmp_path, "pull", reference, "--tls-verify")
    assert "cannot be trusted" in strict.stderr


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive"])
def test_what_skopeo_knows_is_imported(transport: str, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout").image(LAYER)
    source = f"oci:{layout}"
    if transport != "oci":
        source = f"{transport}:{tmp_path / 'archive'}"
        command = ["skopeo", "copy", "--quiet", "--insecure-policy", f"oci:{layout}", f"{source}:name:tag"]
        subprocess.run(command, check=True)
    done = run(tmp_path, "import", "app", source, "--user", "7")
    assert done.exit_code == 0, done.output
    (image,) = json.loads(run(tmp_path, "ls", "--json").stdout)
    assert (image["layers"], image["config"]["user"]) == ([sha256(LAYER)], "7")
    assert not [*(tmp_path / "images/staging").iterdir()]


@pytest.mark.parametrize("source", ["oci:/none", "docker-archive:/none", "docker-daemon:name", "none", "other:x"])
def test_a_source_that_is_not_there_is_refused(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    done = run(tmp_path, "import", "app", source)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) <= 2


WATCHED = """
import os, subprocess, sys
from pathlib import Path
secret, reference = (sys.argv.pop(1).encode() for _ in range(2))
process = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
process.stdin.write(secret + b"\\n")
process.stdin.close()
while process.poll() is None:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        assert reference not in words or path.parent.name == str(os.getpid()) or secret not in words, words
assert process.returncode == 0
"""


def test_nobody_who_lists_processes_sees_a_password(tmp_path: Path, reference: str) -> None:
    pull = [sys.executable, "-c", "from sandboxd.cli.main import app; app()", "image", "pull", reference]
    options = ["--creds", USER, "--images", str(tmp_path / "images")]
    subprocess.run([sys.executable, "-c", WATCHED, PASSWORD, reference, *pull, *options], check=True)
