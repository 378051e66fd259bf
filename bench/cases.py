"""What is measured: each claim beside what it is compared with."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.measure import Comparison, Samples, interleave, timed_ms, wait_quiet
from bench.rpc import RpcClient
from bench.serving import Burst, Client, Serving, serve
from bench.streaming import SIZE_MIB
from bench.worker import Worker
from sandboxd.runtimes.oci.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

OURS, RPC, AGENT, ENGINE = "sandboxd over HTTP", "sandboxd over gRPC", "the agent alone", "the engine's port"
SHELL, INSIDE, BARE = "a shell inside", "a pipe inside", "a bare start of it"
REFERENCES = {"container": "runc", "gvisor": "runsc"}
"""What each runtime is compared with; where ours uses another program of the same kind, `gvisor` is with that one."""
CYCLE, DESTROY, EXECUTE, ROWS = "create + exec + destroy", "destroy", "exec", "execs in a row"
STREAM = f"{SIZE_MIB} MiB of stdout"
BURST = 32
ROW = 25
IDLE_SANDBOXES = 100
CONFIGURATION = "**/instances/*/config.json"
"""Of every sandbox in a state folder, whichever runtime's it is."""


@dataclass(slots=True)
class Bench:
    """A server and a kept connection to each of its ports, for one runtime, and the helpers that drive other arms."""

    serving: Serving
    client: Client
    rpc: RpcClient
    theirs: str
    """What the reference is called."""
    reference: Worker
    agent: Worker
    engine: Worker

    def cycle(self, rounds: int) -> Comparison:
        """Create, execute `true` and destroy; the reference's `run` of `true` does the same in one command.

        Beside them what any command of the reference's program takes, which ours needs for each sandbox, too.
        """
        arms = {
            OURS: lambda: timed_ms(lambda: cycle_once(self.client)),
            RPC: lambda: timed_ms(lambda: cycle_once(self.rpc)),
            self.theirs: lambda: float(self.reference.ask("run")),
            BARE: lambda: float(self.reference.ask("version")),
        }
        return interleave(arms, rounds=rounds)

    def destroy(self, rounds: int) -> Comparison:
        """Destroy an idle sandbox; kill and `delete`."""

        def ours() -> float:
            sandbox = self.client.create()
            return timed_ms(lambda: self.client.destroy(sandbox))

        def theirs() -> float:
            self.reference.ask("start", name="bench-destroy")
            return float(self.reference.ask("destroy", name="bench-destroy"))

        return interleave({OURS: ours, self.theirs: theirs}, rounds=rounds)

    def execute(self, rounds: int) -> Comparison:
        """Execute `/bin/true` in a sandbox that runs; beside ours what the agent and a shell inside take for it."""
        with self._idle_pair("bench-execute") as sandbox:
            arms = {
                OURS: lambda: timed_ms(lambda: self.client.execute(sandbox)),
                RPC: lambda: timed_ms(lambda: self.rpc.execute(sandbox)),
                AGENT: lambda: float(self.agent.ask("execute")),
                SHELL: lambda: float(self.agent.ask("within")),
                self.theirs: lambda: float(self.reference.ask("execute", name="bench-execute")),
            }
            return interleave(arms, rounds=rounds)

    def execute_in_a_row(self, rounds: int) -> Comparison:
        """Execute `/bin/true` one after another on one connection: the mean of each row."""
        with self._idle_pair("bench-row") as sandbox:

            def row(client: Client | RpcClient) -> Callable[[], float]:
                return lambda: timed_ms(lambda: [client.execute(sandbox) for _ in range(ROW)]) / ROW

            arms = {
                OURS: row(self.client),
                RPC: row(self.rpc),
                AGENT: lambda: float(self.agent.ask("execute", count=ROW)),
            }
            return interleave(arms, rounds=rounds)

    def stream(self, rounds: int) -> Comparison:
        """Take a lot that a process writes to its stdout."""
        self.reference.ask("start", name="bench-stream")
        try:
            arms = {
                ENGINE: lambda: float(self.engine.ask("out")),
                INSIDE: lambda: float(self.engine.ask("within")),
                self.theirs: lambda: float(self.reference.ask("stream", name="bench-stream")),
            }
            return interleave(arms, rounds=rounds)
        finally:
            self.reference.ask("destroy", name="bench-stream")

    def burst(self, rounds: int) -> tuple[Comparison, Comparison]:
        """Execute `/bin/true` 32 times at once: until all have ended, and until each has."""
        each = Comparison({OURS: Samples(), self.theirs: Samples()}, rounds=rounds)
        connections = Burst(self.serving.port, BURST)

        def note(arm: str, taken: list[float]) -> float:
            each.arms[arm].times_ms.extend(taken)
            return max(taken)

        with contextlib.closing(connections), self._idle_pair("bench-burst") as sandbox:
            arms = {
                OURS: lambda: note(OURS, connections.run(sandbox)),
                self.theirs: lambda: note(self.theirs, self.reference.ask("burst", name="bench-burst", width=BURST)),
            }
            return interleave(arms, rounds=rounds, warm_up=0), each

    def memory_kib(self) -> float:
        """What one idle sandbox adds to the server's own memory, in KiB, over a hundred of them."""
        for _ in range(IDLE_SANDBOXES // 2):
            cycle_once(self.client)
        wait_quiet()
        before = self.serving.pss_kib()
        sandboxes = [self.client.create() for _ in range(IDLE_SANDBOXES)]
        wait_quiet()
        after = self.serving.pss_kib()
        for sandbox in sandboxes:
            self.client.destroy(sandbox)
        return (after - before) / IDLE_SANDBOXES

    @contextlib.contextmanager
    def _idle_pair(self, name: str) -> Iterator[str]:
        """One idle sandbox of ours and one of the reference's of this name."""
        sandbox = self.client.create()
        self.reference.ask("start", name=name)
        try:
            yield sandbox
        finally:
            self.reference.ask("destroy", name=name)
            self.client.destroy(sandbox)


@contextlib.contextmanager
def prepared(folder: Path, images: Path, runtime: str, flavours: Mapping[str, str]) -> Iterator[Bench]:
    """Start all arms for one runtime; when the block ends they have ended, with everything they made."""
    theirs = flavours[runtime] if runtime == "gvisor" else REFERENCES[runtime]
    with contextlib.ExitStack() as stack:
        agent = stack.enter_context(_orphan(folder / "agent", runtime, flavours))
        serving = stack.enter_context(serve(_made(folder / "server"), flavours))
        client = stack.enter_context(contextlib.closing(Client(serving.port, runtime)))
        rpc = stack.enter_context(contextlib.closing(RpcClient(serving.grpc_port, runtime)))
        configuration = _bundle_of_a_sandbox(client, serving.state, folder / "config.json")
        reference = Worker("bench.reference", str(_made(folder / "their")), theirs, str(configuration), str(images))
        stack.enter_context(reference)
        engine = Worker("bench.streaming", str(folder / "engine"), runtime, flavours[runtime])
        yield Bench(serving, client, rpc, theirs, reference, agent, stack.enter_context(engine))


def cycle_once(client: Client | RpcClient) -> None:
    """Make a sandbox, execute in it once, and destroy it."""
    sandbox = client.create()
    client.execute(sandbox)
    client.destroy(sandbox)


def _bundle_of_a_sandbox(client: Client, state: Path, copy: Path) -> Path:
    """Copy the OCI configuration that the server wrote for a sandbox."""
    sandbox = client.create()
    [configuration] = state.glob(CONFIGURATION)
    shutil.copy(configuration, copy)
    client.destroy(sandbox)
    return copy


@contextlib.contextmanager
def _orphan(folder: Path, runtime: str, flavours: Mapping[str, str]) -> Iterator[Worker]:
    """Drive the agent of a sandbox whose server was killed: nothing but the agent's own protocol is on the way."""
    with serve(_made(folder), flavours) as serving, contextlib.closing(Client(serving.port, runtime)) as client:
        client.create()
        os.kill(serving.pid, signal.SIGKILL)
    [configuration] = serving.state.glob(CONFIGURATION)
    layout = Layout(configuration.parents[2], configuration.parent.name)
    try:
        with Worker("bench.agent", str(layout.to_guest), str(layout.from_guest)) as worker:
            yield worker
    finally:
        with serve(folder, flavours):  # the next server adopts the sandbox and ends it with itself
            pass


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
