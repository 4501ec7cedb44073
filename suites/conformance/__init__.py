# SPDX-License-Identifier: BSD-2-Clause
"""The specification: what kern_proc.c and its callers promise to user programs, one behaviour per test."""
