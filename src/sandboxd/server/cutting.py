"""Breaking a connection off, in the same way whether it is encrypted or not."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


def cut(transport: asyncio.Transport) -> None:
    """Break the connection off at once; what was not sent yet is dropped. Harmless when it is closing or closed."""
    with suppress(AttributeError):  # asyncio's TLS forgets itself when it is closed twice, which uvicorn does
        transport.abort()
