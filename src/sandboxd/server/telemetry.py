"""Counters for Prometheus, in a registry of our own."""

from __future__ import annotations

from collections import Counter as Tally
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sandboxd.core.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxd.core.records import SandboxRecord

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NO_ROUTE = "none"
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0)


class Telemetry:
    """What the server counts about itself."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "sandboxd_requests",
            "Requests answered; those of gRPC have its names of statuses.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "sandboxd_request_seconds",
            "Time from a request's head to its answer.",
            ["method", "route"],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._sandboxes = Gauge(
            "sandboxd_sandboxes", "Sandboxes by state, at the time of asking.", ["state"], registry=self._registry
        )
        # labels() takes a lock and builds tuples: remember its result, there are few.
        self._counted: dict[tuple[str, str, int | str], Counter] = {}
        self._timed: dict[tuple[str, str], Histogram] = {}

    def observe(self, method: str, route: str, status: int | str, seconds: float) -> None:
        """Count one request; `route` is the pattern, never the path, so that the number of series stays small."""
        counter = self._counted.get((method, route, status))
        if counter is None:
            counter = self._counted[method, route, status] = self._requests.labels(method, route, str(status))
        counter.inc()
        histogram = self._timed.get((method, route))
        if histogram is None:
            histogram = self._timed[method, route] = self._seconds.labels(method, route)
        histogram.observe(seconds)

    def render(self, records: Iterable[SandboxRecord]) -> bytes:
        """Return everything in Prometheus' text format, with the sandboxes as they are now."""
        tally = Tally(record.state for record in records)
        for state in State:
            if state is not State.DESTROYED:
                self._sandboxes.labels(state.value).set(tally[state])
        return generate_latest(self._registry)
