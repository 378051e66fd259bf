"""Talking with processes over the native wire."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from tests.surfaces.native.talking import PATIENCE_S, Heard, listen, refused, run, talking

from sandboxd.ports.engine import ProcessFacts
from sandboxd.surfaces.native.wire import STDIN_WINDOW

if TYPE_CHECKING:
    from tests.surfaces.fake_engine import FakeEngine
    from tests.surfaces.live import Caller


def test_output_comes_by_channel_and_the_end_last(server: Caller) -> None:
    heard = run(server, server.create(), "sh", "-c", r"printf 'a\377'; echo err >&2; exit 3")
    assert (heard.stdout, bytes(heard.output[2])) == (b"a\xff", b"err\n")
    assert heard.messages[0]["type"] == "started"
    assert heard.last == {"type": "exited", "code": 3, "signal": 0, "cause": "exited"}


def test_what_surrounds_a_command_is_as_asked(real_server: Caller) -> None:
    script = 'echo "$A $(pwd) $(id -u)"'
    heard = run(real_server, real_server.create(), "sh", "-c", script, env={"A": "b=c"}, cwd="/etc", user="7")
    assert heard.stdout == b"b=c /etc 7\n"


def test_words_that_are_no_text_survive(server: Caller) -> None:
    with talking(server, f"{server.create()}/exec") as socket:
        socket.send(json.dumps({"argv": ["printf", "%s", {"base64": "/w=="}]}))
        assert listen(socket).stdout == b"\xff"


def test_several_mebibytes_of_input_come_back(server: Caller) -> None:
    data = os.urandom(5 << 20)
    heard = Heard()
    with talking(server, f"{server.create()}/exec") as socket:
        socket.send(json.dumps({"argv": ["cat"], "stdin": True}))
        sent = 0
        while sent < len(data):
            accepted = max((message["total"] for message in heard.messages if message["type"] == "accepted"), default=0)
            room = STDIN_WINDOW - (sent - accepted)
            if room:
                piece = data[sent : sent + min(room, 60_000)]
                socket.send(b"\0" + piece)
                sent += len(piece)
            else:
                heard.take(socket.recv(PATIENCE_S))
        socket.send('{"type": "close_stdin"}')
        listen(socket, heard)
    assert heard.stdout == data
    assert heard.last["code"] == 0


def test_a_signal_passes_input_that_nobody_reads(server: Caller) -> None:
    with talking(server, f"{server.create()}/exec") as socket:
        socket.send(json.dumps({"argv": ["sleep", "600"], "stdin": True}))
        for _ in range(STDIN_WINDOW // 65536):
            socket.send(b"\0" + bytes(65536))
        socket.send('{"type": "signal", "number": 15}')
        assert listen(socket).last == {"type": "exited", "code": 143, "signal": 15, "cause": "exited"}


def test_more_input_than_may_be_sent_ahead_ends_the_conversation(server: Caller) -> None:
    with talking(server, f"{server.create()}/exec") as socket:
        socket.send(json.dumps({"argv": ["sleep", "600"], "stdin": True}))
        heard = Heard()
        for _ in range(
            STDIN_WINDOW // 65536 + 8
        ):  # what is on its way when the other side closes can cut its words off
            socket.send(b"\0" + bytes(65536))
            with suppress(TimeoutError):
                heard.take(socket.recv(0.05))
            if heard.messages and heard.last["type"] == "failed":
                break
        last = listen(socket, heard).last
    assert (last["type"], last["code"]) == ("failed", "invalid")
    assert "were sent ahead" in last["message"]


def test_a_process_that_takes_no_more_input_says_so(real_server: Caller) -> None:
    with talking(real_server, f"{real_server.create()}/exec") as socket:
        socket.send(json.dumps({"argv": ["sh", "-c", "exec <&-; sleep 600"], "stdin": True}))
        heard = Heard()
        deadline = time.monotonic() + PATIENCE_S
        while not any(message["type"] == "stdin_closed" for message in heard.messages):
            socket.send(b"\0x")
            heard.take(socket.recv(PATIENCE_S))
            assert time.monotonic() < deadline
        socket.send('{"type": "signal", "number": 9}')
        assert listen(socket, heard).last["code"] == 137


def test_a_slow_caller_holds_the_process_back(real_server: Caller) -> None:
    sandbox = real_server.create()
    with talking(real_server, f"{sandbox}/exec") as socket:
        socket.send(json.dumps({"argv": ["sh", "-c", "head -c 100000000 /dev/zero; echo > /root/all"]}))
        socket.recv(PATIENCE_S)
        time.sleep(0.5)
        assert real_server.execute(sandbox, "test", "-e", "/root/all").json["exit_code"] == 1
        heard = listen(socket)
    assert len(heard.stdout) == 100_000_000


def test_a_terminal_has_its_size_and_gets_another(real_server: Caller) -> None:
    script = "stty size; trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done"
    terminal = {"rows": 33, "columns": 99}
    with talking(real_server, f"{real_server.create()}/exec") as socket:
        socket.send(json.dumps({"argv": ["sh", "-c", script], "terminal": terminal, "stdin": True}))
        heard = Heard()
        while b"ready" not in heard.stdout:
            heard.take(socket.recv(PATIENCE_S))
        socket.send('{"type": "resize", "rows": 44, "columns": 111}')
        listen(socket, heard)
    assert heard.stdout == b"33 99\r\nready\r\n44 111\r\n"


def test_a_resize_without_a_terminal_is_refused_and_the_conversation_goes_on(server: Caller) -> None:
    with talking(server, f"{server.create()}/exec") as socket:
        socket.send(json.dumps({"argv": ["cat"], "stdin": True}))
        socket.send('{"type": "resize", "rows": 1, "columns": 1}')
        heard = Heard()
        while not any(message["type"] == "refused" for message in heard.messages):
            heard.take(socket.recv(PATIENCE_S))
        socket.send(b"\0still here")
        socket.send('{"type": "close_stdin"}')
        assert listen(socket, heard).stdout == b"still here"


def test_a_deadline_kills_and_says_so(real_server: Caller) -> None:
    heard = run(real_server, real_server.create(), "sleep", "600", deadline_s=0.1)
    assert (heard.last["code"], heard.last["cause"]) == (137, "deadline")


def test_a_process_dies_with_its_socket(fake_server: Caller, engine: FakeEngine) -> None:
    with talking(fake_server, f"{fake_server.create()}/exec") as socket:
        socket.send(json.dumps({"argv": ["sleep", "600"]}))
        socket.recv(PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while not engine.living:
            assert time.monotonic() < deadline, "nothing was started"
            time.sleep(0.005)
        socket.socket.close()
    while engine.living:
        assert time.monotonic() < deadline, "the process lives on"
        time.sleep(0.005)


def test_a_real_process_dies_with_its_socket(real_server: Caller) -> None:
    sandbox = real_server.create()
    with talking(real_server, f"{sandbox}/exec") as socket:
        socket.send(json.dumps({"argv": ["sleep", "7654"]}))
        socket.recv(PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while real_server.execute(sandbox, "sh", "-c", "grep -l '^sleep.7654' /proc/[0-9]*/cmdline").json["stdout"]:
        assert time.monotonic() < deadline, "the process lives on"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "message",
    ["", "no json", "[]", "{}", '{"argv": "text"}', '{"argv": []}', '{"argv": ["a"], "shell": true}', b"\0bytes"],
)
def test_a_wrong_first_message_is_told_and_ends_it(server: Caller, message: str | bytes) -> None:
    with talking(server, f"{server.create()}/exec") as socket:
        socket.send(message)
        heard = listen(socket)
    assert (heard.last["type"], heard.last["code"]) == ("failed", "invalid")


@pytest.mark.parametrize("message", ["no json", '{"type": "dance"}', '{"type": "signal", "number": 0}', b"\1x", b""])
def test_a_wrong_message_is_told_and_ends_it(fake_server: Caller, engine: FakeEngine, message: str | bytes) -> None:
    with talking(fake_server, f"{fake_server.create()}/exec") as socket:
        socket.send(json.dumps({"argv": ["sleep", "600"], "stdin": True}))
        socket.send(message)
        heard = listen(socket)
    assert (heard.last["type"], heard.last["code"]) == ("failed", "invalid")
    assert not engine.living


def test_a_sandbox_that_ends_ends_the_conversation_with_the_reason(real_server: Caller) -> None:
    sandbox = real_server.create()
    with talking(real_server, f"{sandbox}/exec") as socket:
        socket.send(json.dumps({"argv": ["sleep", "600"]}))
        socket.recv(PATIENCE_S)
        real_server.ask("DELETE", f"/sandboxes/{sandbox}")
        last = listen(socket).last
    assert (last["type"], last["code"]) == ("failed", "lost") or last["code"] == 128 + signal.SIGKILL


def test_without_a_sandbox_there_is_no_conversation(server: Caller) -> None:
    status, body = refused(server, "sb-none/exec")
    assert (status, body["code"]) == (404, "not_found")


def test_an_uncertain_process_is_collected(fake_server: Caller, engine: FakeEngine) -> None:
    sandbox = fake_server.create()
    engine.listed = [ProcessFacts(3, 12, None, 0, is_command=False, is_uncertain=True)]
    with talking(fake_server, f"{sandbox}/processes/3") as socket:
        assert listen(socket).stdout == b"collected\n"
    engine.listed = []


def test_what_the_caller_has_is_not_told_again(fake_server: Caller, engine: FakeEngine) -> None:
    sandbox = fake_server.create()
    engine.listed = [ProcessFacts(3, 12, None, 0, is_command=False, is_uncertain=True)]
    with talking(fake_server, f"{sandbox}/processes/3?stdout_since=4") as socket:
        assert listen(socket).stdout == b"ected\n"
    engine.listed = []


@pytest.mark.parametrize("number", ["1", "x", "-1", "99999999999999999999"])
def test_what_is_not_uncertain_cannot_be_collected(server: Caller, number: str) -> None:
    status, body = refused(server, f"{server.create()}/processes/{number}")
    assert (status, body["code"]) == (404, "not_found")
