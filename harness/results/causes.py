# SPDX-License-Identifier: BSD-2-Clause
"""What tells one failure's cause from another's: a panic's headline and innermost functions, or the first words."""

from __future__ import annotations

import re

_HEADLINE = re.compile(
    r"^(panic: [^\n]*|Fatal (?:double fault|trap \d+: [^\n]*)|SECONDARY PANIC[^\n]*"
    r"|.*Kernel panic - not syncing: [^\n]*)",
    re.MULTILINE,
)
_FRAME = re.compile(r"\bat ([A-Za-z_]\w*)\+0x[0-9a-f]+")
_STOPPED = re.compile(r"^Stopped at\s+([A-Za-z_]\w*)\+0x", re.MULTILINE)
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\b\d{2,}\b")
# Frames that every panic has.
_DULL = {"panic", "Debugger", "trap", "trap_fatal", "trap_pfault", "calltrap", "kdb_trap"}
_FRAMES = 3
_WIDTH = 120


def panic_in(console: str) -> str | None:
    """Return what tells the kernel panic on CONSOLE from others; None where it shows none."""
    found = _HEADLINE.search(console)
    if found is None:
        return None
    headline = _NUMBER.sub("N", found[1].strip()) if found[1].startswith("panic") else found[1].strip()
    text = console[found.start() :]
    frames = [*_STOPPED.findall(text)[:1], *_FRAME.findall(text)]
    shown = list(dict.fromkeys(name for name in frames if name not in _DULL))[:_FRAMES]
    return headline + (f" in {' < '.join(shown)}" if shown else "")


def first_words(reason: str) -> str:
    """Return how REASON, pytest's traceback or a message, begins to say what was not as expected, without numbers."""
    lines = [line for line in reason.splitlines() if line.startswith("E  ")] or reason.splitlines() or [""]
    return _NUMBER.sub("N", lines[0].removeprefix("E").strip())[:_WIDTH]
