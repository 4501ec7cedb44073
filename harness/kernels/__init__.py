# SPDX-License-Identifier: BSD-2-Clause
"""Kernels: identifying, importing and booting them."""
