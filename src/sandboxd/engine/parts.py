"""What every keeper of a node works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandboxd.engine.policy import Policy
    from sandboxd.ports.images import Images
    from sandboxd.ports.objects import Objects
    from sandboxd.ports.state import State


@dataclass(frozen=True, slots=True)
class Parts:
    """The node's memory, its saved folders, its images, and what it allows."""

    state: State
    objects: Objects
    images: Images
    policy: Policy
