# SPDX-License-Identifier: BSD-2-Clause
"""The page of all errors: what the harness can say, taken from where it says it, so that none is missing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

_HARNESS = Path(__file__).resolve().parents[2] / "harness"
_HEAD = """\
# What it can say

Made by `python suites/support/pages.py errors` from the sources; do not edit.  Every error that is written for users is
here, by its exit status; `…` stands for names and numbers.  Look for the longest part of yours that has none.
[Troubleshooting](troubleshooting.md) says more of those that are met most.
"""
#: Errors by the class that is raised, and what all of its kind mean and ask for.
_KINDS = {
    "UsageError": (
        "Exit status 2: a mistake in what was asked for",
        "Nothing has been run.  The line says what to change.",
    ),
    "ArgumentTypeError": ("Exit status 2: a mistake in an option's value", "Nothing has been run."),
    "HarnessError": (
        "Exit status 3: the harness or the host failed",
        "Nothing of this speaks against a kernel.  `dfly-harness doctor` looks at the host; if it is fit, please report"
        " it.",
    ),
    "GuestLostError": ("Exit status 3: the guest is gone", "The console in record and page shows its last words."),
    "DeadlineError": (
        "Exit status 3: something that was awaited did not happen",
        "It reads `waited N s for …`.  A busy host is the most frequent cause: fewer workers, or a quieter host.",
    ),
    "DamagedError": (
        "The kernel's memory contradicts itself",
        "A list of its process table does not end or leads nowhere: a finding about the kernel, or it was looked at in"
        " mid-change.",
    ),
}


def make() -> str:
    """Return the page."""
    found: dict[str, set[tuple[str, str]]] = {kind: set() for kind in _KINDS}
    for file in sorted(_HARNESS.rglob("*.py")):
        for kind, text in _raised(ast.parse(file.read_text())):
            found[kind].add((text, file.relative_to(_HARNESS).as_posix()))
    parts = [_HEAD]
    for kind, (title, about) in _KINDS.items():
        parts += [f"## {title}\n", f"{about}\n", "| it says | said by |\n|---|---|"]
        parts += [f"| {_cell(text)} | `{file}` |" for text, file in sorted(found[kind], key=lambda each: each[::-1])]
        parts.append("")
    return "\n".join(parts)


def _raised(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield class and words of each error that is raised with words of its own."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
            continue
        called = node.exc.func
        kind = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        if kind not in _KINDS or not node.exc.args:
            continue
        text = _words(node.exc.args[0])
        if re.search(r"[A-Za-z]{3}", text):  # what merely hands on another's words says nothing itself
            yield kind, text


def _words(node: ast.expr) -> str:
    """Return a message as it is written, with … for what is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_words(each) for each in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _words(node.left) + _words(node.right)
    return "…"


def _cell(text: str) -> str:
    said = re.sub(r"…(?:\s*…)+", "…", " ".join(text.split()))
    return re.sub(r"([<>*_|`\[\]])", r"\\\1", said)
