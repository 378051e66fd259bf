"""The command that writes the generated codecs or, with `--check`, says whether they are up to date."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path

PROTOCOL = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROTOCOL))

from generate import c, messages, schema  # noqa: E402 - `python protocol/generate` puts only the package's inside on the path


def _outputs() -> dict[Path, str]:
    frames = schema.load(PROTOCOL / "frames.toml")
    project = PROTOCOL.parent
    outputs = {
        project / "agent/src/frames.h": c.emit_header(frames),
        project / "agent/src/frames_gen.c": c.emit_source(frames),
        project / "agent/src/handlers_gen.c": c.emit_handlers(frames),
    }
    outputs |= messages.emit(PROTOCOL / "sandbox.proto", project / "src/sandboxd/surfaces/grpc")
    if importlib.util.find_spec("generate.python"):
        python = importlib.import_module("generate.python")
        outputs[project / "src/sandboxd/guest/frames.py"] = python.emit(frames)
    return outputs


def main() -> int:
    """Write every generated file that differs; with `--check`, write nothing and return 1 if one does."""
    parser = argparse.ArgumentParser(prog="generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    check = parser.parse_args().check
    stale = {path: text for path, text in _outputs().items() if not path.exists() or path.read_text("utf-8") != text}
    for path, text in stale.items():
        if check:
            sys.stderr.write(f"`{path}` is out of date\n  hint: run `python protocol/generate`\n")
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
