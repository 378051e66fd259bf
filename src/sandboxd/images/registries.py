"""How this node reaches registries, and where a name lies in them."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from sandboxd.core.errors import Invalid
from sandboxd.core.spec import PullPolicy
from sandboxd.images.reference import DIGEST, printable, stored_name

if TYPE_CHECKING:
    from pathlib import Path

HUB = "docker.io"
_LOOPBACK = re.compile(r"(localhost|127(\.[0-9]{1,3}){3})(:[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Registries:
    """How images are pulled.

    `auth_file` left out means the usual ones: `$REGISTRY_AUTH_FILE`, `$XDG_RUNTIME_DIR/containers/auth.json`,
    `~/.docker/config.json`. `certificates` is a folder of further CAs (`*.crt`) and client certificates. Certificates
    are checked, except of registries on loopback and of those in `insecure`, which may speak plain HTTP too;
    `verify` says so or otherwise for all. `mirrors` are pairs of a registry (or a path in it) and what is asked first.
    `max_bytes` is the size that images which came from registries are kept below after each pull; 0 is no limit.
    """

    policy: PullPolicy = PullPolicy.MISSING
    auth_file: Path | None = None
    certificates: Path | None = None
    verify: bool | None = None
    mirrors: tuple[tuple[str, str], ...] = ()
    insecure: tuple[str, ...] = ()
    timeout_s: float = 600.0
    max_bytes: int = 0

    def must_verify(self, host: str) -> bool:
        """Say whether the certificate of a registry must be good."""
        return _LOOPBACK.fullmatch(host) is None if self.verify is None else self.verify

    def configuration(self) -> str:
        """Return mirrors and insecure registries in the form of a `registries.conf`; empty where there are none."""
        places = {prefix: [mirror for asked, mirror in self.mirrors if asked == prefix] for prefix, _ in self.mirrors}
        blocks = []
        for prefix in dict.fromkeys((*places, *self.insecure)):
            blocks.append(f"[[registry]]\nprefix = {json.dumps(prefix)}\nlocation = {json.dumps(prefix)}")
            blocks[-1] += f"\ninsecure = {json.dumps(prefix in self.insecure)}\n"
            for mirror in places.get(prefix, ()):
                host = mirror.partition("/")[0]
                lax = host in self.insecure or not self.must_verify(host)
                blocks.append(f"[[registry.mirror]]\nlocation = {json.dumps(mirror)}\ninsecure = {json.dumps(lax)}\n")
        return "\n".join(blocks)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks a registry. Never shown to other processes."""

    user: str
    password: str

    def auth_file(self, host: str) -> str:
        """Return the content of an auth file that holds these for one registry."""
        word = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return json.dumps({"auths": {host: {"auth": word}}})

    def __repr__(self) -> str:
        return f"Credentials({self.user!r})"


@dataclass(frozen=True, slots=True)
class Address:
    """A name where it lies: registry, path there, and a tag or a digest."""

    host: str
    path: str
    tag: str
    digest: str

    @classmethod
    def of(cls, reference: str) -> Self:
        """Return the address of a name; names without a registry are Docker Hub's.

        Raises:
            Invalid: this cannot name an image.
        """
        if DIGEST.fullmatch(reference):
            raise Invalid(
                f"`{reference}` names no registry to pull from", hint="put the image's name and `@` before it"
            )
        name, _, digest = stored_name(reference).partition("@")
        path, tag = (name, "") if digest else tuple(name.rsplit(":", 1))
        first, slash, rest = path.partition("/")
        if not slash:
            return cls(HUB, f"library/{path}", tag, digest)
        if first == "localhost" or "." in first or ":" in first:
            return cls(first, rest, tag, digest)
        return cls(HUB, path, tag, digest)

    def at(self, digest: str) -> Address:
        """Return the address of one version of the same image."""
        return Address(self.host, self.path, "", digest)

    @property
    def repository(self) -> str:
        """What all versions of the image have in common."""
        return f"{self.host}/{self.path}"

    def __str__(self) -> str:
        return self.repository + (f"@{self.digest}" if self.digest else f":{self.tag}")


def split_mirror(text: str) -> tuple[str, str]:
    """Return both sides of `REGISTRY=MIRROR`.

    Raises:
        Invalid: there is no such pair in it.
    """
    asked, equals, mirror = text.partition("=")
    if not asked or not equals or not mirror:
        raise Invalid(f"`{printable(text)}` is not REGISTRY=MIRROR")
    return asked, mirror
