"""`sandboxd doctor`: what works on this node, and why the rest does not."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sandboxd.cli.options import Changes, Config, settings_from
from sandboxd.core.ids import new_internal_id
from sandboxd.server.registry import ABSENT, choose, runtimes

if TYPE_CHECKING:
    from sandboxd.core.capabilities import Probe
    from sandboxd.server.settings import Settings


def doctor(*, config: Config = None, changes: Changes = None) -> None:
    """Say of every runtime whether it works here. The exit code is 0 when one does that `auto` may mean, else 1."""
    settings = settings_from(config, changes, {})
    wanted = choose("auto", settings)
    probes = asyncio.run(_probe_all(settings))
    width = max(len(name) for name in (*probes, *ABSENT))
    for name, probe in probes.items():
        typer.echo(f"{name:{width}}  {'works' if probe.available else 'fails'}   {probe.sentence}")
    for name, sentence in ABSENT.items():
        typer.echo(f"{name:{width}}  absent  {sentence}")
    if not any(probes[name].available for name in wanted):
        raise typer.Exit(1)


async def _probe_all(settings: Settings) -> dict[str, Probe]:
    """Try every runtime as a node of its own, so that a server that runs here is not disturbed."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sandboxd-doctor-"))
        made = runtimes(replace(settings, state=Path(folder)), new_internal_id())
        for runtime in made.values():
            stack.callback(runtime.close)
        return {name: await runtime.probe() for name, runtime in made.items()}
