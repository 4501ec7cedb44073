"""Which tests on which target, as pytest is told."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from harness.config import share
from harness.errors import UsageError
from harness.guests.guest import MachineSize
from harness.guests.targets import TargetChoice

DEFAULT_SUITE = "suites/conformance"


def suite_arguments(choice: TargetChoice, size: MachineSize, paths: Sequence[str] = ()) -> list[str]:
    """Return pytest's arguments to run PATHS (default: the conformance suite) on a target.

    Raises UsageError when a path does not exist.
    """
    root = share()
    for path in paths:
        if not os.path.exists(path.partition("::")[0]):
            raise UsageError(f"no test {path}: give a file, a folder or FILE::TEST")
    arguments = [*(paths or [str(root / DEFAULT_SUITE)]), f"--rootdir={_root_of(paths, root)}", f"--confcutdir={root}"]
    # A user's own tests lie elsewhere, out of reach of our conftest.py.
    arguments += ["-p", "harness.plugin.entry"]
    if (root / "pyproject.toml").exists():
        arguments += ["-c", str(root / "pyproject.toml")]
    arguments += [f"--memory={size.memory}", f"--cpus={size.cpus}", f"--ssh-port={size.ssh_port}"]
    arguments += [f"--accelerator={size.accelerator.value}"] if size.accelerator is not None else []
    arguments += [f"--kenv={name}={value}" for name, value in choice.environment.items()]
    for option, value in (("--image", choice.image), ("--kernel", choice.kernel)):
        arguments += [option, value] if value is not None else []
    return [*arguments, "--control"] if choice.control else arguments


def _root_of(paths: Sequence[str], root: Path) -> Path:
    """Return the folder the names of tests begin at: ROOT, or above tests that lie elsewhere.

    pytest leaves the file out of the names of tests in a file that is not below its root.
    """
    files = [Path(path.partition("::")[0]).resolve() for path in paths]
    if all(file.is_relative_to(root) for file in files):
        return root
    return Path(os.path.commonpath([file if file.is_dir() else file.parent for file in files]))
