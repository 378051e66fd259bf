"""Clients for a sandbox server: `HTTPClient` over HTTP and `SandboxClient` over gRPC, alike but for the wire."""

from flash_sandbox.client import SandboxClient
from flash_sandbox.errors import SandboxHTTPError, SandboxNotFoundError
from flash_sandbox.http_client import HTTPClient
from flash_sandbox.results import ExecResult, MetricsResult, SnapshotResult

__all__ = [  # noqa: RUF022 - the order that users of the published package know
    "SandboxClient",
    "HTTPClient",
    "ExecResult",
    "MetricsResult",
    "SnapshotResult",
    "SandboxHTTPError",
    "SandboxNotFoundError",
]
