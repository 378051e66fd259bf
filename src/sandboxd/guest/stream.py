"""A channel over a connected stream socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxd.core.errors import Unavailable
from sandboxd.guest.descriptors import DescriptorChannel

if TYPE_CHECKING:
    import socket


class SocketChannel(DescriptorChannel):
    """Takes the socket over: it is detached when the channel is opened, and closed with it."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__()
        self._socket = connected

    def _open_descriptors(self) -> tuple[int, int]:
        if self._socket.fileno() < 0:
            raise Unavailable("cannot open the channel to the guest: its socket is closed")
        self._socket.setblocking(False)
        descriptor = self._socket.detach()
        return descriptor, descriptor
