"""Log lines: where they go, what they carry, and which are left out."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from sandboxd.server import logs
from sandboxd.server.settings import Log

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def configured(*, level: str = "info", as_json: bool = True) -> io.StringIO:
    stream = io.StringIO()
    logs.configure(Log(level=level, json=as_json), stream)
    return stream


def test_a_line_of_json_carries_what_the_context_is_bound_to() -> None:
    stream = configured()
    with structlog.contextvars.bound_contextvars(sandbox="sb-1"):
        structlog.get_logger().info("created", ms=3)
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "created", "level": "info", "sandbox": "sb-1", "ms": 3}


def test_a_line_for_people_is_one_line_without_colour_where_nobody_looks() -> None:
    stream = configured(as_json=False)
    structlog.get_logger().warning("slow", ms=3)
    assert stream.getvalue().count("\n") == 1
    assert "slow" in stream.getvalue()
    assert "ms=3" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_lines_below_the_level_are_left_out() -> None:
    stream = configured(level="warning")
    structlog.get_logger().info("left out")
    structlog.get_logger().error("written")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["written"]


def test_an_exception_stands_on_its_line() -> None:
    stream = configured()
    try:
        dict[str, str]()["gone"]
    except KeyError:
        structlog.get_logger().exception("failed")
    assert "KeyError: 'gone'" in json.loads(stream.getvalue())["exception"]


def test_what_libraries_say_looks_the_same_and_is_written_once() -> None:
    configured()
    stream = configured()
    logging.getLogger("some.library").warning("beware of %s", "dogs")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["logger"]) == ("beware of dogs", "warning", "some.library")


def test_a_line_that_cannot_be_written_is_lost_and_nothing_else_is() -> None:
    with io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True) as full:
        logs.configure(Log(level="info", json=True), full)
        structlog.get_logger().error("lost")
        logging.getLogger("some.library").error("lost too")
