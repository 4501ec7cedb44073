# SPDX-License-Identifier: BSD-2-Clause
"""Options of the lockstep suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add how much is generated, and from where."""
    group = parser.getgroup("lockstep", "lockstep: the oracle and a kernel make the same system calls")
    group.addoption("--calls", type=int, default=2000, metavar="N", help="system calls to make in both (default: 2000)")
    group.addoption("--trace-seed", type=int, default=0, metavar="N", help="where the generation of traces starts")
