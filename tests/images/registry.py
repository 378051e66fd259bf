"""A real registry on loopback, for as long as a block runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USER, PASSWORD = "user", "secret"
_HTPASSWD = "user:$2y$05$ympvL9eLxSXitpNzqGAPK.Aj52wjVgqZl64PJ2esMFD/TZHjpzbCm\n"
_REQUEST = re.compile(r'"(GET|HEAD|PUT|POST|PATCH) (/v2/[^" ]*) HTTP[^"]*" (\d+)')


@dataclass(frozen=True)
class Registry:
    """Where it listens, what it was asked, and how images get into it."""

    host: str
    folder: Path
    options: tuple[str, ...] = ("--dest-tls-verify=false",)

    def push(self, layout: Path, name: str) -> str:
        """Put a layout's image (or its whole index) there; return the reference to pull."""
        reference = f"{self.host}/{name}"
        command = ["skopeo", "copy", "--quiet", "--all", "--insecure-policy", *self.options]
        subprocess.run([*command, f"oci:{layout}", f"docker://{reference}"], check=True)
        return reference

    def requests(self) -> list[tuple[str, str, int]]:
        """Return method, path and status of every request so far."""
        text = (self.folder / "log").read_text(errors="replace")
        return [(method, path, int(status)) for method, path, status in _REQUEST.findall(text)]

    def blobs_given(self, name: str) -> list[str]:
        """Return the digest of every blob that was downloaded of an image, once for each time."""
        start = f"/v2/{name}/blobs/"
        found = [(path, status) for method, path, status in self.requests() if method == "GET"]
        return [path.removeprefix(start) for path, status in found if path.startswith(start) and status == 200]

    def forget(self, digest: str) -> None:
        """Lose a blob, as a broken registry does."""
        hexadecimal = digest.removeprefix("sha256:")
        shutil.rmtree(self.folder / "data/docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal)


@contextmanager
def running(folder: Path, *, login: bool = False, tls: bool = False) -> Iterator[Registry]:
    """Run Debian's `docker-registry` with its data and its log in a folder of its own."""
    for program in ("docker-registry", "skopeo"):
        if shutil.which(program) is None:
            give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
            give_up(f"`{program}` is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    http: dict[str, object] = {"addr": f"127.0.0.1:{port}"}
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": http,
    }
    options = ["--dest-tls-verify=false"]
    if login:
        (folder / "htpasswd").write_text(_HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
        options.append(f"--dest-creds={USER}:{PASSWORD}")
    if tls:
        certify(folder)
        http["tls"] = {"certificate": str(folder / "server.crt"), "key": str(folder / "server.key")}
        options = [f"--dest-cert-dir={folder / 'ca'}"]
    (folder / "config.yml").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        command = ["docker-registry", "serve", str(folder / "config.yml")]
        # It takes variables of that prefix for settings, and skopeo's is one of them.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
        with subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process:
            try:
                _wait_for(port)
                yield Registry(f"127.0.0.1:{port}", folder, tuple(options))
            finally:
                process.kill()


def certify(folder: Path) -> None:
    """Make a CA, in a folder `ca` as `ca.crt`, and a certificate of it for 127.0.0.1."""
    (folder / "ca").mkdir()
    ca, key = folder / "ca/ca.crt", folder / "ca.key"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    usual = ["-subj", "/CN=test", "-addext"]
    subprocess.run([*new, *usual, "keyUsage=keyCertSign", "-keyout", key, "-out", ca], check=True, capture_output=True)
    signed = [*new, *usual, "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    signed += ["-CA", str(ca), "-CAkey", str(key)]
    places = ["-keyout", str(folder / "server.key"), "-out", str(folder / "server.crt")]
    subprocess.run([*signed, *places], check=True, capture_output=True)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
