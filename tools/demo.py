"""The demo: a server of its own, and the flash flow against it with the published client, step by step, timed.

Run with the Python that has `flash-sandbox` installed and the path of the `sandboxd` program as its argument.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from flash_sandbox import HTTPClient, SandboxHTTPError, SandboxNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_S = 30.0
IMAGE = "alpine:latest"
ROW = "{:<16} {:>9}   {}"


class Wrong(Exception):
    """A step did not give what the documentation promises."""


def main(program: str) -> int:
    """Run all steps and return the exit status: 0 when every one of them was right."""
    with tempfile.TemporaryDirectory(prefix="sandboxd-demo-") as folder:
        state = Path(folder) / "state"
        try:
            with _server(program, state) as port:
                _steps(port, state)
        except (Wrong, SandboxHTTPError, requests.RequestException, OSError) as error:
            print(
                f"\nfailed: {error}\nthe server's last words:\n{_text(state.with_name('log'))[-4000:]}", file=sys.stderr
            )
            return 1
    print("\neverything worked, and nothing is left")
    return 0


def _steps(port: int, state: Path) -> None:
    version = importlib.metadata.version("flash-sandbox")
    print(f"flash-sandbox {version} (HTTP) against http://127.0.0.1:{port}\n")
    print(ROW.format("step", "time", "result"))
    base = f"http://127.0.0.1:{port}/sandboxes"
    with HTTPClient(host="127.0.0.1", port=port) as client:
        sandbox: str = _step(
            "create",
            lambda: client.start_sandbox(
                type="container", image=IMAGE, command=["tail", "-f", "/dev/null"], memory_mb=128, cpu_cores=0.5
            ),
            lambda identifier: f"{identifier} ({client.get_status(identifier)})",
        )
        shell = ["sh", "-c", "echo hello from $(hostname), uid $(id -u); exit 3"]
        result = _step("exec", lambda: client.exec_command(sandbox, shell), _told)
        _expect(result.exit_code == 3 and "uid 0" in result.stdout, f"exec said {result}")
        result = _step("write as root", lambda: client.exec_command(sandbox, ["touch", "/usr/bin/mine"]), _told)
        _expect(result.exit_code == 0, f"root inside cannot write /usr/bin: {result}")

        code = {"code": "import sys; print('python', sys.version.split()[0], 'says', 6 * 7)"}
        said = _step("run_python", lambda: _post(f"{base}/{sandbox}/run_python", code)["result"], str.strip)
        _expect("says 42" in said, f"run_python said {said!r}")
        told = _step("platform_info", lambda: _get(f"{base}/{sandbox}/platform_info")["info"], _platform)
        _expect(bool(told), "platform_info is empty")
        metrics = _step("metrics", lambda: client.get_metrics(sandbox), _metrics)
        _expect(metrics.memory_limit_bytes == 128 * 1024 * 1024, f"the memory limit is {metrics.memory_limit_bytes}")

        saved = _step("snapshot", lambda: client.snapshot_sandbox(sandbox), lambda _: client.get_status(sandbox))
        _expect(all(Path(path).stat().st_size > 0 for path in saved.values()), f"empty snapshot: {saved}")
        _step("resume", lambda: client.resume_sandbox(sandbox), lambda _: client.get_status(sandbox))
        result = _step("exec again", lambda: client.exec_command(sandbox, ["ls", "/usr/bin/mine"]), _told)
        _expect(result.stdout == "/usr/bin/mine\n", f"what was written is gone: {result}")
        _step("stop", lambda: client.stop_sandbox(sandbox), lambda _: "")
        _step("nothing left", lambda: _nothing_left(client, sandbox, state), lambda text: text)


def _step(name: str, act: Callable[[], Any], describe: Callable[[Any], str]) -> Any:
    """Do one step, print it with its time, and return what it returned."""
    before = time.perf_counter()
    outcome = act()
    taken_ms = 1000 * (time.perf_counter() - before)
    print(ROW.format(name, f"{taken_ms:.1f} ms", describe(outcome)), flush=True)
    return outcome


def _expect(condition: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not condition:
        raise Wrong(otherwise)


def _told(result: Any) -> str:
    text = (result.stdout or result.stderr).strip()
    return f"exit {result.exit_code}" + (f": {text}" if text else "")


def _platform(info: str) -> str:
    words = json.loads(info)
    return " ".join(str(words[key]) for key in ("system", "release", "machine", "node"))


def _metrics(metrics: Any) -> str:
    used, limit = metrics.memory_usage_bytes / 2**20, metrics.memory_limit_bytes / 2**20
    return f"{used:.1f} of {limit:.0f} MiB, cpu {metrics.cpu_percent:.1f} %, {metrics.pids_current} pids"


def _post(url: str, body: dict[str, str]) -> Any:
    return _checked(requests.post(url, json=body, timeout=PATIENCE_S))


def _get(url: str) -> Any:
    return _checked(requests.get(url, timeout=PATIENCE_S))


def _checked(response: requests.Response) -> Any:
    _expect(response.ok, f"{response.request.method} {response.url}: {response.status_code} {response.text}")
    return response.json()


def _nothing_left(client: HTTPClient, sandbox: str, state: Path) -> str:
    """Look where a sandbox would leave traces: the server, the process table, mounts and named pipes."""
    with contextlib.suppress(SandboxNotFoundError):
        raise Wrong(f"the sandbox is still {client.get_status(sandbox)}")
    pipes = [path for path in state.rglob("*") if path.is_fifo()]
    _expect(not pipes, f"named pipes are left: {pipes}")
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(state) in line]
    _expect(not mounts, f"mounts are left: {mounts}")
    with contextlib.closing(sqlite3.connect(f"file:{state / 'state.db'}?mode=ro", uri=True)) as database:
        [[node]] = database.execute("SELECT id FROM node")
    processes = [path.parent.name for path in Path("/proc").glob("[0-9]*/cgroup") if node in _text(path)]
    _expect(not processes, f"processes are left: {processes}")
    return "no process, mount or pipe; the id is unknown"


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # not there, or not any more


@contextlib.contextmanager
def _server(program: str, state: Path) -> Iterator[int]:
    """Serve on a free port until the block ends; then end the server with all its sandboxes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    log = state.with_name("log")
    command = [program, "serve", "--port", str(port), "--grpc-port", "0", "--state", str(state), "--stop-sandboxes"]
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        _wait_healthy(server, port, log)
        yield port
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def _wait_healthy(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE_S).ok:
                return
        _expect(server.poll() is None, f"the server ended:\n{log.read_text()}")
        _expect(time.monotonic() < deadline, f"the server does not answer:\n{log.read_text()}")
        time.sleep(0.02)


if __name__ == "__main__":
    os.environ.setdefault("NO_PROXY", "127.0.0.1")
    sys.exit(main(sys.argv[1]))
