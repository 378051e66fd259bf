"""What skopeo says, told in one sentence."""

from __future__ import annotations

import pytest

from sandboxd.core.errors import Busy, Denied, Invalid, SandboxdError, Unavailable
from sandboxd.images.refusals import refusal

IMAGE = "registry.example/org/app:1"
PATH = "registry.example/org/app"
PING = f'pinging container registry registry.example: Get \\"https://{PATH.partition("/")[0]}/v2/\\": '


def said(text: str) -> str:
    return f'time="2026-11-21T05:27:01Z" level=fatal msg="{text}"\n'


@pytest.mark.parametrize(
    ("text", "kind", "sentence"),
    [
        (f"reading manifest 1 in {PATH}: manifest unknown: manifest unknown", Invalid, "there is no image"),
        (f"reading manifest 1 in {PATH}: name unknown: repository not known", Invalid, "there is no image"),
        (f"reading manifest 1 in {PATH}: unauthorized: authentication required", Denied, "does not let"),
        (f"reading manifest 1 in {PATH}: denied: requested access to the resource is denied", Denied, "does not let"),
        ("unable to retrieve auth token: invalid username/password: unauthorized", Denied, "does not let"),
        (PING + "dial tcp: lookup registry.example on 10.0.0.1:53: no such host", Unavailable, "cannot be reached"),
        (PING + "dial tcp 10.0.0.1:443: i/o timeout", Unavailable, "cannot be reached: dial tcp"),
        (PING + "x509: certificate signed by unknown authority", Unavailable, "cannot be trusted: x509"),
        (PING + "http: server gave HTTP response to HTTPS client", Unavailable, "cannot be trusted: http"),
        (f"reading manifest 1 in {PATH}: toomanyrequests: You have reached your pull rate limit", Busy, "enough"),
        ("received unexpected HTTP status: 503 Service Unavailable: invalid status code 503", Unavailable, "reached"),
        ("writing blob: storing blob to file: write /x: no space left on device", Unavailable, "disk"),
        ("Source image rejected: A signature was required, but no signature exists", Denied, "signature policy"),
        ("error getting credentials - err: exec: docker-credential-x: not found", Unavailable, "credentials"),
        ("something new", Unavailable, "could not be copied: something new"),
    ],
)
def test_the_error_is_by_what_can_be_done(text: str, kind: type[SandboxdError], sentence: str) -> None:
    error = refusal(said("warning about nothing") + said(text), IMAGE)
    assert type(error) is kind
    assert IMAGE in error.message
    assert sentence in error.message
    assert "msg=" not in error.message


@pytest.mark.parametrize("name", ["denied/certificate:1", "org/manifest-unknown:not-found", "unauthorized:1"])
def test_an_image_s_own_name_is_no_error(name: str) -> None:
    image = f"registry.example/{name}"
    path = image.rpartition(":")[0]
    error = refusal(said(f"reading manifest 1 in {path}: dial tcp: connection refused ({image})"), image)
    assert "cannot be reached" in error.message


def test_what_a_registry_says_stays_on_one_line() -> None:
    error = refusal(said("a\x1b[31m\\nb" + "x" * 9000), IMAGE)
    assert "\x1b" not in str(error)
    assert len(str(error)) < 1000
    assert "killed" in refusal("", IMAGE).message
