"""The documents that describe what users' clients promise; they lie beside the project, not in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "seeds"


def seed(name: str) -> str:
    """Return a document. Where none of them lies beside the project, and none was named, the test is skipped."""
    named = os.environ.get("SEED_DOCUMENTS", "")
    folder = Path(named) if named else BESIDE
    if not named and not folder.is_dir():
        pytest.skip(f"the seed documents are not at `{folder}`: set SEED_DOCUMENTS")
    return (folder / name).read_text()
