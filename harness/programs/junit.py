# SPDX-License-Identifier: BSD-2-Clause
"""JUnit's XML as `kyua report-junit` and many others write it to standard output."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from harness.programs.cases import Outcome, Reader

_BEGINS = ("<?xml", "<testsuite")
_MOST = 1 << 24  # bytes of a report


class JUnit(Reader):
    """Reads a report when all of it is there; one with a DTD, which could define entities without end, is none."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._size = 0

    def feed(self, line: str) -> None:
        """Take in the next LINE."""
        if self._lines or line.lstrip().startswith(_BEGINS):
            self._size += len(line)
            if self._size < _MOST:
                self._lines.append(line)

    @property
    def is_sure(self) -> bool:
        """Whether a report has begun."""
        return bool(self._lines)

    def finish(self) -> None:
        """Read the report."""
        text = "\n".join(self._lines)
        if not text or "<!DOCTYPE" in text or "<!ENTITY" in text:
            return
        try:
            root = ET.fromstring(text)  # noqa: S314  (without a DTD there is nothing that expands)
        except ET.ParseError:
            return
        for each in root.iter("testcase"):
            name = ".".join(part for part in (each.get("classname"), each.get("name")) if part)
            outcome, reason = Outcome.PASSED, ""
            for kind, means in (
                ("skipped", Outcome.SKIPPED), ("error", Outcome.BROKEN), ("failure", Outcome.FAILED)
            ):  # fmt: skip
                if (found := each.find(kind)) is not None:
                    outcome = means
                    reason = found.get("message") or (found.text or "").strip()
            try:
                seconds = float(each.get("time") or 0)
            except ValueError:
                seconds = 0.0
            self.add(name, outcome, reason, seconds)
