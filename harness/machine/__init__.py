# SPDX-License-Identifier: BSD-2-Clause
"""QEMU machines. Nothing here knows which operating system runs inside."""
