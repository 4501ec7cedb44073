# SPDX-License-Identifier: BSD-2-Clause
"""Text in titled parts, for a mail or a bug tracker (72 columns), or as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.visible import visible

WIDTH = 72
_INDENT = "    "
_CUT = "-" * 8 + " 8< " + "-" * 60
_FENCE = "~" * 8  # C has no such line


@dataclass(frozen=True)
class Part:
    """A TITLE, paragraphs to be filled, LINES such as a trace, indented and broken where they are too long, and more.

    COMMANDS are for a shell, CODE is what one cuts out: both stay as they are.  Empty ones are left out.
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.paragraphs or self.lines or self.code or self.commands)


def plain(title: str, parts: Iterable[Part]) -> str:
    """Return TITLE and PARTS as plain text of 72 columns at most, where words are no longer than that."""
    return _text([*_filled(title), *(line for part in parts if part for line in ("", *_plain_part(part)))])


def markdown(title: str, parts: Iterable[Part]) -> str:
    """Return TITLE and PARTS as Markdown."""
    return _text([f"# {_escaped(title)}", *(line for part in parts if part for line in ("", *_markdown_part(part)))])


def _text(lines: Iterable[str]) -> str:
    return visible("\n".join(line.rstrip() for line in lines) + "\n")


def _filled(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def _plain_part(part: Part) -> Iterator[str]:
    yield part.title
    yield "-" * len(part.title)
    for number, paragraph in enumerate(part.paragraphs):
        yield from [""] * (number > 0)
        yield from _filled(paragraph)
    if part.paragraphs and part.lines:
        yield ""
    for line in part.lines:
        if " " not in line.strip():  # a word is not broken, however long
            yield f"{_INDENT}{line}"
            continue
        yield from textwrap.wrap(
            line.expandtabs(), WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT * 2, drop_whitespace=False,
            break_long_words=False, break_on_hyphens=False, replace_whitespace=False,
        ) or [""]  # fmt: skip
    if part.commands:
        yield from ["", *(f"{_INDENT}{line}" for line in part.commands)]
    if part.code:
        yield from ["", _CUT, *part.code, _CUT]


def _markdown_part(part: Part) -> Iterator[str]:
    yield f"## {part.title}"
    for paragraph in part.paragraphs:
        yield ""
        yield _escaped(" ".join(paragraph.split()))
    if part.lines:
        fence = "```"
        while any(fence in line for line in part.lines):
            fence += "`"
        yield from ["", fence, *part.lines, fence]
    if part.commands:
        yield from ["", f"{_FENCE}sh", *part.commands, _FENCE]
    if part.code:
        yield from ["", f"{_FENCE}c", *part.code, _FENCE]


def _escaped(text: str) -> str:
    for sign in ("\\", "`", "*", "_", "<", "[", "|", "#"):
        text = text.replace(sign, f"\\{sign}")
    return text
