"""Logs: lines on stderr, for people or for programs, that carry whatever the context is bound to."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor

    from sandboxd.server.settings import Log

_MARK = "_sandboxd"
"""Marks our handler, so that configuring again replaces it."""


def configure(log: Log, stream: TextIO | None = None) -> None:
    """Send every line of ours and of the libraries to `stream`, stderr where none is given; may be repeated.

    What `structlog.contextvars` holds, such as `sandbox`, stands on each line.
    """
    stream = sys.stderr if stream is None else stream
    level = logging.getLevelNamesMapping()[log.level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    ending = _ending(as_json=log.json, colours=stream.isatty())
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(stream),
        cache_logger_on_first_use=False,
    )
    _adopt_libraries(level, stream, shared, ending)


class _Lines:
    """Writes lines, and goes on without one where the stream takes none: a full disk, a reader that has gone."""

    def __init__(self, stream: TextIO) -> None:
        self._write = stream.write
        self._flush = stream.flush

    def msg(self, line: str) -> None:
        with suppress(OSError):
            self._write(line + "\n")
            self._flush()

    debug = info = warning = error = critical = log = exception = fatal = msg


def _ending(*, as_json: bool, colours: bool) -> list[Processor]:
    """Return the last steps of a line: its exception and its letters."""
    if as_json:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    formatter = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=0, exception_formatter=formatter)]


def _adopt_libraries(level: int, stream: TextIO, shared: list[Processor], ending: list[Processor]) -> None:
    """Let what libraries say through `logging` look like our own lines."""
    handler = logging.StreamHandler(stream)
    handler.set_name(_MARK)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    for former in [known for known in root.handlers if known.get_name() == _MARK]:
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(max(level, logging.WARNING))
