"""The steps of the build that `pyproject.toml` cannot say: compile the agent, and name the wheel for its machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

AGENT = Path("sandboxd", "_agent", "agent")


class BuildWithAgent(build_py):
    """Compiles the agent to where the package looks for it; in an editable install that is the source tree."""

    def run(self) -> None:
        """Copy the package, then compile."""
        super().run()
        target = Path("src" if self.editable_mode else self.build_lib, AGENT).absolute()
        environment = {**os.environ, "PYTHON": sys.executable}
        subprocess.run(["sh", "agent/build.sh", "release", target], env=environment, check=True)  # noqa: S603, S607


class MachineWheel(bdist_wheel):
    """A wheel for any Python 3 on one kind of machine: the agent is static and belongs to no interpreter."""

    def finalize_options(self) -> None:
        """Say that the wheel is not for every machine."""
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags that stand in the wheel's name."""
        return "py3", "none", super().get_tag()[2]


setup(cmdclass={"build_py": BuildWithAgent, "bdist_wheel": MachineWheel})
