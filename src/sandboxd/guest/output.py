"""The output of one process as its host sees it: joined or not, what came, and what its consumer is done with."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from sandboxd.core.errors import NotFound
from sandboxd.core.events import Channel, Output, Truncated
from sandboxd.guest.fields import ProtocolError
from sandboxd.guest.flow import Arrivals, Intake, arrive
from sandboxd.guest.frames import Attach, Detach, Exited, Process
from sandboxd.guest.frames import Output as OutputFrame

if TYPE_CHECKING:
    from sandboxd.guest.link import Link


class Stance(Enum):
    """Whether the agent sends us this output."""

    DETACHED = "detached"
    JOINING = "joining"
    ATTACHED = "attached"


class ProcessOutput:
    """Stdout and stderr of a process, from the first byte that was not acknowledged."""

    def __init__(self, link: Link, process_id: int) -> None:
        self._link = link
        self._id = process_id
        self._stance = Stance.DETACHED
        self._intakes = Intake(Channel.STDOUT), Intake(Channel.STDERR)
        self._arrivals = Arrivals()

    @property
    def is_joined(self) -> bool:
        """Whether output comes on its own."""
        return self._stance is Stance.ATTACHED

    @property
    def has_arrivals(self) -> bool:
        """Whether something waits to be taken."""
        return bool(self._arrivals)

    def begin_joined(self) -> None:
        """The process was started with a window, so the agent sends from the first byte on."""
        self._stance = Stance.ATTACHED

    def begin_at(self, stdout: int, stderr: int) -> None:
        """Nobody of ours has seen what is before these offsets, and nobody will."""
        for intake, offset in zip(self._intakes, (stdout, stderr), strict=True):
            intake.restart(offset)

    def skip_to(self, stdout: int, stderr: int) -> None:
        """What is before these offsets has been taken already, over a channel that was cut since."""
        for intake, offset in zip(self._intakes, (stdout, stderr), strict=True):
            if offset > intake.taken:
                intake.restart(offset)

    def receive(self, frame: OutputFrame) -> None:
        """Take output in. What was on its way to a former reader is passed over. Raises ProtocolError."""
        if frame.channel not in {Channel.STDOUT, Channel.STDERR}:
            raise ProtocolError(f"a process has no output channel {frame.channel}")
        if self._stance is Stance.ATTACHED:
            arrive(frame, self._intakes[frame.channel - 1], self._arrivals)

    async def join(self, *, only_kept: bool = False) -> Process:
        """Let the agent send from the first byte not taken, or kept; return what it knows of the process.

        With `only_kept` it sends no more than it holds now. The limits sent first keep the agent silent, and the
        process from losing more, until all that was on its way has arrived and it is known what has been kept.
        """
        self._stance = Stance.JOINING
        for intake in self._intakes:
            self._link.send(Attach(intake.channel, intake.taken, intake.taken), self._id)
        listed = (await self._link.list_processes()).get(self._id)
        if listed is None:
            raise NotFound(f"process {self._id} was forgotten")
        kept_to_end = (listed.stdout_kept, listed.stdout_end), (listed.stderr_kept, listed.stderr_end)
        for intake, (kept, end) in zip(self._intakes, kept_to_end, strict=True):
            dropped = kept - intake.taken
            if dropped > 0:
                self._arrivals.add_gap(intake.channel, dropped)
            intake.restart(max(kept, intake.taken))
            if only_kept:
                intake.limit = min(intake.limit, max(end, intake.taken))
            self._link.send(Attach(intake.channel, intake.taken, intake.limit), self._id)
        self._stance = Stance.ATTACHED
        return listed

    def leave(self) -> None:
        """Acknowledge what was taken, and let the rest go to the ring."""
        if self._stance is Stance.DETACHED:
            return
        if self._stance is Stance.ATTACHED:
            for intake in self._intakes:
                if intake.taken != intake.acknowledged:
                    self._link.send(intake.acknowledge(), self._id)
        self._link.send(Detach(), self._id)
        self._stance = Stance.DETACHED
        self._arrivals.clear()
        for intake in self._intakes:
            intake.restart(intake.taken)

    @property
    def has_come_to_limit(self) -> bool:
        """Whether the agent has sent all that it may."""
        return all(intake.expected == intake.limit for intake in self._intakes)

    def pop(self) -> Output | Truncated:
        """Return what comes next; something must have arrived."""
        return self._arrivals.pop()

    def took(self, event: Output | Truncated, end: Exited | None) -> None:
        """The consumer is done with this event: acknowledge it, unless the agent has nothing more to send."""
        intake = self._intakes[event.channel - 1]
        if isinstance(event, Truncated):
            return
        window = intake.take(event.offset + len(event.data))
        if window is not None and not (end is not None and self.is_complete(end)):
            self._link.send(window, self._id)

    def check_end(self, end: Exited) -> None:
        """Raise ProtocolError when more has come than there can be."""
        stdout, stderr = self._intakes
        if stdout.expected > end.stdout_end or stderr.expected > end.stderr_end:
            raise ProtocolError("a process wrote more than it had written when it ended")

    def is_complete(self, end: Exited) -> bool:
        """Whether all has come that there was."""
        stdout, stderr = self._intakes
        came = stdout.expected, stderr.expected
        return self._stance is Stance.ATTACHED and came == (end.stdout_end, end.stderr_end)
