# SPDX-License-Identifier: BSD-2-Clause
"""How good the tests are: kernels with one small fault each, and which of them the tests tell from the right one."""
