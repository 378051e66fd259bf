"""What a call raises when it fails, on either transport."""

from __future__ import annotations


class SandboxHTTPError(Exception):
    """A call failed.

    Attributes:
        status_code: How, as an HTTP status, whichever transport was used. 503 also means that no server answered, 504
            that none did in time, 502 that what answered made no sense.
        detail: Why, as the server's text.
    """

    def __init__(self, status_code: int, detail: str) -> None:
        super().__init__(f"HTTP {status_code}: {detail}")
        self.status_code = status_code
        self.detail = detail


class SandboxNotFoundError(SandboxHTTPError):
    """There is no such sandbox; its `status_code` is 404."""
