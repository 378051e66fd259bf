"""Every Python example of the seed documents runs as it is written, but for one table, with our client."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.sdks.flash_sandbox.snippets import FENCED, documents

if TYPE_CHECKING:
    from tests.sdks.flash_sandbox.conftest import Installed, Ports

HERE = Path(__file__).parent
NAMES = ("0.1.0-metadata", "0.1.0-readme", "0.1.0-page", "0.1.1-readme")
HTTP_START, GRPC_START, HTTP_OPTIONS, GRPC_OPTIONS, CONTEXT, PROXY = range(6)

SUBSTITUTIONS = (
    # A diff lost the indentation.
    ("\nsid = client.start_sandbox(", "\n    sid = client.start_sandbox("),
    ("\nclient.stop_sandbox(sid)", "\n    client.stop_sandbox(sid)"),
    # The server of this test is at other names and ports.
    ('HTTPClient(host="localhost", port=8080)', 'HTTPClient(host="localhost", port={http})'),
    ('HTTPClient(host="localhost")', 'HTTPClient(host="localhost", port={http})'),
    ('SandboxClient(host="localhost", port=50051)', 'SandboxClient(host="localhost", port={grpc})'),
    ('"http://proxy.example.com:8092/v1/service/sandbox"', '"http://localhost:{http}/v1/service/sandbox"'),
    ('"proxy.example.com:8092/v1/service/sandbox"', '"localhost:{grpc}/v1/service/sandbox"'),
    # A runtime that is still to come.
    ('type="firecracker"', 'type="gvisor"'),
)

SAID = {
    "Sandbox ID": r"sb-\w+",
    "Output": "Hello from HTTP!",
    "Exit code": "0",
    "Status": "running",
    "Memory": r"[1-9]\d* / 134217728",
    "CPU": r"\d+(\.\d+)?%",
    "Python Output": "Hello Python in Sandbox",
    "Platform Info": r'\{.*"system": ?"Linux".*\}',
    "Snapshot": "/.+",
    "Docker Sandbox ID": r"sb-\w+",
    "Firecracker Sandbox ID": r"sb-\w+",
    "gVisor Sandbox ID": r"sb-\w+",
    "Firecracker Status": "running",
    "Snapshot Data": r"\{'snapshot_path': '/.+', 'mem_file_path': '/.+'\}",
    "gVisor Output": "Hello from gVisor!",
    "gVisor Exit Code": "0",
}


def _substituted(example: str, ports: Ports) -> str:
    for old, new in SUBSTITUTIONS:
        example = example.replace(old, new.format(http=ports.http, grpc=ports.grpc))
    return example


def test_every_document_holds_the_same_six_examples() -> None:
    found = documents()
    assert tuple(found) == NAMES
    assert {name: len(examples) for name, examples in found.items()} == dict.fromkeys(NAMES, 6)
    for examples in found.values():
        assert examples[HTTP_START].startswith("from flash_sandbox import HTTPClient\n")
        assert examples[GRPC_START].startswith("from flash_sandbox import SandboxClient\n")
        assert examples[HTTP_OPTIONS].startswith("HTTPClient(\n")
        assert examples[GRPC_OPTIONS].startswith("SandboxClient(\n")
        assert "\nwith HTTPClient" in examples[CONTEXT]
        assert "grpc_client = SandboxClient(" in examples[PROXY]


def test_every_substitution_is_needed() -> None:
    text = "".join(example for examples in documents().values() for example in examples)
    assert not [old for old, _ in SUBSTITUTIONS if old not in text]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_a_document_run_and_say_what_they_should(name: str, installed: Installed, ports: Ports) -> None:
    examples = documents()[name]
    substituted = [_substituted(example, ports) for example in examples]
    parts = re.split(r"^== \d\n", installed.run(HERE / "reader.py", code=json.dumps(substituted)), flags=re.MULTILINE)
    assert len(parts) == 1 + len(examples)
    for example, said in zip(examples, parts[1:], strict=True):
        labels = re.findall(r'^print\(f"([^:]+):', example, re.MULTILINE)
        lines = said.splitlines()[: len(labels)]
        assert [line.partition(": ")[0] for line in lines] == labels
        assert not [line for line in lines if not re.fullmatch(SAID[line.partition(": ")[0]], line.partition(": ")[2])]
    unknown = "HTTP 404: sandbox sb-bogus not found"
    assert parts[-1].splitlines() == [f"http_client {unknown}", f"grpc_client {unknown}"]


def test_the_example_of_our_own_readme_runs(installed: Installed, ports: Ports, sdk: Path) -> None:
    (example,) = FENCED.findall((sdk / "README.md").read_text())
    assert installed.run("-", code=_substituted(example, ports)) == "hello\n 0\n42\n\n"
