# SPDX-License-Identifier: BSD-2-Clause
"""dfly-harness: boots real DragonFly BSD kernels and holds kern_proc.c to its word."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dfly-harness")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"
