"""Generated files are what their source says."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def test_both_sides_of_the_protocol_are_current(tree: Path) -> None:
    generate = [sys.executable, str(tree / "protocol" / "generate"), "--check"]
    outcome = subprocess.run(generate, cwd=tree, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
