"""Uses every method of a published flash HTTP client against a server: `flash_driver.py ADDRESS`.

Runs with the client's own interpreter, so it knows nothing of this project. Prints the name of each check that held;
the first that does not ends it with a traceback.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
from flash_sandbox import ExecResult, HTTPClient, MetricsResult, SandboxHTTPError, SandboxNotFoundError  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKS: list[Callable[[str], None]] = []
IMAGE = "alpine:latest"
KIND = os.environ.get("SANDBOX_TYPE", "container")
IDLE = ["tail", "-f", "/dev/null"]


def check(function: Callable[[str], None]) -> Callable[[str], None]:
    CHECKS.append(function)
    return function


def start(client: HTTPClient, **wishes: object) -> str:
    return str(client.start_sandbox(**{"type": KIND, "image": IMAGE, "memory_mb": 128, **wishes}))


def refused(status: int, words: list[str], call: Callable[..., object], *arguments: object, **named: object) -> None:
    """Call, and expect an error of this status whose text holds all the words."""
    try:
        call(*arguments, **named)
    except SandboxHTTPError as error:
        told = error
    else:
        raise AssertionError(f"accepted, not refused with {status}")
    assert told.status_code == status, told
    assert str(told) == f"HTTP {status}: {told.detail}", told
    assert isinstance(told, SandboxNotFoundError) == (status == 404), told
    assert all(word in told.detail for word in words), (words, told)


@check
def whole_life_with_one_client(address: str) -> None:
    client = HTTPClient(address=address)
    sandbox_id = client.start_sandbox(type=KIND, image=IMAGE, command=IDLE, memory_mb=128, cpu_cores=0.5)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", sandbox_id), sandbox_id
    assert client.get_status(sandbox_id) == "running"
    assert client.exec_command(sandbox_id, ["echo", "Hello"]) == ExecResult("Hello\n", "", 0)
    metrics = client.get_metrics(sandbox_id)
    assert isinstance(metrics, MetricsResult)
    assert metrics.memory_limit_bytes == 134217728, metrics
    assert abs(metrics.memory_percent - 100 * metrics.memory_usage_bytes / 134217728) < 0.01, metrics
    saved = client.snapshot_sandbox(sandbox_id)
    assert set(saved) == {"snapshot_path", "mem_file_path"}, saved
    for path in saved.values():
        assert Path(path).stat().st_size > 0, path
    assert client.resume_sandbox(sandbox_id) is None
    assert client.get_status(sandbox_id) == "running"
    assert client.exec_command(sandbox_id, ["echo", "post-resume"]).stdout == "post-resume\n"
    assert client.stop_sandbox(sandbox_id) is None
    refused(404, [f"sandbox {sandbox_id} not found"], client.get_status, sandbox_id)
    refused(404, [], client.stop_sandbox, sandbox_id)
    client.close()


@check
def host_and_port_and_the_context_manager(address: str) -> None:
    parts = urlsplit(address)
    if parts.path.strip("/"):
        return
    with HTTPClient(host=parts.hostname, port=parts.port) as client:
        sandbox_id = client.start_sandbox(type=KIND, image=IMAGE)
        assert client.exec_command(sandbox_id, ["true"]).exit_code == 0
        client.stop_sandbox(sandbox_id)


@check
def an_injected_session_with_headers_of_its_own(address: str) -> None:
    with requests.Session() as session:
        session.headers["Authorization"] = "Bearer whatever"
        client = HTTPClient(address=address, session=session)
        sandbox_id = start(client)
        assert client.get_status(sandbox_id) == "running"
        client.stop_sandbox(sandbox_id)
        client.close()


@check
def commands_that_fail_are_results(address: str) -> None:
    with HTTPClient(address=address) as client:
        sandbox_id = start(client)
        failed = client.exec_command(sandbox_id, ["sh", "-c", "echo out; echo err >&2; exit 7"])
        assert failed == ExecResult("out\n", "err\n", 7), failed
        missing = client.exec_command(sandbox_id, ["no-such-program"])
        assert missing.exit_code == 127, missing
        assert missing.stderr, missing
        assert client.exec_command(sandbox_id, ["sh", "-c", "kill -9 $$"]).exit_code == 137
        client.stop_sandbox(sandbox_id)


@check
def output_of_every_kind(address: str) -> None:
    with HTTPClient(address=address) as client:
        sandbox_id = start(client)
        assert client.exec_command(sandbox_id, ["printf", "grüße \\n 漢字"]).stdout == "grüße \n 漢字"
        assert client.exec_command(sandbox_id, ["printf", "a\\377b"]).stdout == "a�b"
        big = client.exec_command(sandbox_id, ["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' y"])
        assert (len(big.stdout), set(big.stdout), big.exit_code) == (3_000_000, {"y"}, 0)
        client.stop_sandbox(sandbox_id)


@check
def many_commands_at_once_in_one_sandbox(address: str) -> None:
    with HTTPClient(address=address) as client:
        sandbox_id = start(client)
        said: dict[int, str] = {}

        def say(number: int) -> None:
            said[number] = client.exec_command(sandbox_id, ["echo", str(number)]).stdout

        threads = [threading.Thread(target=say, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert said == {number: f"{number}\n" for number in range(8)}, said
        client.stop_sandbox(sandbox_id)


@check
def types_that_let_the_server_choose(address: str) -> None:
    with HTTPClient(address=address) as client:
        for kind in ("auto", "", KIND):
            client.stop_sandbox(start(client, type=kind))


@check
def odd_but_meaningful_wishes(address: str) -> None:
    with HTTPClient(address=address) as client:
        sandbox_id = start(client, command=[], memory_mb=0, cpu_cores=0)
        assert client.get_metrics(sandbox_id).memory_limit_bytes == 536870912
        client.stop_sandbox(sandbox_id)
        client.stop_sandbox(start(client, cpu_cores=1, kernel_image="", snapshot_path=""))
        client.stop_sandbox(start(client, command=None, cpu_cores=None, memory_mb=None))


@check
def wishes_that_are_refused(address: str) -> None:
    with HTTPClient(address=address) as client:
        refused(400, ["bork"], start, client, type="bork")
        refused(501, ["firecracker"], start, client, type="firecracker")
        refused(400, ["image"], start, client, image="")
        refused(400, ["no-such-image"], start, client, image="no-such-image:1")
        refused(400, ["memory_mb"], start, client, memory_mb=-1)
        refused(400, ["memory_mb"], start, client, memory_mb=1 << 50)
        refused(400, ["list of strings"], start, client, command="sleep 5")
        for key in ("kernel_image", "initrd_path"):
            refused(501, [key], start, client, **{key: "/some/file"})


@check
def paths_of_no_snapshot_are_refused(address: str) -> None:
    with HTTPClient(address=address) as client:
        for key in ("snapshot_path", "mem_file_path"):
            refused(400, ["snapshot"], start, client, **{key: "/some/file"})


@check
def a_command_given_as_text_is_refused_with_advice(address: str) -> None:
    with HTTPClient(address=address) as client:
        sandbox_id = start(client)
        refused(400, ["give a list of strings"], client.exec_command, sandbox_id, "echo hi")
        refused(400, ["empty"], client.exec_command, sandbox_id, [])
        client.stop_sandbox(sandbox_id)


@check
def every_method_tells_an_unknown_sandbox(address: str) -> None:
    with HTTPClient(address=address) as client:
        text = "sandbox sb-bogus not found"
        refused(404, [text], client.get_status, "sb-bogus")
        refused(404, [text], client.stop_sandbox, "sb-bogus")
        refused(404, [text], client.exec_command, "sb-bogus", ["true"])
        refused(404, [text], client.get_metrics, "sb-bogus")
        refused(404, [text], client.snapshot_sandbox, "sb-bogus")
        refused(404, [text], client.resume_sandbox, "sb-bogus")
        for odd in ("../x", "a/b", "a?b", "a b", "ä"):
            refused(404, [], client.get_status, odd)


@check
def a_stopped_sandbox_says_why(address: str) -> None:
    with HTTPClient(address=address) as client:
        sandbox_id = start(client, command=["true"])
        while client.get_status(sandbox_id) == "running":
            pass
        assert client.get_status(sandbox_id) == "stopped"
        refused(409, ["stopped", "exited"], client.exec_command, sandbox_id, ["echo", "hi"])
        client.stop_sandbox(sandbox_id)


@check
def resuming_what_runs_does_nothing(address: str) -> None:
    with HTTPClient(address=address) as client:
        sandbox_id = start(client)
        client.resume_sandbox(sandbox_id)
        client.snapshot_sandbox(sandbox_id)
        refused(409, ["paused", "resume"], client.exec_command, sandbox_id, ["true"])
        client.resume_sandbox(sandbox_id)
        client.stop_sandbox(sandbox_id)


@check
def a_caller_that_gives_up_takes_its_command_along(address: str) -> None:
    with HTTPClient(address=address) as client:
        sandbox_id = start(client)
        client.timeout = 0.5
        try:
            client.exec_command(sandbox_id, ["sleep", "3599"])
        except requests.exceptions.ReadTimeout:
            pass
        else:
            raise AssertionError("it did not time out")
        client.timeout = 30.0
        client.stop_sandbox(sandbox_id)


@check
def a_sandbox_outlives_the_client_that_made_it(address: str) -> None:
    with HTTPClient(address=address) as maker:
        sandbox_id = start(maker)
    with HTTPClient(address=address) as finder:
        assert finder.get_status(sandbox_id) == "running"
        finder.stop_sandbox(sandbox_id)


def main() -> None:
    (address,) = sys.argv[1:]
    for function in CHECKS:
        function(address)
        print(function.__name__, flush=True)  # noqa: T201 - the report that the test reads


if __name__ == "__main__":
    main()
