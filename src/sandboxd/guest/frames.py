"""The frames of the guest protocol: numbers, fields, and how each becomes a payload and comes from one."""

# Generated from protocol/frames.toml by protocol/generate; change it there.

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import ClassVar, Final, TypeAlias

from sandboxd.guest.fields import (
    Payload,
    ProtocolError,
    put_rlimits,
    put_text,
    put_texts,
    take_rlimits,
    take_text,
    take_texts,
)

VERSION: Final = 1
MAGIC: Final = 0x31584253
HEADER: Final = Struct("<IIBBHII")

FLAG_MORE: Final = 1
FLAG_LAST: Final = 2

LIMIT_HOST_FRAME: Final = 4096
LIMIT_GUEST_FRAME: Final = 65536
LIMIT_REQUEST: Final = 1114112
LIMIT_RING: Final = 262144
LIMIT_INPUT: Final = 65536
LIMIT_RECORDS: Final = 512
LIMIT_MEMORY: Final = 67108864
LIMIT_SILENCE_MS: Final = 10000

CHANNEL_STDIN: Final = 0
CHANNEL_STDOUT: Final = 1
CHANNEL_STDERR: Final = 2

START_FLAG_STDIN: Final = 1
START_FLAG_TERMINAL: Final = 2

FILE_KIND_FILE: Final = 1
FILE_KIND_DIRECTORY: Final = 2
FILE_KIND_SYMLINK: Final = 3
FILE_KIND_OTHER: Final = 4

MODE_KEEP: Final = 0xFFFFFFFF


class FrameType(IntEnum):
    """What a frame is, as its header says."""

    HELLO = 0x01
    PONG = 0x02
    START = 0x03
    SIGNAL = 0x04
    RESIZE = 0x05
    INPUT = 0x06
    ATTACH = 0x07
    WINDOW = 0x08
    DETACH = 0x09
    FORGET = 0x0A
    PROCESSES = 0x0B
    READ = 0x0C
    WRITE = 0x0D
    LIST = 0x0E
    STAT = 0x0F
    MAKE_DIRECTORY = 0x10
    MOVE = 0x11
    REMOVE = 0x12
    CONNECT = 0x13
    UNAME = 0x14
    WELCOME = 0x41
    PING = 0x42
    STARTED = 0x43
    OUTPUT = 0x44
    END = 0x45
    EXITED = 0x46
    ACCEPTED = 0x47
    DONE = 0x48
    FAILED = 0x49
    UNKNOWN = 0x4A
    PROCESS = 0x4B
    STATUS = 0x4C
    PLATFORM = 0x4D


_HELLO = Struct("<H16s")
_START = Struct("<IQQIHH")
_SIGNAL = Struct("<IB")
_RESIZE = Struct("<HH")
_INPUT = Struct("<Q")
_ATTACH = Struct("<BQQ")
_WINDOW = Struct("<BQQ")
_READ = Struct("<QQQ")
_WRITE = Struct("<IB")
_LIST = Struct("<Q")
_STAT = Struct("<B")
_MAKE_DIRECTORY = Struct("<IB")
_REMOVE = Struct("<B")
_CONNECT = Struct("<QH")
_WELCOME = Struct("<H16s16sI")
_STARTED = Struct("<I")
_OUTPUT = Struct("<BQ")
_END = Struct("<BQ")
_EXITED = Struct("<iIBQQ")
_ACCEPTED = Struct("<QQB")
_FAILED = Struct("<I")
_UNKNOWN = Struct("<B")
_PROCESS = Struct("<IIBBiIBQQQQQ")
_STATUS = Struct("<BIQqII")


@dataclass(frozen=True, slots=True)
class Hello:
    """The payload of `hello`, which the host sends."""

    TYPE: ClassVar[int] = 0x01

    version: int
    nonce: bytes

    def encode(self) -> bytes:
        """Return the payload."""
        return _HELLO.pack(self.version, self.nonce)

    @classmethod
    def decode(cls, payload: Payload) -> Hello:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) != _HELLO.size:
            raise ProtocolError(f"`hello` has {len(payload)} bytes, not {_HELLO.size}")
        return Hello(*_HELLO.unpack(payload))


@dataclass(frozen=True, slots=True)
class Pong:
    """The payload of `pong`, which the host sends."""

    TYPE: ClassVar[int] = 0x02

    def encode(self) -> bytes:
        """Return the payload."""
        return b""

    @classmethod
    def decode(cls, payload: Payload) -> Pong:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if payload:
            raise ProtocolError(f"`pong` has {len(payload)} bytes, not none")
        return Pong()


@dataclass(frozen=True, slots=True)
class Start:
    """The payload of `start`, which the host sends."""

    TYPE: ClassVar[int] = 0x03

    flags: int
    window: int
    deadline_ms: int
    ring: int
    rows: int
    columns: int
    user: bytes
    cwd: bytes
    argv: tuple[bytes, ...]
    env: tuple[bytes, ...]
    rlimits: tuple[tuple[int, int, int], ...]

    def encode(self) -> bytes:
        """Return the payload."""
        return (
            _START.pack(self.flags, self.window, self.deadline_ms, self.ring, self.rows, self.columns)
            + put_text(self.user)
            + put_text(self.cwd)
            + put_texts(self.argv)
            + put_texts(self.env)
            + put_rlimits(self.rlimits)
        )

    @classmethod
    def decode(cls, payload: Payload) -> Start:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) < _START.size:
            raise ProtocolError(f"`start` has {len(payload)} bytes, not at least {_START.size}")
        flags, window, deadline_ms, ring, rows, columns = _START.unpack_from(payload)
        user, at = take_text(payload, _START.size)
        cwd, at = take_text(payload, at)
        argv, at = take_texts(payload, at)
        env, at = take_texts(payload, at)
        rlimits, at = take_rlimits(payload, at)
        if at != len(payload):
            raise ProtocolError(f"`start` has {len(payload) - at} bytes after its end")
        return Start(flags, window, deadline_ms, ring, rows, columns, user, cwd, argv, env, rlimits)


@dataclass(frozen=True, slots=True)
class Signal:
    """The payload of `signal`, which the host sends."""

    TYPE: ClassVar[int] = 0x04

    number: int
    descendants: int

    def encode(self) -> bytes:
        """Return the payload."""
        return _SIGNAL.pack(self.number, self.descendants)

    @classmethod
    def decode(cls, payload: Payload) -> Signal:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) != _SIGNAL.size:
            raise ProtocolError(f"`signal` has {len(payload)} bytes, not {_SIGNAL.size}")
        return Signal(*_SIGNAL.unpack(payload))


@dataclass(frozen=True, slots=True)
class Resize:
    """The payload of `resize`, which the host sends."""

    TYPE: ClassVar[int] = 0x05

    rows: int
    columns: int

    def encode(self) -> bytes:
        """Return the payload."""
        return _RESIZE.pack(self.rows, self.columns)

    @classmethod
    def decode(cls, payload: Payload) -> Resize:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) != _RESIZE.size:
            raise ProtocolError(f"`resize` has {len(payload)} bytes, not {_RESIZE.size}")
        return Resize(*_RESIZE.unpack(payload))


@dataclass(frozen=True, slots=True)
class Input:
    """The payload of `input`, which the host sends."""

    TYPE: ClassVar[int] = 0x06

    offset: int
    data: bytes

    def encode(self) -> bytes:
        """Return the payload."""
        return _INPUT.pack(self.offset) + self.data

    @classmethod
    def decode(cls, payload: Payload) -> Input:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) < _INPUT.size:
            raise ProtocolError(f"`input` has {len(payload)} bytes, not at least {_INPUT.size}")
        (offset,) = _INPUT.unpack_from(payload)
        data = bytes(payload[_INPUT.size :])
        return Input(offset, data)


@dataclass(frozen=True, slots=True)
class Attach:
    """The payload of `attach`, which the host sends."""

    TYPE: ClassVar[int] = 0x07

    channel: int
    offset: int
    limit: int

    def encode(self) -> bytes:
        """Return the payload."""
        return _ATTACH.pack(self.channel, self.offset, self.limit)

    @classmethod
    def decode(cls, payload: Payload) -> Attach:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) != _ATTACH.size:
            raise ProtocolError(f"`attach` has {len(payload)} bytes, not {_ATTACH.size}")
        return Attach(*_ATTACH.unpack(payload))


@dataclass(frozen=True, slots=True)
class Window:
    """The payload of `window`, which the host sends."""

    TYPE: ClassVar[int] = 0x08

    channel: int
    acknowledged: int
    limit: int

    def encode(self) -> bytes:
        """Return the payload."""
        return _WINDOW.pack(self.channel, self.acknowledged, self.limit)

    @classmethod
    def decode(cls, payload: Payload) -> Window:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) != _WINDOW.size:
            raise ProtocolError(f"`window` has {len(payload)} bytes, not {_WINDOW.size}")
        return Window(*_WINDOW.unpack(payload))


@dataclass(frozen=True, slots=True)
class Detach:
    """The payload of `detach`, which the host sends."""

    TYPE: ClassVar[int] = 0x09

    def encode(self) -> bytes:
        """Return the payload."""
        return b""

    @classmethod
    def decode(cls, payload: Payload) -> Detach:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if payload:
            raise ProtocolError(f"`detach` has {len(payload)} bytes, not none")
        return Detach()


@dataclass(frozen=True, slots=True)
class Forget:
    """The payload of `forget`, which the host sends."""

    TYPE: ClassVar[int] = 0x0A

    def encode(self) -> bytes:
        """Return the payload."""
        return b""

    @classmethod
    def decode(cls, payload: Payload) -> Forget:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if payload:
            raise ProtocolError(f"`forget` has {len(payload)} bytes, not none")
        return Forget()


@dataclass(frozen=True, slots=True)
class Processes:
    """The payload of `processes`, which the host sends."""

    TYPE: ClassVar[int] = 0x0B

    def encode(self) -> bytes:
        """Return the payload."""
        return b""

    @classmethod
    def decode(cls, payload: Payload) -> Processes:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if payload:
            raise ProtocolError(f"`processes` has {len(payload)} bytes, not none")
        return Processes()


@dataclass(frozen=True, slots=True)
class Read:
    """The payload of `read`, which the host sends."""

    TYPE: ClassVar[int] = 0x0C

    window: int
    offset: int
    length: int
    root: bytes
    path: bytes

    def encode(self) -> bytes:
        """Return the payload."""
        return _READ.pack(self.window, self.offset, self.length) + put_text(self.root) + put_text(self.path)

    @classmethod
    def decode(cls, payload: Payload) -> Read:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) < _READ.size:
            raise ProtocolError(f"`read` has {len(payload)} bytes, not at least {_READ.size}")
        window, offset, length = _READ.unpack_from(payload)
        root, at = take_text(payload, _READ.size)
        path, at = take_text(payload, at)
        if at != len(payload):
            raise ProtocolError(f"`read` has {len(payload) - at} bytes after its end")
        return Read(window, offset, length, root, path)


@dataclass(frozen=True, slots=True)
class Write:
    """The payload of `write`, which the host sends."""

    TYPE: ClassVar[int] = 0x0D

    mode: int
    parents: int
    root: bytes
    path: bytes

    def encode(self) -> bytes:
        """Return the payload."""
        return _WRITE.pack(self.mode, self.parents) + put_text(self.root) + put_text(self.path)

    @classmethod
    def decode(cls, payload: Payload) -> Write:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) < _WRITE.size:
            raise ProtocolError(f"`write` has {len(payload)} bytes, not at least {_WRITE.size}")
        mode, parents = _WRITE.unpack_from(payload)
        root, at = take_text(payload, _WRITE.size)
        path, at = take_text(payload, at)
        if at != len(payload):
            raise ProtocolError(f"`write` has {len(payload) - at} bytes after its end")
        return Write(mode, parents, root, path)


@dataclass(frozen=True, slots=True)
class List:
    """The payload of `list`, which the host sends."""

    TYPE: ClassVar[int] = 0x0E

    window: int
    root: bytes
    path: bytes

    def encode(self) -> bytes:
        """Return the payload."""
        return _LIST.pack(self.window) + put_text(self.root) + put_text(self.path)

    @classmethod
    def decode(cls, payload: Payload) -> List:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) < _LIST.size:
            raise ProtocolError(f"`list` has {len(payload)} bytes, not at least {_LIST.size}")
        (window,) = _LIST.unpack_from(payload)
        root, at = take_text(payload, _LIST.size)
        path, at = take_text(payload, at)
        if at != len(payload):
            raise ProtocolError(f"`list` has {len(payload) - at} bytes after its end")
        return List(window, root, path)


@dataclass(frozen=True, slots=True)
class Stat:
    """The payload of `stat`, which the host sends."""

    TYPE: ClassVar[int] = 0x0F

    follow: int
    root: bytes
    path: bytes

    def encode(self) -> bytes:
        """Return the payload."""
        return _STAT.pack(self.follow) + put_text(self.root) + put_text(self.path)

    @classmethod
    def decode(cls, payload: Payload) -> Stat:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) < _STAT.size:
            raise ProtocolError(f"`stat` has {len(payload)} bytes, not at least {_STAT.size}")
        (follow,) = _STAT.unpack_from(payload)
        root, at = take_text(payload, _STAT.size)
        path, at = take_text(payload, at)
        if at != len(payload):
            raise ProtocolError(f"`stat` has {len(payload) - at} bytes after its end")
        return Stat(follow, root, path)


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """The payload of `make_directory`, which the host sends."""

    TYPE: ClassVar[int] = 0x10

    mode: int
    parents: int
    root: bytes
    path: bytes

    def encode(self) -> bytes:
        """Return the payload."""
        return _MAKE_DIRECTORY.pack(self.mode, self.parents) + put_text(self.root) + put_text(self.path)

    @classmethod
    def decode(cls, payload: Payload) -> MakeDirectory:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) < _MAKE_DIRECTORY.size:
            raise ProtocolError(f"`make_directory` has {len(payload)} bytes, not at least {_MAKE_DIRECTORY.size}")
        mode, parents = _MAKE_DIRECTORY.unpack_from(payload)
        root, at = take_text(payload, _MAKE_DIRECTORY.size)
        path, at = take_text(payload, at)
        if at != len(payload):
            raise ProtocolError(f"`make_directory` has {len(payload) - at} bytes after its end")
        return MakeDirectory(mode, parents, root, path)


@dataclass(frozen=True, slots=True)
class Move:
    """The payload of `move`, which the host sends."""

    TYPE: ClassVar[int] = 0x11

    root: bytes
    source: bytes
    target: bytes

    def encode(self) -> bytes:
        """Return the payload."""
        return put_text(self.root) + put_text(self.source) + put_text(self.target)

    @classmethod
    def decode(cls, payload: Payload) -> Move:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        root, at = take_text(payload, 0)
        source, at = take_text(payload, at)
        target, at = take_text(payload, at)
        if at != len(payload):
            raise ProtocolError(f"`move` has {len(payload) - at} bytes after its end")
        return Move(root, source, target)


@dataclass(frozen=True, slots=True)
class Remove:
    """The payload of `remove`, which the host sends."""

    TYPE: ClassVar[int] = 0x12

    recursive: int
    root: bytes
    path: bytes

    def encode(self) -> bytes:
        """Return the payload."""
        return _REMOVE.pack(self.recursive) + put_text(self.root) + put_text(self.path)

    @classmethod
    def decode(cls, payload: Payload) -> Remove:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) < _REMOVE.size:
            raise ProtocolError(f"`remove` has {len(payload)} bytes, not at least {_REMOVE.size}")
        (recursive,) = _REMOVE.unpack_from(payload)
        root, at = take_text(payload, _REMOVE.size)
        path, at = take_text(payload, at)
        if at != len(payload):
            raise ProtocolError(f"`remove` has {len(payload) - at} bytes after its end")
        return Remove(recursive, root, path)


@dataclass(frozen=True, slots=True)
class Connect:
    """The payload of `connect`, which the host sends."""

    TYPE: ClassVar[int] = 0x13

    window: int
    port: int

    def encode(self) -> bytes:
        """Return the payload."""
        return _CONNECT.pack(self.window, self.port)

    @classmethod
    def decode(cls, payload: Payload) -> Connect:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) != _CONNECT.size:
            raise ProtocolError(f"`connect` has {len(payload)} bytes, not {_CONNECT.size}")
        return Connect(*_CONNECT.unpack(payload))


@dataclass(frozen=True, slots=True)
class Uname:
    """The payload of `uname`, which the host sends."""

    TYPE: ClassVar[int] = 0x14

    def encode(self) -> bytes:
        """Return the payload."""
        return b""

    @classmethod
    def decode(cls, payload: Payload) -> Uname:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if payload:
            raise ProtocolError(f"`uname` has {len(payload)} bytes, not none")
        return Uname()


@dataclass(frozen=True, slots=True)
class Welcome:
    """The payload of `welcome`, which the guest sends."""

    TYPE: ClassVar[int] = 0x41

    version: int
    nonce: bytes
    boot: bytes
    records: int

    def encode(self) -> bytes:
        """Return the payload."""
        return _WELCOME.pack(self.version, self.nonce, self.boot, self.records)

    @classmethod
    def decode(cls, payload: Payload) -> Welcome:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) != _WELCOME.size:
            raise ProtocolError(f"`welcome` has {len(payload)} bytes, not {_WELCOME.size}")
        return Welcome(*_WELCOME.unpack(payload))


@dataclass(frozen=True, slots=True)
class Ping:
    """The payload of `ping`, which the guest sends."""

    TYPE: ClassVar[int] = 0x42

    def encode(self) -> bytes:
        """Return the payload."""
        return b""

    @classmethod
    def decode(cls, payload: Payload) -> Ping:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if payload:
            raise ProtocolError(f"`ping` has {len(payload)} bytes, not none")
        return Ping()


@dataclass(frozen=True, slots=True)
class Started:
    """The payload of `started`, which the guest sends."""

    TYPE: ClassVar[int] = 0x43

    pid: int

    def encode(self) -> bytes:
        """Return the payload."""
        return _STARTED.pack(self.pid)

    @classmethod
    def decode(cls, payload: Payload) -> Started:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) != _STARTED.size:
            raise ProtocolError(f"`started` has {len(payload)} bytes, not {_STARTED.size}")
        return Started(*_STARTED.unpack(payload))


@dataclass(frozen=True, slots=True)
class Output:
    """The payload of `output`, which the guest sends."""

    TYPE: ClassVar[int] = 0x44

    channel: int
    offset: int
    data: bytes

    def encode(self) -> bytes:
        """Return the payload."""
        return _OUTPUT.pack(self.channel, self.offset) + self.data

    @classmethod
    def decode(cls, payload: Payload) -> Output:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) < _OUTPUT.size:
            raise ProtocolError(f"`output` has {len(payload)} bytes, not at least {_OUTPUT.size}")
        channel, offset = _OUTPUT.unpack_from(payload)
        data = bytes(payload[_OUTPUT.size :])
        return Output(channel, offset, data)


@dataclass(frozen=True, slots=True)
class End:
    """The payload of `end`, which the guest sends."""

    TYPE: ClassVar[int] = 0x45

    channel: int
    offset: int

    def encode(self) -> bytes:
        """Return the payload."""
        return _END.pack(self.channel, self.offset)

    @classmethod
    def decode(cls, payload: Payload) -> End:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) != _END.size:
            raise ProtocolError(f"`end` has {len(payload)} bytes, not {_END.size}")
        return End(*_END.unpack(payload))


@dataclass(frozen=True, slots=True)
class Exited:
    """The payload of `exited`, which the guest sends."""

    TYPE: ClassVar[int] = 0x46

    code: int
    signal: int
    deadline: int
    stdout_end: int
    stderr_end: int

    def encode(self) -> bytes:
        """Return the payload."""
        return _EXITED.pack(self.code, self.signal, self.deadline, self.stdout_end, self.stderr_end)

    @classmethod
    def decode(cls, payload: Payload) -> Exited:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) != _EXITED.size:
            raise ProtocolError(f"`exited` has {len(payload)} bytes, not {_EXITED.size}")
        return Exited(*_EXITED.unpack(payload))


@dataclass(frozen=True, slots=True)
class Accepted:
    """The payload of `accepted`, which the guest sends."""

    TYPE: ClassVar[int] = 0x47

    received: int
    limit: int
    closed: int

    def encode(self) -> bytes:
        """Return the payload."""
        return _ACCEPTED.pack(self.received, self.limit, self.closed)

    @classmethod
    def decode(cls, payload: Payload) -> Accepted:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) != _ACCEPTED.size:
            raise ProtocolError(f"`accepted` has {len(payload)} bytes, not {_ACCEPTED.size}")
        return Accepted(*_ACCEPTED.unpack(payload))


@dataclass(frozen=True, slots=True)
class Done:
    """The payload of `done`, which the guest sends."""

    TYPE: ClassVar[int] = 0x48

    def encode(self) -> bytes:
        """Return the payload."""
        return b""

    @classmethod
    def decode(cls, payload: Payload) -> Done:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if payload:
            raise ProtocolError(f"`done` has {len(payload)} bytes, not none")
        return Done()


@dataclass(frozen=True, slots=True)
class Failed:
    """The payload of `failed`, which the guest sends."""

    TYPE: ClassVar[int] = 0x49

    errno: int
    message: bytes

    def encode(self) -> bytes:
        """Return the payload."""
        return _FAILED.pack(self.errno) + put_text(self.message)

    @classmethod
    def decode(cls, payload: Payload) -> Failed:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) < _FAILED.size:
            raise ProtocolError(f"`failed` has {len(payload)} bytes, not at least {_FAILED.size}")
        (errno,) = _FAILED.unpack_from(payload)
        message, at = take_text(payload, _FAILED.size)
        if at != len(payload):
            raise ProtocolError(f"`failed` has {len(payload) - at} bytes after its end")
        return Failed(errno, message)


@dataclass(frozen=True, slots=True)
class Unknown:
    """The payload of `unknown`, which the guest sends."""

    TYPE: ClassVar[int] = 0x4A

    type: int

    def encode(self) -> bytes:
        """Return the payload."""
        return _UNKNOWN.pack(self.type)

    @classmethod
    def decode(cls, payload: Payload) -> Unknown:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) != _UNKNOWN.size:
            raise ProtocolError(f"`unknown` has {len(payload)} bytes, not {_UNKNOWN.size}")
        return Unknown(*_UNKNOWN.unpack(payload))


@dataclass(frozen=True, slots=True)
class Process:
    """The payload of `process`, which the guest sends."""

    TYPE: ClassVar[int] = 0x4B

    pid: int
    flags: int
    attached: int
    running: int
    code: int
    signal: int
    deadline: int
    input_received: int
    stdout_kept: int
    stdout_end: int
    stderr_kept: int
    stderr_end: int

    def encode(self) -> bytes:
        """Return the payload."""
        return _PROCESS.pack(
            self.pid,
            self.flags,
            self.attached,
            self.running,
            self.code,
            self.signal,
            self.deadline,
            self.input_received,
            self.stdout_kept,
            self.stdout_end,
            self.stderr_kept,
            self.stderr_end,
        )

    @classmethod
    def decode(cls, payload: Payload) -> Process:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) != _PROCESS.size:
            raise ProtocolError(f"`process` has {len(payload)} bytes, not {_PROCESS.size}")
        return Process(*_PROCESS.unpack(payload))


@dataclass(frozen=True, slots=True)
class Status:
    """The payload of `status`, which the guest sends."""

    TYPE: ClassVar[int] = 0x4C

    kind: int
    mode: int
    size: int
    modified_ns: int
    uid: int
    gid: int
    name: bytes
    target: bytes

    def encode(self) -> bytes:
        """Return the payload."""
        return (
            _STATUS.pack(self.kind, self.mode, self.size, self.modified_ns, self.uid, self.gid)
            + put_text(self.name)
            + put_text(self.target)
        )

    @classmethod
    def decode(cls, payload: Payload) -> Status:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        if len(payload) < _STATUS.size:
            raise ProtocolError(f"`status` has {len(payload)} bytes, not at least {_STATUS.size}")
        kind, mode, size, modified_ns, uid, gid = _STATUS.unpack_from(payload)
        name, at = take_text(payload, _STATUS.size)
        target, at = take_text(payload, at)
        if at != len(payload):
            raise ProtocolError(f"`status` has {len(payload) - at} bytes after its end")
        return Status(kind, mode, size, modified_ns, uid, gid, name, target)


@dataclass(frozen=True, slots=True)
class Platform:
    """The payload of `platform`, which the guest sends."""

    TYPE: ClassVar[int] = 0x4D

    system: bytes
    node: bytes
    release: bytes
    version: bytes
    machine: bytes

    def encode(self) -> bytes:
        """Return the payload."""
        return (
            put_text(self.system)
            + put_text(self.node)
            + put_text(self.release)
            + put_text(self.version)
            + put_text(self.machine)
        )

    @classmethod
    def decode(cls, payload: Payload) -> Platform:
        """Return what the payload says. Raises ProtocolError when it is malformed."""
        system, at = take_text(payload, 0)
        node, at = take_text(payload, at)
        release, at = take_text(payload, at)
        version, at = take_text(payload, at)
        machine, at = take_text(payload, at)
        if at != len(payload):
            raise ProtocolError(f"`platform` has {len(payload) - at} bytes after its end")
        return Platform(system, node, release, version, machine)


HostFrame: TypeAlias = (
    Hello
    | Pong
    | Start
    | Signal
    | Resize
    | Input
    | Attach
    | Window
    | Detach
    | Forget
    | Processes
    | Read
    | Write
    | List
    | Stat
    | MakeDirectory
    | Move
    | Remove
    | Connect
    | Uname
)

HOST_FRAMES: Final[dict[int, type[HostFrame]]] = {
    Hello.TYPE: Hello,
    Pong.TYPE: Pong,
    Start.TYPE: Start,
    Signal.TYPE: Signal,
    Resize.TYPE: Resize,
    Input.TYPE: Input,
    Attach.TYPE: Attach,
    Window.TYPE: Window,
    Detach.TYPE: Detach,
    Forget.TYPE: Forget,
    Processes.TYPE: Processes,
    Read.TYPE: Read,
    Write.TYPE: Write,
    List.TYPE: List,
    Stat.TYPE: Stat,
    MakeDirectory.TYPE: MakeDirectory,
    Move.TYPE: Move,
    Remove.TYPE: Remove,
    Connect.TYPE: Connect,
    Uname.TYPE: Uname,
}

GuestFrame: TypeAlias = (
    Welcome | Ping | Started | Output | End | Exited | Accepted | Done | Failed | Unknown | Process | Status | Platform
)

GUEST_FRAMES: Final[dict[int, type[GuestFrame]]] = {
    Welcome.TYPE: Welcome,
    Ping.TYPE: Ping,
    Started.TYPE: Started,
    Output.TYPE: Output,
    End.TYPE: End,
    Exited.TYPE: Exited,
    Accepted.TYPE: Accepted,
    Done.TYPE: Done,
    Failed.TYPE: Failed,
    Unknown.TYPE: Unknown,
    Process.TYPE: Process,
    Status.TYPE: Status,
    Platform.TYPE: Platform,
}
