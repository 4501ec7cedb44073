# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures shared with the other suites."""

from support.fixtures import several_reapers

__all__ = ["several_reapers"]
