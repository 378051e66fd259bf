"""What a user is told who asks for a sandbox of Docker's, and something is missing."""

from __future__ import annotations

import shutil
import signal
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Answer, Server
    from tests.runtimes.docker.daemons import Daemon

SOMEBODY = 65534
WITHOUT_ROOTS_RIGHT_TO_FILES = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def create(server: Server, host: str, image: str = "alpine:latest", *, under: tuple[str, ...] = ()) -> Answer:
    """Ask a server for a sandbox that is to use the daemon at `host`; it must not be made, and leave nothing."""
    server.end(signal.SIGTERM)
    server.under = under
    server.start("--set", f"docker.host={host}")
    answer = server.request("POST", "/sandboxes", {"type": "docker", "image": image, "command": [], "memory_mb": 64})
    assert server.request("GET", "/sandboxes").json == {"sandboxes": []}
    assert not [*(server.state / "docker").glob("instances/*")]
    assert server.request("GET", "/healthz").status == 200
    return answer


def test_a_daemon_that_is_not_there_is_named(server: Server, tmp_path: Path) -> None:
    host = f"unix://{tmp_path}/none"
    told = create(server, host)
    assert (told.status, "\n" in told.text) == (503, False)
    assert f"there is no Docker daemon at `{host}`: the socket does not exist" in told.text


def test_a_socket_that_nobody_listens_at_any_more_is_told_from_none(server: Server, tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(tmp_path / "dead"))
    told = create(server, f"unix://{tmp_path}/dead")
    assert (told.status, "\n" in told.text) == (503, False)
    assert f"the Docker daemon at `unix://{tmp_path}/dead` refuses connections" in told.text


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="nothing here takes a right away from root")
def test_a_socket_that_this_user_may_not_use_is_told_as_such(server: Server, tmp_path: Path) -> None:
    place = tmp_path / "theirs"
    with closing(socket.socket(socket.AF_UNIX)) as theirs:
        theirs.bind(str(place))
        theirs.listen()
        place.chmod(0o600)
        shutil.chown(place, SOMEBODY, SOMEBODY)
        told = create(server, f"unix://{place}", under=WITHOUT_ROOTS_RIGHT_TO_FILES)
    server.under = ()
    assert (told.status, "\n" in told.text) == (503, False)
    assert f"the Docker daemon's socket `unix://{place}` may not be used by this user" in told.text


def test_an_image_that_is_nowhere_is_named(docker: Daemon, server: Server) -> None:
    told = create(server, docker.host, "no-such-image:1")
    assert (told.status, "\n" in told.text) == (400, False)
    assert "no-such-image:1" in told.text
    assert docker.ask("GET", "containers/json?all=true") == []
