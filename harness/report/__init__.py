# SPDX-License-Identifier: BSD-2-Clause
"""How results reach people."""
