# SPDX-License-Identifier: BSD-2-Clause
"""Text that came from a guest, made fit for a terminal: nothing in it moves a cursor, sets a title or hides a line."""

from __future__ import annotations


def visible(text: str) -> str:
    r"""Return TEXT with each character that does not print as its code, such as \x1b; lines and tabs stay."""
    if text.isprintable():
        return text
    return "".join(each if each in "\n\t" or each.isprintable() else f"\\x{ord(each):02x}" for each in text)
