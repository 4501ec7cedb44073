# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures shared with the other suites."""

from support.fixtures import allocator, kernel, several_reapers

__all__ = ["allocator", "kernel", "several_reapers"]
