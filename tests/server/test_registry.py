"""The registry: every word that users say for a runtime leads to it or to a clear refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sandboxd.core.errors import Bug, Invalid, Unsupported
from sandboxd.ports.runtime import Runtime
from sandboxd.server import registry
from sandboxd.server.settings import Runtime as RuntimeSettings
from sandboxd.server.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = Settings()


@pytest.mark.parametrize("name", ["gvisor", "container", "docker"])
def test_a_word_leads_to_its_runtime_and_to_no_other(name: str) -> None:
    assert registry.choose(name, SETTINGS) == (name,)


@pytest.mark.parametrize("asked", ["", "auto"])
def test_who_does_not_choose_gets_the_nodes_default_else_the_strongest_that_works(asked: str) -> None:
    assert registry.choose(asked, SETTINGS) == ("gvisor", "container")
    decided = replace(SETTINGS, runtime=RuntimeSettings(default="container"))
    assert registry.choose(asked, decided) == ("container",)


@pytest.mark.parametrize("asked", ["firecracker", "linux-firecracker", "linux-kvm", "macos-vz"])
def test_a_known_runtime_that_is_not_here_is_refused_by_name(asked: str) -> None:
    with pytest.raises(Unsupported, match=f"`{asked}`"):
        registry.choose(asked, SETTINGS)


def test_a_word_nobody_knows_is_refused_with_a_suggestion() -> None:
    with pytest.raises(Invalid, match="did you mean `container`"):
        registry.choose("containr", SETTINGS)
    with pytest.raises(Invalid, match="this node offers: auto, gvisor, container, docker"):
        registry.choose("zeppelin", SETTINGS)


@pytest.mark.parametrize(("default", "error"), [("firecracker", Unsupported), ("zeppelin", Invalid)])
def test_a_default_that_is_not_here_is_refused(default: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=default):
        registry.runtimes(replace(SETTINGS, runtime=RuntimeSettings(default=default)), "node")


def test_every_runtime_is_made_by_its_name(tmp_path: Path) -> None:
    made = registry.runtimes(replace(SETTINGS, state=tmp_path), "node")
    assert set(made) == set(registry.PRESENT)
    for name, runtime in made.items():
        assert isinstance(runtime, Runtime)
        assert runtime.name == name
        runtime.close()


def test_no_name_is_both_here_and_absent() -> None:
    assert not set(registry.PRESENT) & set(registry.ABSENT)


def test_a_registry_line_that_leads_nowhere_is_our_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "PRESENT", {"container": ("sandboxd.nowhere:Nothing", dict)})
    with pytest.raises(Bug, match="cannot be loaded"):
        registry.runtimes(SETTINGS, "node")
