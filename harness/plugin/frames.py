# SPDX-License-Identifier: BSD-2-Clause
"""Which frames a traceback shows, and where: the test's own, and not those of the harness that made its calls."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import pytest
from _pytest._code import ExceptionInfo

from harness.config import share
from harness.errors import HarnessError
from harness.plugin.applies import needs_target

_HIDE = "__tracebackhide__"
#: What runs our context managers for the test: a test's `with` is enough to see.
_BETWEEN = {"contextlib"}
_OWN = share() / "suites" / "selftest"


def _says_enough(raised: ExceptionInfo[BaseException]) -> bool:
    """Tell whether the error is one that a user causes or the guest gives: where it was raised tells them nothing."""
    return isinstance(raised.value, (HarnessError, OSError, AssertionError))


def hide_ours(item: pytest.Item, raised: ExceptionInfo[BaseException] | None) -> None:
    """Let what RAISED shows of ITEM leave out the harness's modules, unless it is a fault of theirs.

    pytest looks for its word among a module's names as well as in functions.  `--full-trace` shows all.
    """
    if raised is None or not needs_target(item) or item.path.is_relative_to(_OWN):
        return
    for names in _namespaces(raised.value):
        module = str(names.get("__name__", ""))
        if module.startswith("harness.") or module in _BETWEEN:
            names.setdefault(_HIDE, _says_enough)


def give_lines(raised: ExceptionInfo[BaseException]) -> None:
    """Let every frame of what RAISED shows have a line; one without gets that of its function.

    A signal may come at an instruction of the compiler's own, which belongs to no line: pytest fails on such a frame.
    """
    for error in _chain(raised.value):
        frames = list(_entries(error.__traceback__))
        if any(frame.tb_lineno is None for frame in frames):
            following = None
            for each in reversed(frames):
                line = each.tb_lineno or each.tb_frame.f_code.co_firstlineno
                following = TracebackType(following, each.tb_frame, each.tb_lasti, line)
            error.__traceback__ = following
    if raised.value.__traceback__ is not None:
        raised.traceback = type(raised.traceback)(raised.value.__traceback__)


def _entries(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _namespaces(error: BaseException | None) -> Iterator[dict[str, Any]]:
    """Yield the modules that ERROR went through, and those that what it was raised for went through."""
    for each in _chain(error):
        yield from (frame.f_globals for frame, _ in traceback.walk_tb(each.__traceback__))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield ERROR and what it was raised for."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
