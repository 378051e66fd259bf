"""What skopeo says went wrong, as one sentence of ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from sandboxd.core.errors import Busy, Denied, Invalid, Unavailable
from sandboxd.images.reference import printable

if TYPE_CHECKING:
    from sandboxd.core.errors import SandboxdError

_IMPORT = "`sandboxd image import NAME DIR|TAR` brings an image without a registry"
_LOG_IN = (
    "log in with `skopeo login`, or give --creds or an auth file. Many say the same where there is no such image: "
    "is it spelled right?"
)
_TRUST = "put the registry's CA where --cert-dir or `image.certificates` says, or allow it with `image.insecure`"
_MESSAGE = re.compile(r'msg="(?P<text>(?:[^"\\]|\\.)*)"')
_LEADING = re.compile(
    r"(Error parsing image name \"[^\"]*\": |initializing source [^ ]+: |pinging container registry [^ ]+: |"
    r"(Get|Head) \"[^\"]*\": |error |determining manifest MIME type for [^ ]+: |reading manifest [^:]+: )+",
    re.IGNORECASE,
)
_MOST = 300


class _Kind(NamedTuple):
    signs: re.Pattern[str]
    error: type[SandboxdError]
    sentence: str
    hint: str


def _kind(signs: str, error: type[SandboxdError], sentence: str, hint: str = "") -> _Kind:
    return _Kind(re.compile(signs, re.IGNORECASE), error, sentence, hint)


# In order: the first that fits tells. What a disk or a certificate says may hold the words of those below it.
_KINDS = (
    _kind(
        r"no space left on device|disk quota exceeded",
        Unavailable,
        "the disk under the image folder is full: `{image}` could not be stored",
    ),
    _kind(
        r"error getting credentials",
        Unavailable,
        "the credentials for `{image}` could not be had: {detail}",
    ),
    _kind(
        r"no image found in (manifest list|image index)",
        Invalid,
        "there is no variant of `{image}` for this node's processors",
    ),
    _kind(
        r"x509|certificate|tls: |server gave HTTP response to HTTPS",
        Unavailable,
        "the registry of `{image}` cannot be trusted: {detail}",
        _TRUST,
    ),
    _kind(
        r"toomanyrequests|too many requests|status 429",
        Busy,
        "the registry has had enough requests for now: `{image}` was not pulled",
        "try again later, or log in",
    ),
    _kind(
        r"unauthorized|authentication required|denied|invalid username|forbidden|invalid status code.* 40[13]|"
        r"status 40[13]",
        Denied,
        "the registry does not let this node pull `{image}`",
        _LOG_IN,
    ),
    _kind(
        r"manifest unknown|name unknown|name invalid|repository name not known|not found|reference does not exist|"
        r"status 404",
        Invalid,
        "there is no image `{image}` {place}",
        f"is it spelled right? {_IMPORT}",
    ),
    _kind(
        r"connection refused|no such host|i/o timeout|unreachable|no route to host|connection reset|deadline exceeded|"
        r"\beof\b|server misbehaving|temporary failure|invalid status code.* 5\d\d|status 5\d\d|context canceled",
        Unavailable,
        "the registry of `{image}` cannot be reached: {detail}",
        _IMPORT,
    ),
    _kind(
        r"source image rejected|signature",
        Denied,
        "this node's signature policy does not allow `{image}`: {detail}",
    ),
    _kind(
        r"no such file or directory|docker daemon",
        Invalid,
        "`{image}` cannot be read: {detail}",
    ),
)


def refusal(said: str, image: str) -> SandboxdError:
    """Return the error that skopeo's last words amount to."""
    found = _MESSAGE.findall(said)
    text = found[-1].replace('\\"', '"') if found else said.strip()
    text = text.rpartition("\n")[2]
    detail = printable(_LEADING.sub("", text))[:_MOST] or "skopeo was killed"
    shown = printable(image)
    told = _without_names(text, image)
    place = "in the Docker daemon" if image.startswith("docker-daemon:") else "at its registry"
    for kind in _KINDS:
        if kind.signs.search(told):
            return kind.error(kind.sentence.format(image=shown, detail=detail, place=place), hint=kind.hint)
    return Unavailable(f"`{shown}` could not be copied: {detail}", hint=_IMPORT)


def _without_names(text: str, image: str) -> str:
    """Leave the image's own name out, which may be that of any error."""
    name = image.partition("@")[0]
    path = name.partition("/")[2].rpartition(":")[0] or name.partition("/")[2]
    for part in sorted({image, name, path, name.removesuffix(f":{name.rpartition(':')[2]}")} - {""}, key=len)[::-1]:
        text = text.replace(part, "")
    return text
