"""What every client can do, so that transports can be swapped without touching the code that uses them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

    from flash_sandbox.results import ExecResult, MetricsResult


class Client(ABC):
    """A connection to a sandbox server. Threads may share one.

    A sandbox belongs to the server: it outlives the client that made it, and any client may use its id.

    Every call may raise `SandboxHTTPError`; one that names a sandbox the server does not know raises its subclass
    `SandboxNotFoundError`. No call is repeated by the client.
    """

    @abstractmethod
    def start_sandbox(
        self,
        type: str,  # noqa: A002 - the published name
        image: str,
        command: list[str] | None = None,
        memory_mb: int = 512,
        cpu_cores: float = 1.0,
        kernel_image: str | None = None,
        initrd_path: str | None = None,
        snapshot_path: str | None = None,
        mem_file_path: str | None = None,
    ) -> str:
        """Make a sandbox and return its id once commands can run in it.

        Args:
            type: How to isolate: a name the server knows, such as `container` or `gvisor`; `auto` lets it choose.
            image: Name of an image the server has.
            command: Main process, run without a shell; when it ends the sandbox is stopped. Without one, nothing runs
                and the sandbox stays until it is stopped.
            memory_mb: Hard limit in MiB.
            cpu_cores: Limit in cores; fractions are allowed.
            kernel_image: Server path of a kernel to boot; only over HTTP, only for types that boot one.
            initrd_path: Server path of its initial RAM disk; likewise.
            snapshot_path: Server path of a snapshot to restore into the new sandbox; only over HTTP.
            mem_file_path: Server path of the snapshot's memory; only over HTTP.
        """

    @abstractmethod
    def stop_sandbox(self, sandbox_id: str) -> None:
        """Stop a sandbox and remove it; afterwards its id is unknown."""

    @abstractmethod
    def exec_command(self, sandbox_id: str, command: list[str]) -> ExecResult:
        """Run a command without a shell, wait for its end, and return its output and exit code.

        A command that fails raises nothing, and one that is missing exits 127. The server may cut long output, and
        then says so in it. When this call ends early the server kills the command.
        """

    @abstractmethod
    def get_status(self, sandbox_id: str) -> str:
        """Return `running`, `paused`, `stopped` or another of the server's words."""

    @abstractmethod
    def get_metrics(self, sandbox_id: str) -> MetricsResult:
        """Return what a sandbox uses at this moment."""

    @abstractmethod
    def snapshot_sandbox(self, sandbox_id: str) -> dict[str, str]:
        """Save a sandbox and return the server paths `snapshot_path` and `mem_file_path`.

        The sandbox may be paused until `resume_sandbox` is called.
        """

    @abstractmethod
    def resume_sandbox(self, sandbox_id: str) -> None:
        """Continue a paused sandbox; does nothing to one that runs."""

    @abstractmethod
    def run_python(self, sandbox_id: str, code: str) -> str:
        """Run Python source and return what it wrote to stdout, or to stderr if it failed."""

    @abstractmethod
    def get_platform_info(self, sandbox_id: str) -> str:
        """Return a JSON object as text: system, node, release, version, machine and processor."""

    @abstractmethod
    def close(self) -> None:
        """Close what this client opened. Sandboxes stay; a second time does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
