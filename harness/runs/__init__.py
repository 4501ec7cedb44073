# SPDX-License-Identifier: BSD-2-Clause
"""Running the suite in a pytest process of its own."""
