# SPDX-License-Identifier: BSD-2-Clause
"""What several test files need: children, terminals, the process table, the pid allocator; no test is here."""
