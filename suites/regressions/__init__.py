# SPDX-License-Identifier: BSD-2-Clause
"""What was wrong once, or still is: one test per historical fix and per known defect."""
