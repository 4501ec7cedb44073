# SPDX-License-Identifier: BSD-2-Clause
"""Explored interleavings: one operation is held before each instruction in turn while another one is made."""
