"""Hello, resynchronisation, and frames that make no sense."""

from __future__ import annotations

import os
import random
import zlib
from typing import TYPE_CHECKING

import pytest

from sandboxd.guest import frames as wire
from sandboxd.guest.codec import PREAMBLE, encode_frame

if TYPE_CHECKING:
    from tests.agent.conftest import Driver, Launcher

EBADMSG = 74
EEXIST = 17


def _raw(kind: int, flags: int, record_id: int, payload: bytes) -> bytes:
    head = wire.HEADER.pack(wire.MAGIC, len(payload), kind, flags, 0, record_id, 0)[:-4]
    return head + zlib.crc32(payload, zlib.crc32(head)).to_bytes(4, "little") + payload


def test_welcome_carries_the_nonce_and_the_same_boot_every_time(launch: Launcher) -> None:
    agent = launch(meet=False)
    first, second = agent.meet(), agent.meet()
    assert first.version == wire.VERSION
    assert first.boot == second.boot != bytes(16)
    assert first.nonce != second.nonce
    assert first.records == wire.LIMIT_RECORDS


def test_nothing_is_answered_after_a_hello_of_another_version(launch: Launcher) -> None:
    agent = launch(meet=False)
    agent.send(wire.Uname(), 5)
    nonce = os.urandom(16)
    agent.send(wire.Hello(9, nonce), 0)
    welcome = agent.wait(wire.Welcome)
    assert (welcome.version, welcome.nonce) == (wire.VERSION, nonce)
    agent.send(wire.Uname(), 6)
    agent.quiet()
    assert agent.frames == []
    agent.meet()
    assert isinstance(agent.ask(wire.Uname()), wire.Platform)


def test_an_unknown_type_is_answered_and_passed_over(agent: Driver) -> None:
    agent.write(_raw(0x3F, 0, 77, b"whatever"))
    assert agent.reply(77) == wire.Unknown(0x3F)
    assert isinstance(agent.ask(wire.Uname()), wire.Platform)


@pytest.mark.parametrize(
    ("kind", "flags", "payload"),
    [
        (wire.Signal.TYPE, 0, b"\x01\x00"),
        (wire.Signal.TYPE, 0, bytes(6)),
        (wire.Signal.TYPE, wire.FLAG_LAST, bytes(5)),
        (wire.Signal.TYPE, 0x80, bytes(5)),
        (wire.Uname.TYPE, 0, b"x"),
        (wire.Stat.TYPE, 0, b"\x01" + b"\xff\xff\xff\xff" + b"/"),
        (wire.Stat.TYPE, 0, b"\x01" + b"\x01\x00\x00\x00/" + b"\x02\x00\x00\x00a\x00"),
        (wire.Start.TYPE, 0, bytes(28) + bytes(8) + b"\xff\xff\xff\xff"),
        (wire.Start.TYPE, 0, bytes(28) + bytes(16) + b"\xff\xff\xff\xff"),
    ],
)
def test_a_malformed_payload_fails_alone(agent: Driver, kind: int, flags: int, payload: bytes) -> None:
    agent.write(_raw(kind, flags, 9, payload))
    failed = agent.reply(9)
    assert isinstance(failed, wire.Failed)
    assert failed.errno == EBADMSG
    assert isinstance(agent.ask(wire.Uname()), wire.Platform)


def test_an_id_in_use_is_refused(agent: Driver) -> None:
    record_id = agent.start("/bin/sleep", "100")
    agent.wait(wire.Started)
    agent.send(wire.Read(1, 0, 1, b"/", b"/etc/passwd"), record_id)
    failed = agent.wait(wire.Failed, record_id)
    assert failed.errno == EEXIST


def test_a_request_in_parts_is_put_together(agent: Driver) -> None:
    large = "x" * 100_000
    assert agent.shell("echo ${#BIG}", env={"BIG": large}) == (0, b"100000\n", b"")


def test_a_request_that_is_too_large_is_refused_once(agent: Driver) -> None:
    part = bytes(4000)
    count = wire.LIMIT_REQUEST // len(part) + 3
    agent.write(b"".join(_raw(wire.Start.TYPE, wire.FLAG_MORE, 8, part) for _ in range(count)))
    agent.write(_raw(wire.Start.TYPE, 0, 8, part))
    failed = agent.reply(8)
    assert isinstance(failed, wire.Failed)
    assert failed.errno == EBADMSG
    assert isinstance(agent.ask(wire.Uname()), wire.Platform)
    assert agent.frames == []


def test_another_frame_between_parts_ends_the_request(agent: Driver) -> None:
    agent.write(_raw(wire.Start.TYPE, wire.FLAG_MORE, 8, bytes(100)))
    agent.send(wire.Uname(), 9)
    failed = agent.reply(8)
    assert isinstance(failed, wire.Failed)
    assert failed.errno == EBADMSG
    assert isinstance(agent.reply(9), wire.Platform)


def test_garbage_before_a_frame_is_passed_over(agent: Driver) -> None:
    noise = random.Random(1)  # noqa: S311 - nothing secret
    for _ in range(50):
        garbage = noise.randbytes(noise.randrange(1, 6000))
        agent.write(garbage + b"SBX1" + bytes(noise.randrange(30)) + bytes(wire.LIMIT_HOST_FRAME))
        assert isinstance(agent.ask(wire.Uname()), wire.Platform)


def test_a_host_may_die_at_any_byte(agent: Driver) -> None:
    """Another one says hello and is understood, however much of a sequence of frames came before."""
    trap = _raw(wire.Uname.TYPE, 0, 3, b"")
    sequence = (
        _raw(wire.Uname.TYPE, 0, 1, b"")
        + _raw(wire.Stat.TYPE, 0, 2, wire.Stat(1, b"/", b"/" + trap.replace(b"\0", b"\1")).encode())
        + b"".join(encode_frame(wire.Write.TYPE, 4, wire.Write(0o600, 0, b"/", b"/dev/null/x").encode()))
        + _raw(wire.Input.TYPE, 0, 4, bytes(8) + trap[:-3] + b"SBX1\xec\x0f\x00\x00" + bytes(12))
        + _raw(wire.Start.TYPE, wire.FLAG_MORE, 5, bytes(200))
    )
    for cut in range(len(sequence) + 1):
        agent.write(sequence[:cut])
        agent.meet()
    assert isinstance(agent.ask(wire.Uname()), wire.Platform)


def test_a_preamble_alone_does_nothing(agent: Driver) -> None:
    agent.write(PREAMBLE * 3)
    assert isinstance(agent.ask(wire.Uname()), wire.Platform)


def test_platform_is_that_of_the_kernel(agent: Driver) -> None:
    names = os.uname()
    assert agent.ask(wire.Uname()) == wire.Platform(
        names.sysname.encode(),
        names.nodename.encode(),
        names.release.encode(),
        names.version.encode(),
        names.machine.encode(),
    )
