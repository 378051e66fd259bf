"""The build step that compiles the guest agent into the wheel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

PROJECT = Path(__file__).resolve().parent
TARGET = os.environ.get("SANDBOXD_AGENT_TARGET") or f"{os.uname().machine}-linux-musl"


class BuildWithAgent(build_py):
    """Puts the static agent beside the modules."""

    def run(self) -> None:
        """Copy the modules, then compile."""
        super().run()
        if self.editable_mode:
            agent = PROJECT / "src" / "sandboxd" / "_agent" / "agent"
        else:
            agent = Path(self.build_lib) / "sandboxd" / "_agent" / "agent"
        environment = {**os.environ, "PYTHON": sys.executable, "SANDBOXD_AGENT_TARGET": TARGET}
        subprocess.run(["sh", PROJECT / "agent" / "build.sh", "release", agent], check=True, env=environment)  # noqa: S603, S607 - our own script


class WheelForOneMachine(bdist_wheel):
    """Any Python 3, but only machines that run the agent."""

    def finalize_options(self) -> None:
        """Let the wheel be one for a platform."""
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        """Return what the wheel's name says of where it works."""
        return "py3", "none", f"linux_{TARGET.partition('-')[0]}"


setup(cmdclass={"build_py": BuildWithAgent, "bdist_wheel": WheelForOneMachine})
