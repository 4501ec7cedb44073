# SPDX-License-Identifier: BSD-2-Clause
"""Races that are written down: a thread stands at a chosen instruction of the kernel while others go on."""
