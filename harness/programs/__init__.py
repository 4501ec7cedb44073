# SPDX-License-Identifier: BSD-2-Clause
"""Test programs that nobody here wrote: what they are, what cases they have, how they run in a guest, what they say.

Their output is read as it comes, so that it is known which case runs when a kernel dies; no library of a format does
that.
"""
