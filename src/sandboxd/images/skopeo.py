"""Runs skopeo, which speaks to registries, daemons and archives for us."""

from __future__ import annotations

import os
import select
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxd.core.errors import Unavailable
from sandboxd.host.spawn import Streams, start
from sandboxd.images.oci import architecture
from sandboxd.images.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxd.images.registries import Address, Credentials, Registries
    from sandboxd.images.watch import Watch

LARGEST_DOCUMENT = 4 * 1024 * 1024
_LOOK_EVERY_MS = 100
_TAIL = 64 * 1024
_NEW = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_POLICIES = ("/etc/containers/policy.json", "~/.config/containers/policy.json")


class Skopeo:
    """skopeo for one pull, with its files in a staging folder. Blocks; ends with whatever it started ended."""

    def __init__(
        self,
        staging: Path,
        registries: Registries,
        watch: Watch,
        *,
        host: str = "",
        credentials: Credentials | None = None,
    ) -> None:
        self._staging = staging
        self._watch = watch
        self._program = _program(staging)
        self._asking = (
            [f"--tls-verify={str(verify).lower()}"] if (verify := _verify(registries, host)) is not None else []
        )
        if credentials:
            self._asking.append(f"--authfile={_written(staging / 'auth.json', credentials.auth_file(host))}")
        elif registries.auth_file:
            self._asking.append(f"--authfile={registries.auth_file}")
        if registries.certificates:
            self._asking.append(f"--cert-dir={registries.certificates}")
        if registries.mirrors or registries.insecure:
            written = _written(staging / "registries.conf", registries.configuration())
            self._program.append(f"--registries-conf={written}")

    def manifest(self, address: Address) -> bytes:
        """Return the manifest or the index that an address leads to, as it is.

        Raises:
            SandboxdError: why not, by what can be done about it.
        """
        self._run(["inspect", "--raw", *self._asking, f"docker://{address}"], str(address))
        with (self._staging / "output").open("rb") as file:
            data = file.read(LARGEST_DOCUMENT + 1)
        if len(data) > LARGEST_DOCUMENT:
            raise Unavailable(f"the manifest of `{address}` is larger than {LARGEST_DOCUMENT} bytes")
        return data

    def download(self, address: Address, layout: Path, each: Callable[[], None]) -> None:
        """Bring an image's blobs into an OCI layout, but for those that lie in it already. `each` is called often.

        Raises:
            SandboxdError: why not, by what can be done about it.
        """
        asking = [option.replace("--", "--src-", 1) for option in self._asking]
        self._copy([*asking, f"docker://{address}"], str(address), layout, each)

    def bring(self, source: str, layout: Path) -> None:
        """Bring an image from one of skopeo's other transports into an OCI layout.

        Raises:
            SandboxdError: why not, by what can be done about it.
        """
        daemon = os.environ.get("DOCKER_HOST", "")
        options = [f"--src-daemon-host={daemon}"] if daemon and source.startswith("docker-daemon:") else []
        self._copy([*options, source], source, layout, self._watch.check)

    def _copy(self, source: list[str], shown: str, layout: Path, each: Callable[[], None]) -> None:
        options = ["--quiet", "--remove-signatures", "--dest-oci-accept-uncompressed-layers"]
        self._run(["copy", *options, *source, f"oci:{layout}:image"], shown, each)

    def _run(self, words: list[str], shown: str, each: Callable[[], None] | None = None) -> None:
        output, errors = (os.open(self._staging / name, _NEW, 0o600) for name in ("output", "errors"))
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Its session is its own, so that all it starts can be ended; it does not outlive us.
            pid = start([*self._program, *words], Streams(null, output, errors), environment=os.environ)
            status = _wait(pid, each or self._watch.check)
            if status:
                raise refusal(_end_of(errors), shown)
        finally:
            for descriptor in (output, errors, null):
                os.close(descriptor)


def _program(staging: Path) -> list[str]:
    found = shutil.which("skopeo")
    if found is None:
        raise Unavailable("`skopeo` is not installed on this node, which pulls images", hint="apt install skopeo")
    words = ["setpriv", "--pdeathsig", "KILL", found, "--override-os=linux", f"--override-arch={architecture()}"]
    if not any(Path(policy).expanduser().exists() for policy in _POLICIES):
        words.append("--insecure-policy")
    return [*words, f"--tmpdir={staging}"]


def _verify(registries: Registries, host: str) -> bool | None:
    """Return what to say of certificates; None leaves it to the list of insecure registries."""
    if registries.verify is None and (not host or registries.must_verify(host)):
        return None
    return registries.must_verify(host)


def _written(path: Path, text: str) -> Path:
    descriptor = os.open(path, _NEW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return path


def _wait(pid: int, each: Callable[[], None]) -> int:
    """Return the program's exit code, or minus its signal; an exception of `each` kills it and its children first."""
    descriptor = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        while not poll.poll(_LOOK_EVERY_MS):
            each()
    except BaseException:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _end_of(descriptor: int) -> str:
    return os.pread(descriptor, _TAIL, max(0, os.fstat(descriptor).st_size - _TAIL)).decode(errors="replace")
