"""The published flash clients, unmodified, against our server."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from tests.sdks.seeds import seed
from tests.sdks.venvs import client_python

if TYPE_CHECKING:
    from tests.surfaces.live import Caller

HERE = Path(__file__).parent
VERSIONS = ("0.1.0", "0.1.1")
RESTORING = """
import sys, time
from flash_sandbox import HTTPClient
wishes = {"type": sys.argv[2], "image": "alpine:latest", "command": ["tail", "-f", "/dev/null"], "memory_mb": 128}
LOOP = "i=0; while true; do i=$((i+1)); echo $i > /n; mv /n /count; sleep 0.02; done"
COUNTING = f"echo kept > /kept; ({LOOP}) >/dev/null 2>&1 &"
with HTTPClient(address=sys.argv[1]) as client:
    def count(sandbox):
        return int(client.exec_command(sandbox, ["sh", "-c", "cat /count || echo 0"]).stdout)
    first = client.start_sandbox(**wishes)
    client.exec_command(first, ["sh", "-c", COUNTING])
    while count(first) < 5:
        time.sleep(0.02)
    saved = client.snapshot_sandbox(first)
    client.resume_sandbox(first)
    client.exec_command(first, ["true"])
    client.stop_sandbox(first)
    again = client.start_sandbox(**wishes, **saved)
    assert again != first
    print(client.exec_command(again, ["cat", "/kept"]).stdout, end="")
    before = count(again)
    time.sleep(0.5)
    print("counting" if count(again) > before >= 5 else "still")
    client.stop_sandbox(again)
"""
CHECKS = re.findall(r"^@check\ndef (\w+)", (HERE / "flash_driver.py").read_text(), re.MULTILINE)


def _run(version: str, driver: str, *arguments: str, code: str = "", kind: str = "container") -> str:
    python = client_python(f"flash-sandbox=={version}")
    command = [str(python), str(HERE / driver), *arguments]
    environment = {**os.environ, "SANDBOX_TYPE": kind}
    done = subprocess.run(
        command, input=code, capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["container", "gvisor", "docker"])
@pytest.mark.parametrize("prefix", ["", "/v1/service/sandbox"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_method_works_and_every_mistake_is_told(server: Caller, version: str, prefix: str, kind: str) -> None:
    assert _run(version, "flash_driver.py", server.address + prefix, kind=kind).split() == CHECKS
    assert server.ask("GET", "/sandboxes").json == {"sandboxes": []}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["container", "gvisor", "docker"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_sandbox_made_from_a_snapshots_two_paths_has_its_files_and_its_memory_where_there_is_any(
    real_server: Caller, version: str, kind: str
) -> None:
    python = client_python(f"flash-sandbox=={version}")
    command = [str(python), "-c", RESTORING, real_server.address, kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    goes_on = "counting" if kind == "gvisor" else "still"
    assert (done.returncode, done.stdout) == (0, f"kept\n{goes_on}\n"), done.stderr


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["container", "gvisor", "docker"])
def test_the_readme_quick_start_prints_what_it_says(real_server: Caller, kind: str) -> None:
    readme = seed("flash-sandbox-0.1.1-readme.txt")
    section = readme.partition("### HTTP transport")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    assert 'type="docker"' in code
    code = code.replace('type="docker"', f'type="{kind}"').replace("8080", str(urlsplit(real_server.address).port))
    said = _run("0.1.1", "readme_driver.py", code=code).splitlines()
    expected = [
        r"Sandbox ID: sb-\w+",
        r"Output: Hello from HTTP!",
        r"Exit code: 0",
        r"Status: running",
        r"Memory: [1-9]\d* / 134217728",
        r"CPU: \d+(\.\d+)?%",
        r"Python Output: Hello Python in Sandbox",
        r'Platform Info: {.*"system":"Linux".*}',
        r"Snapshot: /.+",
    ]
    assert len(said) == len(expected), said
    for line, pattern in zip(said, expected, strict=True):
        assert re.fullmatch(pattern, line), line
