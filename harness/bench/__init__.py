# SPDX-License-Identifier: BSD-2-Clause
"""How fast the harness is on this host."""
