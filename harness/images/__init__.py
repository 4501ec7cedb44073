# SPDX-License-Identifier: BSD-2-Clause
"""Base images: importing, sealing and, for the control guest, putting together."""
