# SPDX-License-Identifier: BSD-2-Clause
"""Which code of an unmodified kernel a test has run: lines and branches from addresses, maps, other tools' formats."""
