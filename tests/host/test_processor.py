"""What one processor lacks that another has."""

from __future__ import annotations

import platform
from dataclasses import replace

from sandboxd.host.processor import processor


def test_this_machines_has_features_and_lacks_none_of_its_own() -> None:
    here = processor()
    assert here.machine == platform.machine()
    assert len(here.features) > 3
    assert here.lacks(here) == ""


def test_what_is_lacking_is_named() -> None:
    here = processor()
    assert replace(here, features=frozenset()).lacks(replace(here, features=frozenset({"one"}))) == "the feature one"
    assert here.lacks(replace(here, features=here.features | {"b", "a"})) == "the features a, b"
    assert here.lacks(replace(here, cache_line=here.cache_line + 1)) == f"cache lines of {here.cache_line + 1} bytes"
    assert here.lacks(replace(here, machine="another")) == "the architecture another"


def test_more_than_is_needed_is_enough() -> None:
    here = processor()
    assert replace(here, features=here.features | {"new"}).lacks(here) == ""
