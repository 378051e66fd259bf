"""Python's messages of a gRPC wire, as protoc makes them from a .proto file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from grpc_tools import protoc


def emit(source: Path, package: Path) -> dict[Path, str]:
    """Return the text of the modules for `source` by the path where they belong in `package`."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [f"--proto_path={source.parent}", f"--python_out={folder}", f"--pyi_out={folder}", source.name]
        if protoc.main(["protoc", *arguments]):
            raise SystemExit(f"`{source}` is not understood by protoc")
        return {package / path.name: path.read_text("utf-8") for path in sorted(Path(folder).iterdir())}
