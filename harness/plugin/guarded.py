# SPDX-License-Identifier: BSD-2-Clause
"""What pytest prints of a test, made fit for a terminal: what a guest said is in messages and sections alike."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from harness.visible import visible


def guard(report: pytest.TestReport) -> None:
    """Take what a terminal would obey out of REPORT, after all else has been read from it."""
    report.longrepr = _guarded(report.longrepr)
    report.sections = [(title, visible(text)) for title, text in report.sections]


def _guarded(shown: Any) -> Any:
    """Return SHOWN, one of the shapes that pytest gives failures, with all its texts guarded."""
    if isinstance(shown, str):
        return visible(shown)
    if isinstance(shown, (list, tuple)):
        return type(shown)([_guarded(each) for each in shown])
    if dataclasses.is_dataclass(shown):
        # Colours come later, when pytest writes.
        for name, value in vars(shown).items():
            setattr(shown, name, _guarded(value))
    return shown
