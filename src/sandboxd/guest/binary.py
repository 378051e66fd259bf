"""Where the static agent is that becomes PID 1 in every sandbox."""

from __future__ import annotations

import os
from pathlib import Path

import sandboxd
from sandboxd.core.errors import Unavailable

VARIABLE = "SANDBOXD_AGENT"


def agent_binary() -> Path:
    """Return the agent's path: `$SANDBOXD_AGENT` where that is set, else the one in this package.

    Raises:
        Unavailable: it is not there, or cannot be executed.
    """
    chosen = os.environ.get(VARIABLE, "")
    path = Path(chosen) if chosen else Path(sandboxd.__file__).parent / "_agent" / "agent"
    if not path.is_file() or not os.access(path, os.X_OK):
        hint = f"set {VARIABLE} to a built agent" if chosen else "build it with `./dev agent`"
        raise Unavailable(f"the guest agent is not at `{path}` or cannot be executed", hint=hint)
    return path.absolute()
