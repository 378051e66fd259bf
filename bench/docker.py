"""The runtime `docker` beside the commands that people know, with the same daemon and the same image."""

from __future__ import annotations

import contextlib
import http
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.runtimes.docker.daemons import Daemon, daemon

from bench.cases import BARE, OURS, RPC, cycle_once
from bench.measure import interleave, timed_ms
from bench.rpc import RpcClient
from bench.serving import IMAGE, Client, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.measure import Comparison

DOCKER = "docker"
NAME = "bench-execute"
TRUE = "/bin/true"


@dataclass(slots=True)
class DockerBench:
    """A server and a kept connection to each of its ports, and the daemon that it uses."""

    client: Client
    rpc: RpcClient
    host: str

    def cycle(self, rounds: int) -> Comparison:
        """Create, execute `true` and destroy; `docker run --rm` of `true` does the same in one command."""
        arms = {
            OURS: lambda: timed_ms(lambda: cycle_once(self.client)),
            RPC: lambda: timed_ms(lambda: cycle_once(self.rpc)),
            DOCKER: lambda: timed_ms(lambda: self._do("run", "--rm", "--network", "none", IMAGE, TRUE)),
            BARE: lambda: timed_ms(lambda: self._do("--version")),
        }
        return interleave(arms, rounds=rounds)

    def execute(self, rounds: int) -> Comparison:
        """Execute `/bin/true` in a sandbox that runs."""
        sandbox = self.client.create()
        self._do("run", "--detach", "--rm", "--network", "none", "--name", NAME, IMAGE, "/bin/sleep", "1000000")
        try:
            arms = {
                OURS: lambda: timed_ms(lambda: self.client.execute(sandbox)),
                RPC: lambda: timed_ms(lambda: self.rpc.execute(sandbox)),
                DOCKER: lambda: timed_ms(lambda: self._do("exec", NAME, TRUE)),
            }
            return interleave(arms, rounds=rounds)
        finally:
            self._do("kill", NAME)
            self.client.destroy(sandbox)

    def _do(self, *arguments: str) -> None:
        done = subprocess.run(["docker", "--host", self.host, *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"`docker {arguments[0]}` ended with {done.returncode}: {done.stderr.strip()}")


@contextlib.contextmanager
def prepared(folder: Path) -> Iterator[DockerBench]:
    """Start a daemon and a server; when the block ends they have ended, with everything they made."""
    with contextlib.ExitStack() as stack:
        its = stack.enter_context(daemon())
        its.start()
        serving = stack.enter_context(serve(folder, {DOCKER: its.host}))
        client = stack.enter_context(contextlib.closing(Client(serving.port, DOCKER)))
        rpc = stack.enter_context(contextlib.closing(RpcClient(serving.grpc_port, DOCKER)))
        client.destroy(client.create())
        _name(its)
        yield DockerBench(client, rpc, its.host)


def _name(its: Daemon) -> None:
    """Give the image that our server brought to the daemon its usual name, which all arms use then."""
    [image] = its.ask(http.HTTPMethod.GET, "images/json")
    repository, _, tag = IMAGE.partition(":")
    its.ask(http.HTTPMethod.POST, f"images/{image['Id']}/tag?repo={repository}&tag={tag}")
