"""What holds for all tests."""

from __future__ import annotations

import os

os.environ["SANDBOXD_IMAGE_PULL"] = "never"
"""An image that is not here is no reason to ask the outside world; what pulls, pulls from registries of its own."""
