# SPDX-License-Identifier: BSD-2-Clause
"""How a test of a change in DragonFly's history names the commit and the first version that has it for certain."""

from __future__ import annotations

import pytest


def since(version: int, commit: str) -> pytest.MarkDecorator:
    """Promise a behaviour from VERSION on; COMMIT says which change brought it, and when.

    VERSION is the first __DragonFly_version all of whose kernels have the change: the commit may be somewhat older.
    """
    return pytest.mark.eras(since=version, reason=f"came with {commit}")
