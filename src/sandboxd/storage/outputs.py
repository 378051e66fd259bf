"""What commands under a key have said: a file each, so that large ones do not pass through SQL."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from sandboxd.core.errors import Unavailable
from sandboxd.core.output import Finished

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW


class Outputs:
    """The files of one folder, named after owner and key. Every method blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)

    def write(self, owner: str, key: str, finished: Finished) -> int:
        """Keep a result in the place of an earlier one, whole or not at all; return how many bytes it takes.

        Raises:
            Unavailable: the disk refused.
        """
        path = self._path(owner, key)
        draft = path.with_suffix(".new")
        data = finished.encode()
        try:
            with os.fdopen(os.open(draft, _NEW, 0o600), "wb") as file:
                file.write(data)
            draft.rename(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise Unavailable(f"the result of a call cannot be kept: {error.strerror}") from error
        return len(data)

    def read(self, owner: str, key: str) -> Finished | None:
        """Return a result, or None where it has been given up or is damaged."""
        try:
            return Finished.decode(self._path(owner, key).read_bytes())
        except (OSError, ValueError, TypeError):
            return None

    def remove(self, names: Iterable[tuple[str, str]]) -> None:
        """Give results up."""
        for owner, key in names:
            self._path(owner, key).unlink(missing_ok=True)

    def keep_only(self, names: Iterable[tuple[str, str]]) -> None:
        """Remove what a dead server wrote and did not note."""
        kept = {self._path(owner, key) for owner, key in names}
        for path in self._folder.iterdir():
            if path not in kept:
                path.unlink(missing_ok=True)

    def _path(self, owner: str, key: str) -> Path:
        return self._folder / hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest()
