"""Names of our making: random, safe in every path, URL and kernel object."""

from __future__ import annotations

import base64
import re
import secrets

from sandboxd.core.errors import Invalid

RANDOM_BYTES = 16
_PUBLIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_CELL = re.compile(r"[a-z2-7]{2}")


def _random_base32() -> str:
    return base64.b32encode(secrets.token_bytes(RANDOM_BYTES)).decode().rstrip("=").lower()


def new_sandbox_id(cell: str) -> str:
    """Return a public sandbox id: `sb-`, the two-character cell, 128 random bits in lower-case base32.

    Raises:
        Invalid: the cell is not two characters of `a-z2-7`.
    """
    if not _CELL.fullmatch(cell):
        raise Invalid(f"cell `{cell}` is not two characters of a-z and 2-7")
    return f"sb-{cell}{_random_base32()}"


def new_internal_id() -> str:
    """Return an internal id: 26 characters of lower-case base32, never shown to users, used for kernel names."""
    return _random_base32()


def check_public_id(value: str) -> str:
    """Return `value` if it may serve as a public id chosen by a client.

    Raises:
        Invalid: it is empty, longer than 128 characters or holds characters other than `[A-Za-z0-9_-]`.
    """
    if not _PUBLIC.fullmatch(value):
        raise Invalid(f"id `{value[:140]}` is not 1 to 128 characters of A-Z a-z 0-9 _ -")
    return value
