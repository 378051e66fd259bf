"""The published flash clients, unmodified, against our server."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from tests.sdks.venvs import client_python
from tests.surfaces.real import lacking

if TYPE_CHECKING:
    from tests.surfaces.live import Caller

HERE = Path(__file__).parent
TREE = HERE.parents[1]
VERSIONS = ("0.1.0", "0.1.1")
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


def _seed(name: str) -> str:
    folder = Path(os.environ.get("SANDBOXD_SEEDS", "") or TREE.parent / "shared" / "seeds")
    path = folder / name
    if not path.exists():
        lacking(f"the seed documents are not at `{folder}`: set SANDBOXD_SEEDS")
    return path.read_text()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["container", "gvisor"])
@pytest.mark.parametrize("prefix", ["", "/v1/service/sandbox"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_method_works_and_every_mistake_is_told(server: Caller, version: str, prefix: str, kind: str) -> None:
    assert _run(version, "flash_driver.py", server.address + prefix, kind=kind).split() == CHECKS
    assert server.ask("GET", "/sandboxes").json == {"sandboxes": []}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["container", "gvisor"])
def test_the_readme_quick_start_prints_what_it_says(real_server: Caller, kind: str) -> None:
    readme = _seed("flash-sandbox-0.1.1-readme.txt")
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
