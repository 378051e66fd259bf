"""The command line as a shell sees it: output, errors and exit codes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from sandboxd.cli import doctor
from sandboxd.cli.main import COMMANDS, app
from sandboxd.core.capabilities import Probe
from sandboxd.core.errors import Conflict
from sandboxd.server import app as server

if TYPE_CHECKING:
    from sandboxd.server.settings import Settings


class Probed:
    """Answers as a runtime would."""

    def __init__(self, *, available: bool) -> None:
        self.available = available
        self.closed = False

    async def probe(self) -> Probe:
        return Probe(self.available, "crun 1.8 answers" if self.available else "no crun on the path")

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SANDBOXD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Collect the settings that the server would have run with."""
    collected: list[Settings] = []
    monkeypatch.setattr(server, "run", collected.append, raising=False)
    return collected


def test_serve_turns_its_options_into_settings(served: list[Settings], tmp_path: Path) -> None:
    path = tmp_path / "sandboxd.toml"
    path.write_text("cell = 'bb'\n[http]\nport = 1\n")
    options = ["--config", str(path), "--host", "::", "--port", "0", "--grpc-port", "7"]
    options += ["--state", str(tmp_path), "--images", "/images"]
    result = CliRunner().invoke(app, ["serve", *options, "--insecure", "--stop-sandboxes", "--set", "idle.max_s=5"])
    assert result.exit_code == 0, result.output
    (settings,) = served
    assert (settings.http.host, settings.http.port, settings.http.insecure) == ("::", 0, True)
    assert settings.grpc.port == 7
    assert (settings.state, settings.images) == (tmp_path, Path("/images"))
    assert (settings.cell, settings.stop_sandboxes, settings.idle.max_s) == ("bb", True, 5)


def test_serve_without_options_takes_the_defaults(served: list[Settings]) -> None:
    result = CliRunner().invoke(app, ["serve"])
    assert result.exit_code == 0, result.output
    assert (served[0].http.port, served[0].grpc.port) == (8080, 50051)
    assert not served[0].http.insecure
    assert not served[0].stop_sandboxes


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--set", "http.prot=1"], "error: there is no setting `http.prot`, which is in the command line\n"),
        (["--set", "http.port"], "error: `http.port` is not KEY=VALUE\n"),
        (["--host", "0.0.0.0"], "error: listening on `0.0.0.0` lets anyone"),  # noqa: S104 - it is refused
        (["--port", "70000"], "error: `http.port` in the command line is 70000, above the maximum of 65535\n"),
    ],
)
def test_a_wrong_request_is_a_line_on_stderr_and_exit_code_2(
    served: list[Settings], options: list[str], sentence: str
) -> None:
    result = CliRunner().invoke(app, ["serve", *options])
    assert result.exit_code == 2
    assert result.stderr.startswith(sentence)
    assert result.stdout == ""
    assert served == []


def test_what_did_not_work_is_a_line_on_stderr_and_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_settings: Settings) -> None:
        raise Conflict("the state folder is in use", hint="stop that server")

    monkeypatch.setattr(server, "run", run, raising=False)
    result = CliRunner().invoke(app, ["serve"])
    assert result.exit_code == 1
    assert result.stderr == "error: the state folder is in use\nhint: stop that server\n"


@pytest.mark.parametrize("available", [True, False])
def test_doctor_tells_of_every_runtime(monkeypatch: pytest.MonkeyPatch, *, available: bool) -> None:
    probed = Probed(available=available)
    monkeypatch.setattr(doctor, "runtimes", lambda _settings, _node: {"container": probed})
    result = CliRunner().invoke(app, ["doctor", "--set", "runtime.default=container"])
    assert result.exit_code == (0 if available else 1)
    lines = {line.split()[0]: line.split()[1] for line in result.stdout.splitlines()}
    assert lines.pop("container") == ("works" if available else "fails")
    assert set(lines.values()) == {"absent"}
    assert {"firecracker", "macos-vz"} <= set(lines)
    assert probed.closed


def test_doctor_refuses_a_default_that_is_not_here() -> None:
    result = CliRunner().invoke(app, ["doctor", "--set", "runtime.default=firecracker"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: runtime `firecracker` ")


def test_version_is_that_of_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"{name} 1.2.3")
    result = CliRunner().invoke(app, ["version"])
    assert (result.exit_code, result.stdout) == (0, "sandboxd 1.2.3\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout
