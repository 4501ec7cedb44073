# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures shared with the other suites."""

from support.fixtures import holder, several_reapers

__all__ = ["holder", "several_reapers"]
