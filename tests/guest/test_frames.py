"""Every frame becomes bytes and comes back, and bytes that are no frame are refused with one error."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.guest.fields import ProtocolError
from sandboxd.guest.frames import (
    GUEST_FRAMES,
    HOST_FRAMES,
    Exited,
    FrameType,
    GuestFrame,
    Hello,
    HostFrame,
    Output,
    Start,
    Status,
    Window,
)

ALL = {**HOST_FRAMES, **GUEST_FRAMES}
texts = st.binary(max_size=40).map(lambda value: value.replace(b"\0", b"."))
small = st.integers(0, 1)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": small,
    "bytes": texts,
    "tuple[bytes, ...]": st.lists(texts, max_size=4).map(tuple),
    "tuple[tuple[int, int, int], ...]": st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=4
    ).map(tuple),
}
SIXTEEN = {"nonce", "boot"}


def _frames(kind: type[Any]) -> st.SearchStrategy[Any]:
    fields = {
        field.name: st.binary(min_size=16, max_size=16) if field.name in SIXTEEN else VALUES[str(field.type)]
        for field in dataclasses.fields(kind)
    }
    return st.builds(kind, **fields)


@given(frame=st.one_of([_frames(kind) for kind in ALL.values()]))
def test_a_frame_comes_back_as_it_was_from_bytes_and_from_a_view(frame: HostFrame | GuestFrame) -> None:
    payload = frame.encode()
    assert type(frame).decode(payload) == frame
    assert type(frame).decode(memoryview(payload)) == frame


@given(frame=st.one_of([_frames(kind) for kind in ALL.values()]), data=st.data())
def test_a_payload_cut_short_or_with_more_behind_it_is_refused(
    frame: HostFrame | GuestFrame, data: st.DataObject
) -> None:
    payload = frame.encode()
    if not hasattr(frame, "data"):
        with pytest.raises(ProtocolError):
            type(frame).decode(payload + b"x")
    least = 0 if not payload else data.draw(st.integers(0, len(payload) - 1))
    if payload and (not hasattr(frame, "data") or least < len(payload) - len(frame.data)):
        with pytest.raises(ProtocolError):
            type(frame).decode(payload[:least])


@given(kind=st.sampled_from(sorted(ALL)), payload=st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_a_protocol_error(kind: int, payload: bytes) -> None:
    try:
        frame = ALL[kind].decode(payload)
    except ProtocolError:
        return
    assert frame.encode() == payload


@pytest.mark.parametrize("count", [2**32 - 1, 2**28])
def test_a_list_that_claims_more_than_there_is_costs_nothing(count: int) -> None:
    head = Start(0, 0, 0, 0, 0, 0, b"", b"", (), (), ()).encode()[:-12]
    for lists in (count.to_bytes(4, "little"), bytes(4) + count.to_bytes(4, "little"), bytes(8) + b"\xff" * 4):
        with pytest.raises(ProtocolError):
            Start.decode(head + lists.ljust(12, b"\0"))


def test_a_text_with_a_nul_is_refused_both_ways() -> None:
    status = Status(1, 0o644, 1, 2, 3, 4, b"name", b"")
    payload = status.encode().replace(b"name", b"na\0e")
    with pytest.raises(ProtocolError, match="NUL"):
        Status.decode(payload)
    with pytest.raises(ProtocolError, match="NUL"):
        dataclasses.replace(status, name=b"\0").encode()


def test_types_and_tables_tell_the_same() -> None:
    assert {frame.value for frame in FrameType} == set(ALL)
    assert {kind.TYPE: kind for kind in ALL.values()} == ALL
    assert not set(HOST_FRAMES) & set(GUEST_FRAMES)


@pytest.mark.parametrize(
    ("frame", "payload"),
    [
        (Hello(1, bytes(range(16))), "0100 000102030405060708090a0b0c0d0e0f"),
        (Window(2, 0x0102, 0x0304), "02 0201000000000000 0403000000000000"),
        (Output(1, 5, b"hi"), "01 0500000000000000 6869"),
        (Exited(137, 9, 1, 3, 4), "89000000 09000000 01 0300000000000000 0400000000000000"),
        (
            Start(1, 2, 3, 4, 5, 6, b"u", b"/", (b"a", b""), (b"K=v",), ((7, 8, 9),)),
            """01000000 0200000000000000 0300000000000000 04000000 0500 0600
            01000000 75 01000000 2f 02000000 01000000 61 00000000 01000000 03000000 4b3d76
            01000000 07000000 0800000000000000 0900000000000000""",
        ),
    ],
)
def test_the_bytes_are_those_that_the_protocol_says(frame: HostFrame | GuestFrame, payload: str) -> None:
    assert frame.encode() == bytes.fromhex(payload)
