# SPDX-License-Identifier: BSD-2-Clause
"""The page of all errors: what the harness can say, taken from where it says it, so that none is missing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_HARNESS = Path(__file__).resolve().parents[2] / "harness"
_WORD = re.compile(r"[A-Za-z]{3}")
_HEAD = """\
# What it can say

Made by `python suites/support/pages.py errors` from the sources; do not edit.  Every error that is written for users is
here, by its exit status; `…` stands for names and numbers.  Look for the longest part of yours that has none.
[Troubleshooting](troubleshooting.md) says more of those that are met most.
"""
#: Errors by the class that is raised, and what all of its kind mean and ask for.
_KINDS = {
    "InstallFailedError": (
        "Exit status 1: it speaks against the kernel",
        "It does not build, or does not come up where another one does.  The log, or the console, is named or quoted.",
    ),
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


#: Errors that are told with those of another class than they are derived from.
_TOLD_WITH = {"BuildFailedError": "InstallFailedError", "BootFailedError": "InstallFailedError"}


def make() -> str:
    """Return the page."""
    found: dict[str, set[tuple[str, str]]] = {kind: set() for kind in _KINDS}
    trees = {file: ast.parse(file.read_text()) for file in sorted(_HARNESS.rglob("*.py"))}
    kinds = kinds_of(trees.values())
    for file, tree in trees.items():
        for kind, text in _said(tree, kinds):
            found[kind].add((text, file.relative_to(_HARNESS).as_posix()))
    parts = [_HEAD]
    for kind, (title, about) in _KINDS.items():
        parts += [f"## {title}\n", f"{about}\n", "| it says | said by |\n|---|---|"]
        parts += [f"| {_cell(text)} | `{file}` |" for text, file in sorted(found[kind], key=lambda each: each[::-1])]
        parts.append("")
    return "\n".join(parts)


def kinds_of(trees: Iterable[ast.Module]) -> dict[str, str]:
    """Return of each class of errors in TREES with which kind it is told: its nearest ancestor that is one."""
    bases = {
        node.name: [_name(base) for base in node.bases]
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }

    def kind(name: str) -> str:
        if name in _TOLD_WITH or name in _KINDS:
            return _TOLD_WITH.get(name, name)
        return next((found for base in bases.get(name, ()) if (found := kind(base))), "")

    return {name: found for name in (*_KINDS, *bases) if (found := kind(name))}


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _said(tree: ast.Module, kinds: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield kind and words of each error that is made with words of its own: where it is raised, or by its class."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in kinds:
            made = [each for each in ast.walk(node) if isinstance(each, ast.Call) and _is_super(each.func)]
            kind = kinds[node.name]
        elif isinstance(node, ast.Raise | ast.Return):
            call = node.exc if isinstance(node, ast.Raise) else node.value
            made = [call] if isinstance(call, ast.Call) else []
            kind = kinds.get(_name(made[0].func), "") if made else ""
        else:
            continue
        for call in made if kind else []:
            for text in filter(_WORD.search, map(_words, call.args[:1])):  # else it hands on another's words
                yield kind, text


def _is_super(called: ast.expr) -> bool:
    """Tell whether CALLED is super().__init__, by which a class of errors gives all of its kind their words."""
    return isinstance(called, ast.Attribute) and called.attr == "__init__" and isinstance(called.value, ast.Call)


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
