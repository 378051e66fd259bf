"""Who uses which image: one small file a user, in the image folder, so that every process that collects sees it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from sandboxd.core.errors import Bug

_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class Holder:
    """How long leases are good: as long as `file` holds `text`, so that they end with their state folder."""

    file: Path
    text: str

    def is_there(self) -> bool:
        """Say whether the file still says so; a file that may not be read does."""
        try:
            return self.file.read_text().strip() == self.text
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True


@dataclass(frozen=True, slots=True)
class Lease:
    """The images that one user holds."""

    user: str
    digests: tuple[str, ...]
    holder: Holder | None = None

    def is_good(self) -> bool:
        """Say whether its holder is still there; a lease without one is good until it is ended."""
        return self.holder is None or self.holder.is_there()


class Leases:
    """The leases of one image folder. Methods that take or end one need the folder's lock, shared or not."""

    def __init__(self, folder: Path, holder: Holder | None = None) -> None:
        self._folder = folder
        self._holder = holder

    def check(self, user: str) -> None:
        """Refuse what cannot name a user.

        Raises:
            Bug: it cannot.
        """
        self._path(user)

    def form(self, digests: tuple[str, ...]) -> bytes:
        """Return a lease as it is kept."""
        if self._holder is None:
            return json.dumps({"digests": digests}).encode()
        holder = {"file": str(self._holder.file), "text": self._holder.text}
        return json.dumps({"digests": digests, "holder": holder}).encode()

    def take(self, user: str, form: bytes) -> None:
        """Let a user hold these images, and nothing else."""
        descriptor = os.open(self._path(user), _NEW, 0o600)
        try:
            os.write(descriptor, form)
        finally:
            os.close(descriptor)

    def end(self, user: str) -> tuple[str, ...]:
        """Let go of what a user holds and return it; nothing where there is none."""
        path = self._path(user)
        try:
            digests = _read(path).digests
        except (FileNotFoundError, ValueError):
            digests = ()
        path.unlink(missing_ok=True)
        return digests

    def all(self) -> list[Lease] | None:
        """Return all good leases and end the others; None where one cannot be read, which may hold anything."""
        leases = []
        for path in sorted(self._folder.iterdir()):
            try:
                lease = _read(path)
            except FileNotFoundError:
                continue
            except ValueError:
                return None
            if lease.is_good():
                leases.append(lease)
            else:
                path.unlink(missing_ok=True)
        return leases

    def _path(self, user: str) -> Path:
        if not user or "/" in user or user.startswith("."):
            raise Bug(f"`{user}` cannot name a user of an image")
        return self._folder / user


def _read(path: Path) -> Lease:
    """Read a lease; ValueError where it is damaged."""
    data = path.read_bytes()
    try:
        value = json.loads(data)
        holder = value.get("holder")
        held_by = Holder(Path(holder["file"]), str(holder["text"])) if holder else None
        return Lease(path.name, tuple(str(digest) for digest in value["digests"]), held_by)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("it has no such fields") from error
