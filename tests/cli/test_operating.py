"""`sandboxd ps`, `inspect`, `rm` and `logs`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from tests.cli.conftest import PROGRAM, Shell
from tests.cli.test_terminal import Seat
from tests.surfaces.live import free_ports

from sandboxd.cli.ps import COLUMNS, row, span, table
from sandboxd.surfaces.native.wire import LimitsBody, SandboxBody

if TYPE_CHECKING:
    from pathlib import Path

    from tests.surfaces.live import Caller

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LIMITS = LimitsBody(memory_bytes=64 << 20, cpus=0.5, pids=100, disk_bytes=None)
SANDBOX = SandboxBody(
    id="sb-aa1",
    owner="local",
    state="running",
    runtime="container",
    flavour="crun",
    asked_runtime="",
    image="alpine:latest",
    image_digest="",
    command=[],
    limits=LIMITS,
    network="offline",
    surface="flash",
    created_at=NOW - timedelta(minutes=3, seconds=5),
    expires_at=None,
    last_active_at=NOW,
    cause=None,
    reason="",
    exit_code=None,
    warnings=[],
)


def test_ps_shows_what_runs_and_what_ended(shell: Shell, server: Caller) -> None:
    running, stopped = server.create(), server.create_stopped()
    head, *lines = shell.run("ps").stdout.decode().splitlines()
    assert head.split() == list(COLUMNS)
    first, second = lines
    assert first.startswith(running)
    assert second.startswith(stopped)
    assert " running " in first
    assert "64 MiB, 1 cpu" in first
    assert "exited (0)" in second
    assert first.endswith("alpine:latest")
    starts = [head.index(name) for name in COLUMNS]
    assert all(line[start - 1] == " " for line in lines for start in starts[1:])


def test_ps_q_shows_ids_and_json_everything(shell: Shell, server: Caller) -> None:
    running, stopped = server.create(), server.create_stopped()
    assert shell.run("ps", "-q").stdout.decode().split() == [running, stopped]
    assert shell.run("ps", "-q", "--running").stdout.decode().split() == [running]
    told = json.loads(shell.run("ps", "--json").stdout)
    assert [(one["id"], one["state"]) for one in told] == [(running, "running"), (stopped, "stopped")]


def test_ps_of_nothing_is_its_headings(shell: Shell) -> None:
    assert shell.run("ps").stdout.decode().split() == list(COLUMNS)
    assert json.loads(shell.run("ps", "--json").stdout) == []


def test_ps_fits_a_narrow_terminal(shell: Shell, server: Caller) -> None:
    sandbox = server.create()
    with Seat(shell, "ps", rows=20, columns=130) as seat:
        seat.see(sandbox.encode())
        seat.see(b"\r\n")
        assert seat.ends() == 0


def test_a_line_tells_of_one_sandbox() -> None:
    cells = row(SANDBOX, NOW)
    assert cells == (
        "sb-aa1", "3m5s", "local", "container (crun)", "running", "64 MiB, 0.5 cpu, 100 pids", "never", "-",
        "alpine:latest",
    )  # fmt: skip
    ended = replace(
        SANDBOX,
        cause="exited",
        exit_code=3,
        expires_at=NOW + timedelta(hours=2),
        owner="a\x1b[2Jb",
        limits=replace(LIMITS, cpus=None, disk_bytes=1536 << 20),
    )
    cells = row(ended, NOW)
    assert cells[2] == r"a\x1b[2Jb"
    assert cells[5:8] == ("64 MiB, all cpus, 100 pids, 1.5 GiB disk", "in 2h", "exited (3)")


def test_what_does_not_fit_is_shortened_but_never_the_id() -> None:
    cells = row(replace(SANDBOX, image="registry/" + "x" * 200), NOW)
    lines = table([cells], 120)
    assert max(len(line) for line in lines) <= 120
    assert lines[1].endswith("…")
    assert table([cells], 10)[1].startswith("sb-aa1 ")
    assert "…" not in table([cells], None)[1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0.4, "0s"), (59, "59s"), (60, "1m"), (61, "1m1s"), (3661, "1h1m"), (86400 * 3 + 7200, "3d2h")],
)
def test_times_are_told_in_two_units(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_inspect_prints_what_is_known(shell: Shell, server: Caller) -> None:
    sandbox = server.create(command=["sleep", "600"])
    told = json.loads(shell.run("inspect", sandbox[:-5]).stdout)
    assert [one["id"] for one in told] == [sandbox]
    assert told[0]["processes"][0]["is_command"]
    assert told[0]["metrics"]["memory_limit_bytes"] == 64 << 20
    partly = shell.run("inspect", "nobody", sandbox, code=1)
    assert [one["id"] for one in json.loads(partly.stdout)] == [sandbox]
    assert partly.stderr == b"error: there is no sandbox `nobody`\nhint: `sandboxd ps` lists them\n"


def test_rm_goes_on_after_a_failure(shell: Shell, server: Caller) -> None:
    first, second = server.create(), server.create()
    done = shell.run("rm", first, "nobody", second, code=1)
    assert done.stdout.decode().split() == [first, second]
    assert b"there is no sandbox `nobody`" in done.stderr
    assert server.ask("GET", "/sandboxes").json["sandboxes"] == []


def test_rm_all_removes_all(shell: Shell, server: Caller) -> None:
    made = {server.create(), server.create_stopped()}
    assert set(shell.run("rm", "--all").stdout.decode().split()) == made
    assert shell.run("rm", "--all").stdout == b""


@pytest.mark.parametrize("words", [[], ["--all", "sb-x"]])
def test_rm_must_know_what_to_remove(shell: Shell, words: list[str]) -> None:
    assert shell.run("rm", *words, code=2).stderr == b"error: either ids or --all must be given\n"


def test_logs_keep_the_streams_apart(shell: Shell, server: Caller) -> None:
    sandbox = server.create(command=["sh", "-c", r"printf 'out\377\n'; echo err >&2; touch /root/done; sleep 600"])
    shell.run("exec", sandbox, "sh", "-c", "while [ ! -e /root/done ]; do sleep 0.02; done")
    done = shell.run("logs", sandbox)
    assert (done.stdout, done.stderr) == (b"out\xff\n", b"err\n")
    rest = shell.run("logs", "--since", "3,3", sandbox)
    assert (rest.stdout, rest.stderr) == (b"\xff\n", b"\n")


def test_logs_tell_what_is_no_longer_kept(shell: Shell, server: Caller) -> None:
    script = "head -c 1000000 /dev/zero; touch /root/done; sleep 600"
    sandbox = server.create(command=["sh", "-c", script])
    shell.run("exec", sandbox, "sh", "-c", "while [ ! -e /root/done ]; do sleep 0.02; done")
    done = shell.run("logs", sandbox)
    missing = 1_000_000 - len(done.stdout)
    assert 0 < missing < 1_000_000
    assert done.stderr.decode() == f"[sandboxd: {missing} bytes of stdout are no longer kept]\n"


def test_logs_are_followed_until_the_sandbox_ends(shell: Shell, server: Caller) -> None:
    sandbox = server.create(command=["sh", "-c", "echo one; read x < /root/gate; echo two; sleep 600"])
    with shell.start("logs", "-f", sandbox) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"one\n"
        server.execute(sandbox, "sh", "-c", "mkfifo /root/gate 2>/dev/null")
        server.ask("DELETE", f"/sandboxes/{sandbox}")
        assert running.stdout.read() in (b"", b"two\n")
    assert running.returncode == 0


def test_a_follower_can_be_interrupted(shell: Shell, server: Caller) -> None:
    sandbox = server.create(command=["sh", "-c", "echo one; sleep 600"])
    with shell.start("logs", "-f", sandbox) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"one\n"
        running.send_signal(signal.SIGINT)
        assert running.stdout.read() == b""
    assert running.returncode == 130


@pytest.mark.parametrize("words", [["--since", "x"], ["--since", "1,"], ["--since", "1,2,3"]])
def test_logs_refuse_what_is_no_offset(shell: Shell, sandbox: str, words: list[str]) -> None:
    if words == ["--since", "1,"]:
        words = ["--since", ",1"]
    assert b"is not a number of bytes" in shell.run("logs", *words, sandbox, code=2).stderr


def test_a_server_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    shell = Shell(f"http://127.0.0.1:{port}")
    for words, code in ((["ps"], 1), (["rm", "x"], 1), (["logs", "x"], 1), (["exec", "x", "true"], 125)):
        done = shell.run(*words, code=code)
        assert done.stderr.decode() == (
            f"error: no server answers at http://127.0.0.1:{port}: Connection refused\n"
            "hint: start one with `sandboxd serve`, or name another with --server\n"
        )


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://x", "http://", "http://x:y", "http://a@b"])
def test_what_is_no_url_is_refused(url: str) -> None:
    done = Shell(url).run("ps", code=2)
    assert done.stderr.decode() == f"error: `{url}` is not the URL of a server\nhint: such as http://127.0.0.1:8080\n"


def test_a_prefix_of_the_server_is_part_of_its_url(server: Caller, sandbox: str) -> None:
    shell = Shell(f"{server.address}/v1/service/sandbox/")
    assert shell.run("ps", "-q").stdout.decode().split() == [sandbox]
    assert shell.run("exec", sandbox, "echo", "hi").stdout == b"hi\n"


def test_serve_accepts_the_variables_of_clients() -> None:
    environment = os.environ | {"SANDBOXD_SERVER": "http://x", "SANDBOXD_CA": "/x"}
    serve = [PROGRAM, "serve", "--port", "0", "--grpc-port", "0"]
    done = subprocess.run(serve, env=environment, capture_output=True, check=False)
    assert b"there is nothing else to serve" in done.stderr
