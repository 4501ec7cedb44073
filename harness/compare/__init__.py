# SPDX-License-Identifier: BSD-2-Clause
"""The same suite on several kernels, and how sure one can be of what differs."""
