"""`sandboxd serve`: run the server until it is asked to end."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotation when it runs
from typing import Annotated

import typer

from sandboxd.cli.options import Changes, Config, State, settings_from


def serve(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of HTTP, which gRPC shares; 0 = none.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port of gRPC alone; 0 = none.")] = None,
    state: State = None,
    images: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the images.")] = None,
    config: Config = None,
    changes: Changes = None,
    tls_cert: Annotated[
        str | None, typer.Option(metavar="FILE", help="Certificate to encrypt every port with, as PEM.")
    ] = None,
    tls_key: Annotated[str | None, typer.Option(metavar="FILE", help="Private key of the certificate, as PEM.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond loopback although nobody has to show a key.")
    ] = False,
    stop_sandboxes: Annotated[
        bool, typer.Option("--stop-sandboxes", help="Destroy all sandboxes at the end; else they run on.")
    ] = False,
) -> None:
    """Run the server. SIGTERM ends it; its sandboxes run on and are found again by the next one."""
    flags = {
        "http.host": host,
        "http.port": port,
        "grpc.port": grpc_port,
        "tls.cert": tls_cert,
        "tls.key": tls_key,
        "state": state,
        "images": images,
        "http.insecure": insecure or None,
        "stop_sandboxes": stop_sandboxes or None,
    }
    settings = settings_from(config, changes, flags)
    from sandboxd.server.app import run  # noqa: PLC0415 - the server is loaded only when it is to run

    run(settings)
