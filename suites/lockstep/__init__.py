# SPDX-License-Identifier: BSD-2-Clause
"""Kernel and oracle make the same calls."""
