"""Frames are found however they were cut, and bytes from a guest are frames or one error."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.guest.frames import Sent, guest_bytes, host_frames, raw_bytes

from sandboxd.core.errors import Invalid
from sandboxd.guest.codec import PIECE, Frame, FrameParser, encode_frame
from sandboxd.guest.fields import ProtocolError
from sandboxd.guest.frames import (
    FLAG_LAST,
    FLAG_MORE,
    LIMIT_GUEST_FRAME,
    LIMIT_REQUEST,
    Exited,
    FrameType,
    Hello,
    Output,
    Ping,
    Pong,
    Start,
    Welcome,
)

NONCE = bytes(range(100, 116))
WELCOME = guest_bytes(Welcome(1, NONCE, bytes(16), 0))
STREAM = [
    guest_bytes(Ping()),
    guest_bytes(Output(1, 0, b"hello"), 3),
    guest_bytes(Output(2, 0, b""), 0xFFFFFFFF),
    guest_bytes(Exited(0, 0, 0, 5, 0), 3),
]


def _parse(parser: FrameParser, pieces: list[bytes]) -> list[Frame]:
    frames = []
    for piece in pieces:
        frames += [frame._replace(payload=bytes(frame.payload)) for frame in parser.feed(piece)]
    return frames


def _whole(data: bytes) -> list[Frame]:
    return _parse(FrameParser(), [data])


def test_frames_are_the_same_wherever_they_are_cut() -> None:
    data = b"".join(STREAM)
    expected = _whole(data)
    assert [frame.type for frame in expected] == [FrameType.PING, FrameType.OUTPUT, FrameType.OUTPUT, FrameType.EXITED]
    assert Output.decode(expected[1].payload) == Output(1, 0, b"hello")
    for cut in range(len(data) + 1):
        assert _parse(FrameParser(), [data[:cut], data[cut:]]) == expected
    assert _parse(FrameParser(), [data[at : at + 1] for at in range(len(data))]) == expected


@given(sizes=st.lists(st.integers(0, 3000), max_size=12), steps=st.lists(st.integers(1, 9000), min_size=1, max_size=9))
def test_frames_of_any_size_survive_cuts_of_any_size(sizes: list[int], steps: list[int]) -> None:
    data = b"".join(guest_bytes(Output(1, 7, bytes(size)), 9) for size in sizes)
    pieces, at, turn = [], 0, 0
    while at < len(data):
        pieces.append(data[at : at + steps[turn % len(steps)]])
        at += steps[turn % len(steps)]
        turn += 1
    assert _parse(FrameParser(), pieces) == _whole(data)


@given(pieces=st.lists(st.binary(max_size=200), max_size=10))
def test_any_bytes_are_frames_or_a_protocol_error(pieces: list[bytes]) -> None:
    with suppress(ProtocolError):
        _parse(FrameParser(), pieces)


@given(data=st.binary(max_size=100), at=st.integers(0, 60), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_header_is_noticed(data: bytes, at: int, bit: int) -> None:
    frame = bytearray(guest_bytes(Output(1, 0, data), 5))
    at %= 20
    frame[at] ^= 1 << bit
    with pytest.raises(ProtocolError):
        _parse(FrameParser(), [bytes(frame)])


@pytest.mark.parametrize(
    "wrong",
    [
        raw_bytes(FrameType.PING, b"", flags=FLAG_MORE),
        raw_bytes(FrameType.PING, b"", flags=FLAG_LAST),
        raw_bytes(FrameType.PING, b"", magic=0),
        raw_bytes(FrameType.OUTPUT, bytes(LIMIT_GUEST_FRAME - 19)),
        bytes(20),
    ],
)
def test_a_header_that_is_whole_but_wrong_is_refused_and_stays_so(wrong: bytes) -> None:
    parser = FrameParser()
    with pytest.raises(ProtocolError):
        _parse(parser, [wrong])
    with pytest.raises(ProtocolError):
        _parse(parser, [guest_bytes(Ping())])


def test_what_came_before_the_fault_is_still_told() -> None:
    frames = FrameParser().feed(STREAM[0] + bytes(20))
    assert next(frames).type == FrameType.PING
    with pytest.raises(ProtocolError):
        next(frames)


@given(before=st.binary(max_size=400), size=st.integers(1, 70), after=st.sampled_from([b"", *STREAM]))
def test_the_awaited_welcome_is_found_behind_anything(before: bytes, size: int, after: bytes) -> None:
    data = before + WELCOME + after
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    frames = _parse(FrameParser(NONCE), pieces)
    assert frames[0].type == FrameType.WELCOME
    assert len(frames) == (2 if after else 1)


def test_the_welcome_is_found_behind_half_a_frame_a_false_nonce_and_another_welcome() -> None:
    other = guest_bytes(Welcome(1, bytes(16), bytes(16), 0))
    long = guest_bytes(Output(1, 0, bytes(5000)), 2)
    false = [NONCE, NONCE * 3, WELCOME[:21], WELCOME[:30], WELCOME[1:], WELCOME.replace(NONCE, bytes(16)), other]
    for before in (*false, long[:2000], b"".join(false)):
        data = before + WELCOME
        for cut in range(0, len(data), 7):
            (frame,) = _parse(FrameParser(NONCE), [data[:cut], data[cut:]])
            assert Welcome.decode(frame.payload).nonce == NONCE


def test_without_the_welcome_nothing_is_kept_but_a_tail() -> None:
    parser = FrameParser(NONCE)
    for _ in range(100):
        assert _parse(parser, [bytes(10_000), *STREAM]) == []
    assert parser._held < 64


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 1])
def test_a_payload_is_cut_into_frames_that_say_whether_more_follows(size: int) -> None:
    request = Start(0, 0, 0, 0, 0, 0, b"", b"", (b"a" * size,), (), ())
    pieces = encode_frame(Start.TYPE, 7, request.encode())
    assert all(len(piece) <= 4096 for piece in pieces)
    assert [piece[9] for piece in pieces] == [FLAG_MORE] * (len(pieces) - 1) + [0]
    assert list(host_frames(b"".join(pieces))) == [Sent(request, 7, 0)]


def test_a_payload_that_no_guest_takes_is_refused_before_a_byte_is_written() -> None:
    with pytest.raises(Invalid, match="more than the 1114112"):
        encode_frame(Start.TYPE, 1, bytes(LIMIT_REQUEST + 1))


@pytest.mark.parametrize(
    ("frame", "golden"),
    [
        (Pong(), "53425831 00000000 02 00 0000 00000000 531bcfe3"),
        (
            Hello(1, bytes(range(16))),
            "53425831 12000000 01 00 0000 00000000 f318986d 0100 000102030405060708090a0b0c0d0e0f",
        ),
    ],
)
def test_the_bytes_to_a_guest_are_golden(frame: Pong | Hello, golden: str) -> None:
    (piece,) = encode_frame(frame.TYPE, 0, frame.encode())
    assert piece == bytes.fromhex(golden)


def test_how_fast_output_is_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    frame = guest_bytes(Output(1, 0, bytes(LIMIT_GUEST_FRAME - 29)), 5)
    data = frame * 64
    reads = [data[at : at + 65536 * 4 - 1000] for at in range(0, len(data), 65536 * 4 - 1000)]
    rounds, count = 16, 0
    begin = time.perf_counter()
    for _ in range(rounds):
        parser = FrameParser()
        for read in reads:
            for parsed in parser.feed(read):
                count += len(Output.decode(parsed.payload).data)
    speed = count / (time.perf_counter() - begin) / 2**20
    with capsys.disabled():
        print(f"\n  parsed {speed:,.0f} MiB/s of 64 KiB frames", end="")  # noqa: T201
    assert count == rounds * 64 * (LIMIT_GUEST_FRAME - 29)
