"""What settings say about registries."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxd.core.errors import Invalid
from sandboxd.core.spec import PullPolicy
from sandboxd.images.registries import Registries
from sandboxd.server.loading import load
from sandboxd.server.pulls import registries


def test_nothing_said_means_what_is_missing_is_pulled() -> None:
    assert registries(load(environment={}).image) == Registries()


def test_every_setting_reaches_the_store() -> None:
    overrides = {
        "image.pull": "always",
        "image.auth_file": "/a/auth.json",
        "image.certificates": "/a/ca",
        "image.mirrors": "docker.io=mirror.example/hub,quay.io=other.example",
        "image.insecure_registries": "plain.example:5000",
        "image.pull_timeout_s": "9",
        "image.max_bytes": "1000",
    }
    found = registries(load(environment={}, overrides=overrides.items()).image)
    assert found == Registries(
        policy=PullPolicy.ALWAYS,
        auth_file=Path("/a/auth.json"),
        certificates=Path("/a/ca"),
        mirrors=(("docker.io", "mirror.example/hub"), ("quay.io", "other.example")),
        insecure=("plain.example:5000",),
        timeout_s=9.0,
        max_bytes=1000,
    )


@pytest.mark.parametrize(
    ("key", "value"), [("image.pull", "sometimes"), ("image.mirrors", "docker.io"), ("image.max_bytes", "-1")]
)
def test_what_cannot_be_is_refused(key: str, value: str) -> None:
    with pytest.raises(Invalid, match=key):
        load(environment={}, overrides=[(key, value)])
