# SPDX-License-Identifier: BSD-2-Clause
"""What code a run is made with, in one word each: the tests' and the harness's own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import harness
from harness.store import digest_of

_CODE = {".py", ".c", ".h", ".S", ".ld", ".toml"}


def digest_of_tests(paths: Sequence[Path], inputs: Sequence[Path] = ()) -> str:
    """Return a digest of the test code in PATHS and beside it, and of INPUTS: other tests make another comparison."""
    digest = hashlib.sha256()
    folders = sorted({path if path.is_dir() else path.parent for path in paths})
    for folder in folders:
        for file in sorted([*folder.rglob("*.py"), *folder.rglob("*.toml")]):
            digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    for given in inputs:
        for file in sorted(given.rglob("*")) if given.is_dir() else [given]:
            if file.is_file():
                digest.update(f"{file.name}\0{digest_of(file)}".encode())
    return digest.hexdigest()


def digest_of_harness() -> str:
    """Return a digest of the harness's own code, that of its programs for guests included."""
    digest = hashlib.sha256()
    folder = Path(harness.__file__).parent
    for file in sorted(folder.rglob("*")):
        if file.suffix in _CODE and file.is_file():
            digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return digest.hexdigest()
