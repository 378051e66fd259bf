"""One program uses every method, makes every mistake, and sees the same with either of our clients."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.sdks.flash_sandbox.conftest import Installed, Ports

HERE = Path(__file__).parent
DRIVER = HERE.parent / "flash_driver.py"
CHECKS = re.findall(r"^@check\ndef (\w+)", DRIVER.read_text(), re.MULTILINE)
SWAPPED = [check for check in CHECKS if f'"{check}"' not in (HERE / "swapped_driver.py").read_text()]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("prefix", ["", "/v1/service/sandbox"])
def test_over_http(prefix: str, installed: Installed, ports: Ports) -> None:
    assert installed.run(DRIVER, f"http://localhost:{ports.http}{prefix}").split() == CHECKS


@pytest.mark.timeout(180)
@pytest.mark.parametrize("port", ["http", "grpc"])
@pytest.mark.parametrize("prefix", ["", "/v1/service/sandbox"])
def test_over_grpc_on_either_port(prefix: str, port: str, installed: Installed, ports: Ports) -> None:
    address = f"http://localhost:{getattr(ports, port)}{prefix}"
    assert installed.run(HERE / "swapped_driver.py", DRIVER, address).split() == SWAPPED
