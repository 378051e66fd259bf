"""A runtime of a daemon that a test may stop, and small ways to look at what comes of it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
from tests.runtimes.conftest import Bench
from tests.runtimes.docker.daemons import Daemon, daemon, need_dockerd
from tests.runtimes.kits import DockerKit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from sandboxd.ports.images import Rootfs


@pytest.fixture(scope="module")
def own_daemon() -> Iterator[Daemon]:
    """A daemon for the tests of one file, which may treat it as they like."""
    need_dockerd()
    with daemon() as made:
        yield made


@pytest.fixture
def live_restore() -> bool:
    return True


@pytest.fixture
async def bench(own_daemon: Daemon, *, live_restore: bool, tmp_path: Path, rootfs: Rootfs) -> AsyncIterator[Bench]:
    """A bench whose daemon was started for it, and runs again when all is destroyed."""
    own_daemon.restart(live_restore=live_restore)
    kit = DockerKit("docker", own_daemon)
    state, node = tmp_path / "state", secrets.token_hex(6)
    state.mkdir(mode=0o700)
    made = Bench(kit.runtime(state, node), state, node, rootfs, kit)
    yield made
    own_daemon.start_again()
    later = made.successor()
    for internal_id in await later.list():
        await (await later.adopt(internal_id)).destroy()
    assert await later.list() == []
    assert own_daemon.ask("GET", "containers/json?all=true") == []
