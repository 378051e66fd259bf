"""Bodies from hostile clients."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from sandboxd.core.errors import Invalid
from sandboxd.surfaces.flash import wire

if TYPE_CHECKING:
    from msgspec import Struct

SHAPES = (wire.CreateBody, wire.ExecBody, wire.PythonBody, wire.EmptyBody)
_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_values = st.recursive(_scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
_keys = st.sampled_from([*wire.CreateBody.__struct_fields__, "env", "id", "code", "script"]) | st.text()


@given(st.binary(), st.sampled_from(SHAPES))
def test_any_bytes_are_decoded_or_refused(body: bytes, shape: type[Struct]) -> None:
    with suppress(Invalid):
        wire.decode(body, shape)


@given(st.dictionaries(_keys, _values), st.sampled_from(SHAPES))
def test_any_object_is_decoded_or_refused(given_body: dict[str, object], shape: type[Struct]) -> None:
    with suppress(Invalid):
        decoded, warnings = wire.decode(json.dumps(given_body).encode(), shape)
        assert isinstance(decoded, shape)
        assert all(warning.startswith("unknown key `") for warning in warnings)


@given(st.dictionaries(_keys, _values))
def test_a_body_of_documented_keys_needs_no_warning(given_body: dict[str, object]) -> None:
    with suppress(Invalid):
        _, warnings = wire.decode(json.dumps(given_body).encode(), wire.CreateBody)
        unknown = given_body.keys() - set(wire.CreateBody.__struct_fields__)
        assert len(warnings) <= len(unknown)
