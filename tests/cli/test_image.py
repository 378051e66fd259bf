"""`sandboxd image`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

from sandboxd.cli.image import app

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacking images needs root")


def run(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [words[0], "--images", str(folder / "images"), *words[1:]])


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_text("1")
    return str(tmp_path / "root")


def test_an_image_comes_is_listed_and_goes(tmp_path: Path, source: str) -> None:
    options = [
        "--env",
        "A=1",
        "--env",
        "B=x=y",
        "--user",
        "7",
        "--cwd",
        "/w",
        "--entrypoint",
        "a 'b c'",
        "--command",
        "d",
    ]
    done = run(tmp_path, "import", "app", source, *options)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("app:latest sha256:")
    (image,) = json.loads(run(tmp_path, "ls", "--json").stdout)
    assert image["config"] == {
        "env": [["A", "1"], ["B", "x=y"]],
        "user": "7",
        "cwd": "/w",
        "entrypoint": ["a", "b c"],
        "command": ["d"],
    }
    assert "app:latest" in run(tmp_path, "ls").stdout
    assert run(tmp_path, "tag", "app", "other").exit_code == 0
    assert run(tmp_path, "rm", "app").exit_code == 0
    assert [image["name"] for image in json.loads(run(tmp_path, "ls", "--json").stdout)] == ["other:latest"]


def test_refusals_are_a_sentence_and_a_failure(tmp_path: Path, source: str) -> None:
    done = run(tmp_path, "rm", "missing")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: there is no image named `missing:latest`\nhint: ")
    assert "not an image name" in run(tmp_path, "import", "../x", source).stderr
    assert "is not KEY=VALUE" in run(tmp_path, "import", "x", source, "--env", "A").stderr
    assert "shell words" in run(tmp_path, "import", "x", source, "--command", "'").stderr
    assert run(tmp_path, "import", "x", str(tmp_path / "none")).exit_code != 0
