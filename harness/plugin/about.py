# SPDX-License-Identifier: BSD-2-Clause
"""Which functions of the kernel a test is about: those of its mark `kern_proc`, and those its docstring cites.

A docstring cites them behind their file: `(kern_exit.c: kern_wait; kern_proc.c: zpfind)`.
"""

from __future__ import annotations

import re

import pytest

from harness.errors import UsageError

_CITED = re.compile(r"\b\w+\.[cs]: ([^);]*)")
_BETWEEN = re.compile(r",|\band\b|\bof\b")
# The first word of each part; prose may follow: (kern_exit.c: kern_wait looks at zombies first).
_NAME = re.compile(r"\s*(?!(?:an?|the|its?|only|own|struct)\b)([a-z_]\w*)(?:\(\))?")


def cited(docstring: str | None) -> frozenset[str]:
    """Return the functions, and other names in C, that a docstring cites."""
    parts = (part for names in _CITED.findall(docstring or "") for part in _BETWEEN.split(names))
    return frozenset(found[1] for part in parts if (found := _NAME.match(part)) is not None)


def functions_of(item: pytest.Item) -> frozenset[str]:
    """Return what ITEM is about."""
    marked = {str(name) for mark in item.iter_markers("kern_proc") for name in mark.args}
    function = getattr(item, "function", None)
    return frozenset(marked) | cited(getattr(function, "__doc__", None))


def only_about(items: list[pytest.Item], name: str) -> list[pytest.Item]:
    """Return the tests that are about the function NAME.  Raises UsageError where none is."""
    chosen = [item for item in items if name in functions_of(item)]
    if not chosen:
        raise UsageError(
            f"no test is about {name}; a function of the kernel is named as in C: --function pgrel"
            " (for words of tests' names: -k)"
        )
    return chosen
