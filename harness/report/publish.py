# SPDX-License-Identifier: BSD-2-Clause
"""The reports of a run, made from its record."""

from __future__ import annotations

import os
from pathlib import Path

from harness.report.html import write_run
from harness.report.summary import run_markdown
from harness.results.record import RunRecord


def publish(record: RunRecord, page: Path | None, sources: Path | None = None) -> None:
    """Write PAGE, if there is to be one, and the summary of the GitHub Actions step, if this is one.

    The page shows what was run in SOURCES, the kernel's own.  Raises OSError when one of them cannot be written.
    """
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(run_markdown(record))
    if page is not None:
        write_run(record, page, sources)
