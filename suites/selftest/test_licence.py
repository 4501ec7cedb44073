# SPDX-License-Identifier: BSD-2-Clause
"""Every source file says under which licence it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config import share

ROOT = share()
LINE = "SPDX-License-Identifier: BSD-2-Clause"
FILES = [
    file
    for folder in ("harness", "suites")
    for suffix in ("*.py", "*.c", "*.h")
    for file in sorted((ROOT / folder).rglob(suffix))
    if file.stat().st_size
]


@pytest.mark.parametrize("file", [ROOT / "conftest.py", *FILES], ids=lambda file: str(file.relative_to(ROOT)))
def test_a_source_file_begins_with_its_licence(file: Path) -> None:
    assert LINE in "".join(file.read_text().splitlines()[:2])
