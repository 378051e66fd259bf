"""What the kernel counts on the network interfaces of a process."""

from __future__ import annotations

from pathlib import Path


def received_and_sent(pid: int) -> tuple[int, int]:
    """Return the bytes received and sent in a process's network namespace, loopback left out; zeros if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    except OSError:
        return 0, 0
    received = sent = 0
    for line in lines:
        name, _, counters = line.partition(":")
        if name.strip() != "lo":
            columns = counters.split()
            received += int(columns[0])
            sent += int(columns[8])
    return received, sent
