"""One side of a conversation with a process: ours."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.surfaces.live import Caller
    from websockets.sync.client import ClientConnection

ROOT = "/api/v1/sandboxes"
PATIENCE_S = 20.0


@dataclass
class Heard:
    """All that the server said."""

    output: dict[int, bytearray] = field(default_factory=lambda: {1: bytearray(), 2: bytearray()})
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def stdout(self) -> bytes:
        return bytes(self.output[1])

    @property
    def last(self) -> dict[str, Any]:
        return self.messages[-1]

    def take(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.messages.append(json.loads(message))
        else:
            self.output[message[0]] += message[1:]


@contextmanager
def talking(server: Caller, path: str) -> Iterator[ClientConnection]:
    """Open a conversation."""
    with connect(f"ws://{server.host_port}{ROOT}/{path}", compression=None, max_size=None) as socket:
        yield socket


def listen(socket: ClientConnection, heard: Heard | None = None) -> Heard:
    """Take all that the server says until it ends the conversation."""
    heard = heard or Heard()
    for message in socket:
        heard.take(message)
    return heard


def run(server: Caller, sandbox: str, *argv: str, **wishes: object) -> Heard:
    """Run a command to its end."""
    with talking(server, f"{sandbox}/exec") as socket:
        socket.send(json.dumps({"argv": argv} | wishes))
        return listen(socket)


def refused(server: Caller, path: str) -> tuple[int, dict[str, Any]]:
    """Return status and body of an upgrade that is refused."""
    with pytest.raises(InvalidStatus) as caught, talking(server, path):
        pass
    response = caught.value.response
    return response.status_code, json.loads(response.body or b"")
