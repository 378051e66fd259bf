"""Finds the python3 of an image, or the way to start a lent one."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from sandboxd.images.merged import resolve

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LENT_AT = "/.sandboxd/interpreter"
"""Where the layer of a lent interpreter is shown inside."""

_PLACES = ("/usr/local/bin/python3", "/usr/bin/python3", "/bin/python3")
_ELF64 = b"\x7fELF\x02\x01"
_PT_INTERP = 3


def find_python(layers: Sequence[Path]) -> tuple[str, ...]:
    """Return the command that starts python3 in merged layers (topmost first), searched for as PATH would; or none."""
    for place in _PLACES:
        found = resolve(layers, place)
        if found and found.is_file() and found.stat().st_mode & 0o111:
            return (place,)
    return ()


def lend_python(layer: Path) -> tuple[str, ...]:
    """Return the command that starts a layer's python3 where the layer is shown at `LENT_AT`, or none.

    It runs under the layer's own loader and libraries, so nothing of the image around it matters, and sets no
    environment variable, so the programs it starts are not led astray. Python finds its library by its own name,
    which the loader passes on.
    """
    python = resolve([layer], (find_python([layer]) or ("/",))[0])
    loader = resolve([layer], _loader_of(python)) if python and python.is_file() else None
    if python is None or loader is None or not loader.is_file():
        return ()
    libraries = f"{LENT_AT}/{loader.parent.relative_to(layer)}"
    program = f"{LENT_AT}/{python.relative_to(layer)}"
    command = f"{LENT_AT}/{loader.relative_to(layer)}"
    return (command, "--inhibit-cache", "--library-path", libraries, "--argv0", program, program)


def _loader_of(program: Path) -> str:
    """Return the path of the loader that a 64-bit little-endian ELF program asks for; `/` where it asks for none."""
    with program.open("rb") as file:
        header = file.read(64)
        if len(header) < 64 or not header.startswith(_ELF64):  # noqa: PLR2004 - the size of the header
            return "/"
        (table,) = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        for index in range(count):
            file.seek(table + index * size)
            segment = file.read(56)
            if len(segment) == 56 and struct.unpack_from("<I", segment)[0] == _PT_INTERP:  # noqa: PLR2004 - as above
                offset, length = struct.unpack_from("<Q16xQ", segment, 8)
                file.seek(offset)
                return file.read(min(length, 4096)).rstrip(b"\0").decode(errors="replace")
    return "/"
