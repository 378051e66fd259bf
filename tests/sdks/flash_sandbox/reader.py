"""Reads a document as its reader would: runs its examples in order, in one interpreter: `reader.py < JSON LIST`.

Runs where our client is installed. Prints `== NUMBER` before each example; at the end it asks, through every client
that the examples left open, for a sandbox that does not exist, and prints what that client said.
"""

from __future__ import annotations

import json
import sys

from flash_sandbox import SandboxNotFoundError  # type: ignore[import-not-found]

if __name__ == "__main__":
    names: dict[str, object] = {"__name__": "__main__"}
    for number, example in enumerate(json.load(sys.stdin)):
        print("==", number, flush=True)  # noqa: T201 - read by the test
        exec(compile(example, f"example {number}", "exec"), names)  # noqa: S102 - that is the point
    for name in ("http_client", "grpc_client"):
        try:
            names[name].get_status("sb-bogus")  # type: ignore[attr-defined]
        except SandboxNotFoundError as error:
            print(name, error)  # noqa: T201 - read by the test
