"""Processes: how they start, what they get, how they end."""

from __future__ import annotations

import os
import resource
import time
from typing import TYPE_CHECKING

import pytest

from sandboxd.guest import frames as wire

if TYPE_CHECKING:
    from pathlib import Path

    from tests.agent.conftest import Driver, Launcher

EINVAL = 22
ENOENT = 2
ENOTDIR = 20
EACCES = 13
EAGAIN = 11
EPROTO = 71
ENOTTY = 25
ESRCH = 3
CAP_SYS_ADMIN = 21


def _failure(agent: Driver, record_id: int) -> int:
    failed = agent.reply(record_id)
    assert isinstance(failed, wire.Failed)
    assert failed.message
    return failed.errno


def test_every_exit_code_is_told(agent: Driver) -> None:
    script = "for i in 0 1 2 3; do (exit $((base + i))); echo $?; done; exit $base"
    for base in range(0, 256, 4):
        code, out, _ = agent.shell(f"base={base}; {script}")
        assert code == base
        assert out.split() == [str(base + i).encode() for i in range(4)]


def test_an_exit_by_signal_is_told(agent: Driver) -> None:
    record_id = agent.start("/bin/sh", "-c", "kill -9 $$")
    exited = agent.finish(record_id)
    assert (exited.code, exited.signal, exited.deadline) == (137, 9, 0)


def test_started_comes_before_output_and_exit(agent: Driver) -> None:
    agent.auto_window = False
    record_id = agent.start("/bin/echo", "hi")
    kinds = [type(agent.reply(record_id)) for _ in range(3)]
    assert kinds == [wire.Started, wire.Output, wire.Exited]


def test_a_missing_program_exits_127_with_a_sentence(agent: Driver) -> None:
    record_id = agent.start("no-such-program")
    assert agent.wait(wire.Started, record_id).pid == 0
    assert agent.finish(record_id).code == 127
    assert agent.output(record_id, 2) == b"sandboxd: cannot run `no-such-program`: No such file or directory\n"
    assert agent.run("/no/such/program")[0] == 127
    assert agent.run("")[0] == 127
    agent.quiet()
    assert not [frame for _, frame in agent.frames if isinstance(frame, wire.Accepted)], "it has no stdin"


def test_a_program_that_cannot_be_executed_exits_126(agent: Driver, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    assert agent.run(str(tmp_path / "plain"))[0] == 126
    assert agent.run(str(tmp_path))[0] == 126
    assert agent.run("plain", env={"PATH": f"/nowhere:{tmp_path}"})[0] == 126


def test_a_name_is_looked_up_in_the_path_given(agent: Driver, tmp_path: Path) -> None:
    program = tmp_path / "greet"
    program.write_text("#!/bin/sh\necho from here\n")
    program.chmod(0o755)
    assert agent.run("greet", env={"PATH": f"/nowhere:{tmp_path}:/bin"}) == (0, b"from here\n", b"")
    assert agent.run("greet", env={"PATH": "/bin"})[0] == 127


def test_environment_is_what_is_given_and_what_everyone_needs(agent: Driver) -> None:
    code, out, _ = agent.run("/usr/bin/env", env={"A": "1", "EMPTY": "", "HOME": "/elsewhere"})
    assert code == 0
    assert sorted(out.splitlines()) == [
        b"A=1",
        b"EMPTY=",
        b"HOME=/elsewhere",
        b"LOGNAME=root",
        b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        b"USER=root",
    ]


def test_working_directory_is_root_or_what_is_asked(agent: Driver, tmp_path: Path) -> None:
    assert agent.run("/bin/pwd") == (0, b"/\n", b"")
    assert agent.run("/bin/pwd", cwd=str(tmp_path)) == (0, f"{tmp_path}\n".encode(), b"")


@pytest.mark.parametrize(("cwd", "error"), [("/no/such", ENOENT), ("/etc/passwd", ENOTDIR)])
def test_a_wrong_working_directory_fails_the_start(agent: Driver, cwd: str, error: int) -> None:
    assert _failure(agent, agent.start("/bin/true", cwd=cwd)) == error


def test_a_directory_closed_to_the_user_fails_the_start(agent: Driver) -> None:
    assert _failure(agent, agent.start("/bin/true", cwd="/root", user="nobody")) == EACCES


@pytest.mark.parametrize("user", ["nobody-at-all", "root:nobody-at-all", ":root", "4294967295", "-1", "99999999999"])
def test_an_unknown_user_fails_the_start(agent: Driver, user: str) -> None:
    assert _failure(agent, agent.start("/bin/true", user=user)) == EINVAL


def test_an_agent_that_may_administer_lets_nobody_else(agent: Driver) -> None:
    """Where the kernel is the sandbox's own, the agent holds what no program of the sandbox shall have."""
    code, out, _ = agent.shell("grep -E '^Cap(Prm|Eff|Bnd)' /proc/self/status")
    assert code == 0
    assert not any(int(word, 16) & 1 << CAP_SYS_ADMIN for word in out.split()[1::2])


def test_users_and_groups_are_those_of_the_guest(launch: Launcher, tmp_path: Path) -> None:
    """The agent sees tables of its own: they are mounted over the host's."""
    (tmp_path / "passwd").write_text("root:x:0:0::/root:/bin/sh\nbroken\nann:x:1234:55:Ann:/home/ann:/bin/sh\n")
    (tmp_path / "group").write_text("root:x:0:\nstaff:x:55:bob\nextra:x:77:bob,ann\nmore:x:78:annie,ann\nno:x:79:bob")
    agent = launch()
    who = "id -u; id -g; id -G; echo $HOME $USER $LOGNAME"

    def identity(user: str) -> list[str]:
        code, out, err = agent.shell(who, user=user)
        assert (code, err) == (0, b"")
        return out.decode().splitlines()

    for table in ("passwd", "group"):
        agent.mount("--bind", f"{tmp_path}/{table}", f"/etc/{table}")
    assert identity("ann") == ["1234", "55", "55 77 78", "/home/ann ann ann"]
    assert identity("1234") == ["1234", "55", "55 77 78", "/home/ann ann ann"]
    assert identity("ann:extra") == ["1234", "77", "77", "/home/ann ann ann"]
    assert identity("ann:99") == ["1234", "99", "99", "/home/ann ann ann"]
    assert identity("4321") == ["4321", "0", "0", "/ 4321 4321"]
    assert identity("4321:55") == ["4321", "55", "55", "/ 4321 4321"]
    assert identity("") == ["0", "0", "0", "/root root root"]


def test_children_get_defaults_and_nothing_of_the_agents(agent: Driver) -> None:
    code, out, _ = agent.shell("ls /proc/self/fd; umask; grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status; exit 0")
    assert code == 0
    lines = out.decode().split()
    assert lines[:4] == ["0", "1", "2", "3"]  # 3 is the directory that ls reads
    assert lines[4] == "0022"
    assert lines[5:9] == ["SigBlk:", "0" * 16, "SigIgn:", "0" * 16]


def test_children_are_killed_before_the_agent_when_memory_lacks(agent: Driver) -> None:
    own = int(agent.shell("cat /proc/1/oom_score_adj")[1])
    assert int(agent.shell("cat /proc/self/oom_score_adj")[1]) == min(1000, own + 500)


def test_the_agent_cannot_be_read_by_others(agent: Driver) -> None:
    assert agent.shell("ls -l /proc/1/fd", user="nobody")[0] != 0


def test_a_process_leads_its_session(agent: Driver) -> None:
    code, out, _ = agent.shell("cut -d' ' -f1,5,6 /proc/self/stat & wait; echo $$")
    _, group, session, shell = out.split()
    assert (code, group, session) == (0, shell, shell)


def test_limits_are_set(agent: Driver) -> None:
    limits = ((resource.RLIMIT_NOFILE, 64, 128), (resource.RLIMIT_CORE, 0, 0))
    code, out, _ = agent.shell("ulimit -S -n; ulimit -H -n; ulimit -H -c", rlimits=limits)
    assert (code, out.split()) == (0, [b"64", b"128", b"0"])


def test_descriptor_limit_is_the_one_given_to_the_agent(agent: Driver) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert agent.shell("ulimit -S -n; ulimit -H -n")[1].split() == [str(soft).encode(), str(hard).encode()]


def test_impossible_requests_are_refused(agent: Driver) -> None:
    assert _failure(agent, agent.start("/bin/true", flags=4)) == EINVAL
    assert _failure(agent, agent.start("/bin/true", ring=wire.LIMIT_RING + 1)) == EINVAL
    assert _failure(agent, agent.start()) == EINVAL
    assert _failure(agent, agent.start("/bin/true", rlimits=((10, 5, 5),))) == EINVAL
    assert _failure(agent, agent.start("/bin/true", rlimits=((999, 5, 5),))) == EINVAL


def test_records_are_bounded(agent: Driver) -> None:
    ids = [agent.start("no-such-program", window=0) for _ in range(wire.LIMIT_RECORDS)]
    for record_id in ids:
        agent.wait(wire.Exited, record_id)
    assert _failure(agent, agent.start("/bin/true")) == EAGAIN
    agent.send(wire.Forget(), ids[0])
    assert agent.run("/bin/true")[0] == 0


def test_the_deadline_kills_and_says_so(agent: Driver) -> None:
    began = time.monotonic()
    record_id = agent.start("/bin/sh", "-c", "setsid sleep 1000 & sleep 1000", deadline_ms=200)
    exited = agent.finish(record_id)
    assert (exited.code, exited.signal, exited.deadline) == (137, 9, 1)
    assert 0.2 <= time.monotonic() - began < 3
    assert b"sleep" not in agent.shell("cat /proc/[0-9]*/comm")[1]


def test_an_exit_before_the_deadline_is_ordinary(agent: Driver) -> None:
    record_id = agent.start("/bin/true", deadline_ms=5000)
    assert agent.finish(record_id).deadline == 0


def test_signals_reach_the_process(agent: Driver) -> None:
    record_id = agent.start(
        "/bin/sh", "-c", "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.01; done"
    )
    agent.until(lambda: agent.output(record_id) == b"ready\n")
    agent.send(wire.Signal(15, 0), record_id)
    assert isinstance(agent.wait(wire.Done, record_id), wire.Done)
    assert agent.finish(record_id).code == 9
    assert agent.output(record_id) == b"ready\ncaught\n"


def test_a_signal_that_comes_too_late_is_done(agent: Driver) -> None:
    record_id = agent.start("/bin/true")
    agent.wait(wire.Exited, record_id)
    agent.send(wire.Signal(15, 0), record_id)
    agent.wait(wire.Done, record_id)
    agent.send(wire.Signal(9, 1), record_id)
    agent.wait(wire.Done, record_id)


def test_a_signal_to_nobody_is_refused(agent: Driver) -> None:
    agent.send(wire.Signal(15, 0), 4711)
    assert _failure(agent, 4711) == ESRCH


def test_an_impossible_signal_is_refused(agent: Driver) -> None:
    record_id = agent.start("/bin/sleep", "100")
    agent.wait(wire.Started, record_id)
    agent.send(wire.Signal(99, 0), record_id)
    assert agent.wait(wire.Failed, record_id).errno == EINVAL


def test_a_background_child_with_the_pipes_does_not_delay_the_exit(agent: Driver, tmp_path: Path) -> None:
    """It lives on, although what it writes later goes nowhere."""
    began = time.monotonic()
    script = (
        f"(sleep 0.3; i=0; while [ $i -lt 20000 ]; do echo noise; i=$((i+1)); done; touch {tmp_path}/done) & echo mine"
    )
    assert agent.shell(script) == (0, b"mine\n", b"")
    assert time.monotonic() - began < 0.3
    agent.until((tmp_path / "done").exists)


def test_all_that_the_process_wrote_is_there_at_its_exit(agent: Driver) -> None:
    for size in (1, 4095, 4096, 4097, 65536, 65537, 200_000, 1_000_000):
        code, out, _ = agent.shell(f"sleep 1000 & head -c {size} /dev/zero")
        assert (code, len(out)) == (0, size)


def test_orphans_are_collected(agent: Driver) -> None:
    agent.shell("for i in 1 2 3 4 5; do (sleep 0.01 &) ; done; sleep 0.1")
    agent.until(lambda: b" Z " not in agent.shell("cat /proc/[0-9]*/stat")[1])


def test_forgotten_processes_run_on(agent: Driver, tmp_path: Path) -> None:
    script = f"i=0; while [ $i -lt 20000 ]; do echo noise; i=$((i+1)); done; touch {tmp_path}/done"
    record_id = agent.start("/bin/sh", "-c", script, window=0)
    agent.wait(wire.Started, record_id)
    agent.send(wire.Forget(), record_id)
    agent.until((tmp_path / "done").exists)
    agent.send(wire.Processes(), 900)
    assert isinstance(agent.reply(900), wire.Done)
    assert not [frame for _, frame in agent.frames if isinstance(frame, wire.Process)]


def test_many_processes_at_once(agent: Driver) -> None:
    ids = [agent.start("/bin/sh", "-c", f"echo {number}; exit {number}") for number in range(100)]
    for number, record_id in enumerate(ids):
        assert agent.finish(record_id).code == number
        assert agent.output(record_id) == f"{number}\n".encode()


def test_no_descriptor_or_memory_is_lost_over_many_starts(agent: Driver) -> None:
    def resources() -> tuple[int, int]:
        out = agent.shell("ls /proc/1/fd | wc -l; grep VmRSS /proc/1/status | tr -dc 0-9")[1]
        count, memory = out.split()
        return int(count), int(memory)

    for _ in range(20):
        agent.run("/bin/true")
    before = resources()
    for _ in range(200):
        agent.run("/bin/true")
    agent.until(lambda: resources()[0] == before[0])
    if "asan" not in os.environ.get("SANDBOXD_AGENT", ""):
        assert resources()[1] - before[1] < 300


# ---- stdin


def test_stdin_is_empty_unless_asked_for(agent: Driver) -> None:
    assert agent.run("/bin/cat") == (0, b"", b"")


def test_stdin_is_what_is_sent(agent: Driver) -> None:
    record_id = agent.start("/bin/cat", flags=wire.START_FLAG_STDIN)
    accepted = agent.wait(wire.Accepted, record_id)
    assert accepted == wire.Accepted(0, wire.LIMIT_INPUT, 0)
    agent.send(wire.Input(0, b"hello "), record_id)
    agent.send(wire.Input(3, b"lo world"), record_id)
    agent.send(wire.Input(11, b""), record_id, flags=wire.FLAG_LAST)
    assert agent.finish(record_id).code == 0
    assert agent.output(record_id) == b"hello world"


def test_stdin_waits_for_its_reader(agent: Driver) -> None:
    """Credit comes as the process reads, and no byte is lost."""
    data = os.urandom(1_000_000)
    record_id = agent.start("/bin/sh", "-c", "sleep 0.3; exec cat", flags=wire.START_FLAG_STDIN)
    limit = sent = 0
    while sent < len(data):
        limit = max(limit, agent.wait(wire.Accepted, record_id).limit)
        if sent == 0:
            assert limit == wire.LIMIT_INPUT
        while sent < min(limit, len(data)):
            piece = data[sent : min(sent + 4060, limit, len(data))]
            agent.send(wire.Input(sent, piece), record_id)
            sent += len(piece)
    agent.send(wire.Input(sent, b""), record_id, flags=wire.FLAG_LAST)
    agent.finish(record_id)
    assert agent.output(record_id) == data


def test_a_gap_in_stdin_is_refused(agent: Driver) -> None:
    record_id = agent.start("/bin/cat", flags=wire.START_FLAG_STDIN)
    agent.wait(wire.Accepted, record_id)
    agent.send(wire.Input(5, b"late"), record_id)
    assert agent.wait(wire.Failed, record_id).errno == EPROTO


def test_more_stdin_than_allowed_is_refused(agent: Driver) -> None:
    record_id = agent.start("/bin/sleep", "100", flags=wire.START_FLAG_STDIN)
    for at in range(0, 3 * wire.LIMIT_INPUT, 4000):
        agent.send(wire.Input(at, bytes(4000)), record_id)
    assert agent.wait(wire.Failed, record_id).errno == EPROTO


def test_a_process_that_closes_its_stdin_is_told_of(agent: Driver) -> None:
    record_id = agent.start("/bin/sh", "-c", "exec 0<&-; sleep 0.2; echo on", flags=wire.START_FLAG_STDIN)
    agent.wait(wire.Accepted, record_id)
    assert agent.wait(wire.Accepted, record_id).closed == 1
    agent.send(wire.Input(0, b"too late"), record_id)
    assert agent.finish(record_id).code == 0
    assert agent.output(record_id) == b"on\n"


# ---- terminals


def test_a_terminal_has_a_size_that_can_change(agent: Driver) -> None:
    script = "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.01; done"
    record_id = agent.start("/bin/sh", "-c", script, flags=wire.START_FLAG_TERMINAL, size=(30, 100))
    agent.until(lambda: b"30 100" in agent.output(record_id))
    agent.send(wire.Resize(40, 120), record_id)
    agent.wait(wire.Done, record_id)
    assert agent.finish(record_id).code == 0
    assert agent.output(record_id) == b"30 100\r\n40 120\r\n"


def test_a_terminal_is_its_stdin(agent: Driver) -> None:
    record_id = agent.start("/bin/sh", "-c", "tty <&2 >/dev/null && cat", flags=wire.START_FLAG_TERMINAL)
    agent.send(wire.Input(0, b"line\n"), record_id)
    agent.until(lambda: agent.output(record_id) == b"line\r\nline\r\n")
    agent.send(wire.Input(5, b""), record_id, flags=wire.FLAG_LAST)
    assert agent.finish(record_id).code == 0


def test_a_terminal_sends_the_interrupt_to_its_process(agent: Driver) -> None:
    record_id = agent.start("/bin/sleep", "100", flags=wire.START_FLAG_TERMINAL)
    agent.wait(wire.Started, record_id)
    agent.send(wire.Input(0, b"\x03"), record_id)
    assert agent.finish(record_id).signal == 2


def test_a_terminal_works_for_another_user(agent: Driver) -> None:
    record_id = agent.start("/bin/sh", "-c", "echo hi > $(tty)", flags=wire.START_FLAG_TERMINAL, user="nobody")
    assert agent.finish(record_id).code == 0
    assert agent.output(record_id) == b"hi\r\n"


def test_all_of_a_terminals_output_is_there_at_the_exit(agent: Driver) -> None:
    for _ in range(10):
        record_id = agent.start("/usr/bin/seq", "5000", flags=wire.START_FLAG_TERMINAL)
        agent.finish(record_id)
        assert agent.output(record_id).split() == [str(n).encode() for n in range(1, 5001)]


def test_only_terminals_have_a_size(agent: Driver) -> None:
    record_id = agent.start("/bin/sleep", "100")
    agent.wait(wire.Started, record_id)
    agent.send(wire.Resize(1, 1), record_id)
    assert agent.wait(wire.Failed, record_id).errno == ENOTTY


# ---- descendants


def _names(agent: Driver) -> bytes:
    return agent.shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")[1]


SURVIVORS = {
    "plain": "sleep 4242 & sleep 4242",
    "session": "setsid setsid sleep 4242 & wait",
    "orphan": "(setsid sleep 4242 & ) ; exit 0",
    "double fork": "(setsid sh -c 'sleep 4242 & exec sleep 4242' & ) ; sleep 0.1; sleep 4242",
    "empty environment": "(env -i setsid sleep 4242 & ) ; sleep 4242",
    "lowered limit": "(sh -c 'ulimit -x 5; env -i setsid sleep 4242 &' & ) ; sleep 4242",
    "stopped": "(setsid sh -c 'kill -STOP $$; sleep 4242' & ) ; sleep 4242",
    "ignores signals": "trap '' TERM HUP INT; (setsid sleep 4242 & ) ; sleep 4242",
    "multiplies": "f() { (setsid sleep 4242 &); }; i=0; while [ $i -lt 100 ]; do f; i=$((i+1)); done; sleep 4242",
    "forks on": "f() { while :; do (sleep 4242 &) ; sleep 0.02; done; }; f & f & f",
}


@pytest.mark.parametrize("script", SURVIVORS.values(), ids=SURVIVORS.keys())
def test_no_descendant_survives(agent: Driver, script: str) -> None:
    bystander = agent.start("/bin/sleep", "4343")
    agent.wait(wire.Started, bystander)
    record_id = agent.start("/bin/sh", "-c", script, window=0)
    agent.wait(wire.Started, record_id)
    agent.until(lambda: b"sleep 4242" in _names(agent) or script == SURVIVORS["stopped"])
    agent.quiet(0.15)
    agent.send(wire.Signal(9, 1), record_id)
    began = time.monotonic()
    agent.wait(wire.Done, record_id)
    assert time.monotonic() - began < 2
    names = _names(agent)
    assert b"sleep 4242" not in names
    assert b"sleep 4343" in names


def test_a_signal_reaches_all_descendants(agent: Driver) -> None:
    script = "(setsid sleep 4242 &) ; (sleep 4242 &) ; exec sleep 4242"
    record_id = agent.start("/bin/sh", "-c", script)
    agent.until(lambda: _names(agent).count(b"sleep 4242") >= 3)
    agent.send(wire.Signal(15, 1), record_id)
    agent.wait(wire.Done, record_id)
    assert agent.finish(record_id).signal == 15
    agent.until(lambda: b"sleep 4242" not in _names(agent))


def test_a_background_child_is_killed_after_its_leader_ended(agent: Driver) -> None:
    record_id = agent.start("/bin/sh", "-c", "setsid sleep 4242 & exit 0")
    agent.wait(wire.Exited, record_id)
    agent.until(lambda: b"sleep 4242" in _names(agent))  # which nobody sees while it executes
    agent.send(wire.Signal(9, 1), record_id)
    agent.wait(wire.Done, record_id)
    assert b"sleep 4242" not in _names(agent)


@pytest.mark.parametrize(
    "script", [SURVIVORS[name] for name in ("plain", "session", "orphan", "double fork", "stopped")]
)
def test_marks_in_the_environment_serve_where_limits_cannot(launch: Launcher, script: str) -> None:
    agent = launch("--marks=environment")
    record_id = agent.start("/bin/sh", "-c", script, window=0)
    agent.wait(wire.Started, record_id)
    agent.quiet(0.2)
    agent.send(wire.Signal(9, 1), record_id)
    agent.wait(wire.Done, record_id)
    assert b"sleep 4242" not in _names(agent)


def test_the_agent_answers_while_it_kills(agent: Driver) -> None:
    record_id = agent.start("/bin/sh", "-c", "i=0; while [ $i -lt 300 ]; do sleep 4242 & i=$((i+1)); done; wait")
    agent.quiet(0.5)
    agent.send(wire.Signal(9, 1), record_id)
    began = time.monotonic()
    assert isinstance(agent.ask(wire.Uname()), wire.Platform)
    assert time.monotonic() - began < 1
    agent.wait(wire.Done, record_id)
    assert b"sleep 4242" not in _names(agent)
