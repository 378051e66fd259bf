"""`sandboxd image pull`: brings an image from its registry, and shows how far it is."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path  # noqa: TC003 - typer reads the annotations when it runs
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from sandboxd.cli.image_folder import Images, opened, told
from sandboxd.cli.options import Changes, Config, settings_from
from sandboxd.core.errors import Invalid
from sandboxd.core.spec import PullPolicy
from sandboxd.images.oci import architecture
from sandboxd.images.registries import Credentials
from sandboxd.images.watch import Progress, Step, Watch
from sandboxd.server.pulls import registries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def pull(
    reference: Annotated[str, typer.Argument(help="Such as `python:3.12` or `ghcr.io/org/app@sha256:…`.")],
    *,
    policy: Annotated[
        PullPolicy, typer.Option(help="Ask the registry `always`, only if the image is `missing` here, or `never`.")
    ] = PullPolicy.ALWAYS,
    creds: Annotated[
        str | None, typer.Option(metavar="USER[:PASSWORD]", help="Who asks; without a password it is asked for.")
    ] = None,
    authfile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where logins are kept, other than in the usual auth file.")
    ] = None,
    cert_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of further CAs (*.crt) and client certificates.")
    ] = None,
    tls_verify: Annotated[
        bool | None,
        typer.Option("--tls-verify/--insecure", help="Check certificates, or accept any and plain HTTP too."),
    ] = None,
    platform: Annotated[
        str | None, typer.Option(metavar="OS/ARCH", help="Refused unless it is this node's own.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Longest time; 0 = no maximum.")] = None,
    images: Images = None,
    config: Config = None,
    changes: Changes = None,
) -> None:
    """Pull an image from its registry. What is here already is not downloaded again."""
    with told():
        settings = settings_from(config, changes, {"images": images})
        known = registries(settings.image)
        asked = replace(
            known,
            auth_file=authfile or known.auth_file,
            certificates=cert_dir or known.certificates,
            verify=tls_verify,
            timeout_s=known.timeout_s if timeout is None else timeout,
        )
        _check_platform(platform)
        credentials = _credentials(creds)
    with _shown() as tell, opened(settings.images, asked, interpreter=settings.image.interpreter) as store:
        watch = Watch(timeout_s=asked.timeout_s, told=tell)
        record = store.pull(reference, policy=policy, credentials=credentials, watch=watch)
    typer.echo(f"{record.name} {record.digest}")


def _check_platform(platform: str | None) -> None:
    system, _, processors = (platform or "").partition("/")
    if platform and (system, processors) != ("linux", architecture()):
        raise Invalid(f"this node is linux/{architecture()}, it cannot run images for `{platform}`")


def _credentials(creds: str | None) -> Credentials | None:
    if creds is None:
        return None
    user, colon, password = creds.partition(":")
    if not colon:
        password = _password(user)
    return Credentials(user, password)


def _password(user: str) -> str:
    if sys.stdin.isatty():
        return str(typer.prompt(f"Password of {user}", hide_input=True, err=True))
    return sys.stdin.readline().rstrip("\n")


@contextmanager
def _shown() -> Iterator[Callable[[Progress], None]]:
    """Give what shows progress on stderr: a bar on a terminal, else a line for each step."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines().tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        yield _Bar(bars).tell


class _Lines:
    """One line a step."""

    def __init__(self) -> None:
        self._step: Step | None = None

    def tell(self, progress: Progress) -> None:
        """Say which step began."""
        if progress.step is not self._step:
            self._step = progress.step
            size = f" {progress.total} bytes" if progress.total else ""
            typer.echo(f"{progress.step}{size}", err=True)


class _Bar:
    """One bar, which starts anew with each step."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._step: Step | None = None
        self._bar = bars.add_task("", total=None)

    def tell(self, progress: Progress) -> None:
        """Move the bar."""
        if progress.step is not self._step:
            self._step = progress.step
            self._bars.reset(self._bar, description=str(progress.step))
        self._bars.update(self._bar, completed=progress.done, total=progress.total or None)
