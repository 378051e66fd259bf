"""How people name images, brought to one form."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from sandboxd.core.errors import Invalid

HOST = "host"
"""The reference of the image that is made from this machine's own programs."""

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_COMPONENT = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_REGISTRY = r"(?:(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)(?::[0-9]+)?|[A-Za-z0-9-]+:[0-9]+)/"
_NAME = re.compile(
    rf"(?P<path>(?:{_REGISTRY})?{_COMPONENT}(?:/{_COMPONENT})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?"
)
_SAME_AS_NOTHING = ("docker.io/library/", "index.docker.io/library/", "docker.io/", "index.docker.io/", "library/")
_LONGEST = 200
_LONGEST_FILE_NAME = 255


def normalise(reference: str) -> str:
    """Return the one form of a name: `alpine` and `docker.io/library/alpine` are `alpine:latest`.

    Raises:
        Invalid: this cannot name an image.
    """
    match = _NAME.fullmatch(reference)
    if match is None or len(reference) > _LONGEST:
        raise Invalid(
            f"`{printable(reference[:_LONGEST])}` is not an image name",
            hint="names look like `alpine` or `org/app:1.2`",
        )
    path = match["path"]
    for prefix in _SAME_AS_NOTHING:
        path = path.removeprefix(prefix)
    return f"{path}:{match['tag'] or 'latest'}"


def stored_name(reference: str) -> str:
    """Return the one form of a name that may pin a digest: `path:tag`, or `path@sha256:…` without a tag.

    Raises:
        Invalid: this cannot name an image.
    """
    name, at, digest = reference.partition("@")
    if not at:
        return normalise(name)
    if not DIGEST.fullmatch(digest):
        raise Invalid(
            f"`{printable(digest[:_LONGEST])}` is not a digest", hint="digests look like `sha256:` and 64 of 0-9a-f"
        )
    return f"{normalise(name).rsplit(':', 1)[0]}@{digest}"


def file_name(name: str) -> str:
    """Return a normalised name as one path component.

    Raises:
        Invalid: no file can have that name.
    """
    quoted = quote(name, safe="")
    if len(quoted) > _LONGEST_FILE_NAME:
        raise Invalid(f"the image name `{name}` is too long to be kept")
    return quoted


def from_file_name(text: str) -> str:
    """Undo `file_name`."""
    return unquote(text)


def printable(text: str | bytes) -> str:
    """Return hostile text safe for one line of a terminal: control characters and undecodable bytes escaped."""
    if isinstance(text, bytes):
        text = text.decode(errors="surrogateescape")
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
