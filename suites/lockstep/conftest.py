# SPDX-License-Identifier: BSD-2-Clause
"""Options of the lockstep suite."""

from __future__ import annotations

import pytest

from harness.options import PYTEST_PREFIX, Option, declare

OPTIONS = (
    Option("calls", "system calls to make in both (default: 2000)", "N", int, 2000),
    Option("trace-seed", "where the generation of traces starts", "N", int, 0),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add how much is generated, and from where."""
    group = parser.getgroup("lockstep", "lockstep: the oracle and a kernel make the same system calls")
    declare(OPTIONS, group.addoption, PYTEST_PREFIX)
