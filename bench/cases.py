"""What is measured: each claim beside what it is compared with."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.measure import Comparison, Samples, interleave, timed_ms, wait_quiet
from bench.serving import Burst, Client, Serving, serve
from bench.worker import Worker
from sandboxd.runtimes.oci.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OURS, RUNC, AGENT = "sandboxd over HTTP", "runc", "the agent alone"
BURST = 32
ROW = 25
IDLE_SANDBOXES = 100


@dataclass(slots=True)
class Bench:
    """A server, a kept connection to it, and the helpers that drive the other arms."""

    serving: Serving
    client: Client
    reference: Worker
    agent: Worker

    def cycle(self, rounds: int) -> Comparison:
        """Create, execute `true` and destroy over HTTP; `runc run` of `true` does the same in one command."""

        def ours() -> float:
            return timed_ms(self._cycle)

        return interleave({OURS: ours, RUNC: lambda: float(self.reference.ask("run"))}, rounds=rounds)

    def destroy(self, rounds: int) -> Comparison:
        """Destroy an idle sandbox; kill and `runc delete`."""

        def ours() -> float:
            sandbox = self.client.create()
            return timed_ms(lambda: self.client.destroy(sandbox))

        def runc() -> float:
            self.reference.ask("start", name="bench-destroy")
            return float(self.reference.ask("destroy", name="bench-destroy"))

        return interleave({OURS: ours, RUNC: runc}, rounds=rounds)

    def execute(self, rounds: int) -> Comparison:
        """Execute `/bin/true` in a sandbox that runs."""
        with self._idle_pair("bench-execute") as sandbox:
            arms = {
                OURS: lambda: timed_ms(lambda: self.client.execute(sandbox)),
                AGENT: lambda: float(self.agent.ask("execute")),
                RUNC: lambda: float(self.reference.ask("execute", name="bench-execute")),
            }
            return interleave(arms, rounds=rounds)

    def execute_in_a_row(self, rounds: int) -> Comparison:
        """Execute `/bin/true` one after another on one connection: the mean of each row."""
        with self._idle_pair("bench-row") as sandbox:

            def row() -> None:
                for _ in range(ROW):
                    self.client.execute(sandbox)

            return interleave(
                {OURS: lambda: timed_ms(row) / ROW, AGENT: lambda: float(self.agent.ask("execute", count=ROW))},
                rounds=rounds,
            )

    def burst(self, rounds: int) -> tuple[Comparison, Comparison]:
        """Execute `/bin/true` 32 times at once: until all have ended, and until each has."""
        each = Comparison({OURS: Samples(), RUNC: Samples()}, rounds=rounds)
        connections = Burst(self.serving.port, BURST)

        def note(arm: str, taken: list[float]) -> float:
            each.arms[arm].times_ms.extend(taken)
            return max(taken)

        with contextlib.closing(connections), self._idle_pair("bench-burst") as sandbox:
            arms = {
                OURS: lambda: note(OURS, connections.run(sandbox)),
                RUNC: lambda: note(RUNC, self.reference.ask("burst", name="bench-burst", width=BURST)),
            }
            return interleave(arms, rounds=rounds, warm_up=0), each

    def memory_kib(self) -> float:
        """What one idle sandbox adds to the server's own memory, in KiB, over a hundred of them."""
        for _ in range(IDLE_SANDBOXES // 2):
            self._cycle()
        wait_quiet()
        before = self.serving.pss_kib()
        sandboxes = [self.client.create() for _ in range(IDLE_SANDBOXES)]
        wait_quiet()
        after = self.serving.pss_kib()
        for sandbox in sandboxes:
            self.client.destroy(sandbox)
        return (after - before) / IDLE_SANDBOXES

    def _cycle(self) -> None:
        sandbox = self.client.create()
        self.client.execute(sandbox)
        self.client.destroy(sandbox)

    @contextlib.contextmanager
    def _idle_pair(self, name: str) -> Iterator[str]:
        """One idle sandbox of ours and one of runc's of this name."""
        sandbox = self.client.create()
        self.reference.ask("start", name=name)
        try:
            yield sandbox
        finally:
            self.reference.ask("destroy", name=name)
            self.client.destroy(sandbox)


@contextlib.contextmanager
def prepared(folder: Path, images: Path, flavour: str) -> Iterator[Bench]:
    """Start all arms; when the block ends they have ended, with everything they made."""
    with contextlib.ExitStack() as stack:
        agent = stack.enter_context(_orphan(folder / "agent", flavour))
        serving = stack.enter_context(serve(_made(folder / "server"), flavour))
        client = stack.enter_context(contextlib.closing(Client(serving.port)))
        configuration = _bundle_of_a_sandbox(client, serving.state, folder / "config.json")
        reference = Worker("bench.reference", str(_made(folder / "runc")), str(configuration), str(images))
        yield Bench(serving, client, stack.enter_context(reference), agent)


def _bundle_of_a_sandbox(client: Client, state: Path, copy: Path) -> Path:
    """Copy the OCI configuration that the server wrote for a sandbox."""
    sandbox = client.create()
    [configuration] = state.glob("instances/*/config.json")
    shutil.copy(configuration, copy)
    client.destroy(sandbox)
    return copy


@contextlib.contextmanager
def _orphan(folder: Path, flavour: str) -> Iterator[Worker]:
    """Drive the agent of a sandbox whose server was killed: nothing but the agent's own protocol is on the way."""
    with serve(_made(folder), flavour) as serving, contextlib.closing(Client(serving.port)) as client:
        client.create()
        os.kill(serving.pid, signal.SIGKILL)
    [instance] = serving.state.glob("instances/*")
    layout = Layout(serving.state, instance.name)
    try:
        with Worker("bench.agent", str(layout.to_guest), str(layout.from_guest)) as worker:
            yield worker
    finally:
        with serve(folder, flavour):  # the next server adopts the sandbox and ends it with itself
            pass


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
