# SPDX-License-Identifier: BSD-2-Clause
"""The harness as people install it: a wheel of this checkout, in an environment without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.config import share

ROOT = share()

needs_checkout = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="needs a checkout to build")


def build_wheel(folder: Path) -> Path:
    """Return a wheel of the checkout, built in FOLDER without a network: hatchling is here already."""
    argv = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run(
        [*argv, "-w", str(folder), str(ROOT)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


@dataclass(frozen=True)
class Installed:
    """A wheel in an environment of its own, and a home in which nothing is known of anything else."""

    folder: Path

    @classmethod
    def make(cls, wheel: Path, folder: Path) -> Installed:
        """Install WHEEL below FOLDER; what it depends on is taken from the packages of the Python that runs this."""
        venv.create(folder / "venv", with_pip=False)
        packages = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
        # A path alone: no editable checkout is found by it.
        (packages / "lent.pth").write_text("".join(f"{path}\n" for path in package_folders()))
        argv = [sys.executable, "-m", "pip", "--python", str(folder / "venv" / "bin" / "python"), "install", "-q"]
        done = subprocess.run(
            [*argv, "--no-deps", "--no-index", "--ignore-installed", str(wheel)],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        for name in ("home", "work"):
            (folder / name).mkdir()
        return cls(folder)

    @property
    def work(self) -> Path:
        """The folder in which commands are run."""
        return self.folder / "work"

    def run(self, argv: Sequence[str], **more: str) -> subprocess.CompletedProcess[str]:
        """Run ARGV, nothing in its environment but a home, a path and MORE."""
        environment = {
            "HOME": str(self.folder / "home"),
            "PATH": f"{self.folder / 'venv' / 'bin'}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LC_ALL": "C.UTF-8",
            **more,
        }
        return subprocess.run(
            argv, cwd=self.work, env=environment, capture_output=True, text=True, check=False, timeout=580
        )


def package_folders() -> list[str]:
    """Return where this Python finds packages, less this checkout."""
    places = {sysconfig.get_path("purelib"), *(path for path in sys.path if path.endswith("-packages"))}
    return sorted(path for path in places if os.path.isdir(path))
