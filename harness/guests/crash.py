# SPDX-License-Identifier: BSD-2-Clause
"""What is kept of a kernel that died: its words, the debugger's answers, and a fingerprint to tell deaths apart."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from harness.guests.ddb import Frame

_TOP = 5
_SHOWN = 3
# Line numbers, addresses and process ids differ between two deaths of the same cause, and between two builds.
_STAMP = re.compile(r"^\[ *\d+\.\d+\] ")  # of Linux; its width grows with the time
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")


@dataclass(frozen=True)
class CrashReport:
    """A kernel's death: `headline` as it put it, `frames` from the innermost, and titled texts.

    `seconds` is the time from the headline's discovery to the complete report.
    """

    headline: str
    frames: tuple[Frame, ...] = ()
    sections: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0

    @property
    def fingerprint(self) -> str:
        """Name the cause: the top functions and a digest of kind and top five functions.

        The same for the same cause on other days and other builds: offsets, addresses and numbers do not enter.
        """
        kind = _NUMBER.sub("#", _STAMP.sub("", self.headline))
        functions = [frame.function for frame in self.frames[:_TOP]]
        digest = hashlib.sha256("\n".join([kind, *functions]).encode()).hexdigest()[:10]
        return "<".join([*functions[:_SHOWN], digest])

    def located(self, source_line: Callable[[int], str | None]) -> CrashReport:
        """Return the report with the source lines of its top frames as SOURCE_LINE gives them for addresses."""
        # A return address belongs to the call before it.
        top = [
            replace(frame, line=source_line(frame.address - (1 if number else 0)) or "") if frame.address else frame
            for number, frame in enumerate(self.frames[:_TOP])
        ]
        return replace(self, frames=(*top, *self.frames[_TOP:]))

    @property
    def text(self) -> str:
        """Everything, for a terminal or a file."""
        parts = [self.headline, f"fingerprint: {self.fingerprint}", ""]
        parts += [f"  {number:2} {frame}" for number, frame in enumerate(self.frames)]
        for title, text in self.sections:
            parts += ["", f"---- {title}", text]
        return "\n".join(parts)
