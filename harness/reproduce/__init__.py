# SPDX-License-Identifier: BSD-2-Clause
"""From the recorded calls of a failed test to a C program that shows the same without the harness."""
