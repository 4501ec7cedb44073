# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures shared with the other suites, and what tests that damage a kernel need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.plugin.rig import Rig
from harness.processes import RemoteProcess
from support.fixtures import several_reapers

__all__ = ["several_reapers"]


@pytest.fixture
def sacrificed(rig: Rig, init: RemoteProcess) -> Iterator[None]:
    """Give the guest up afterwards, before anybody cleans up in it: what a test does to a wrong kernel may last."""
    yield
    rig.discard()


@pytest.fixture
def pristine(rig: Rig) -> None:
    """Begin with a guest nobody has used: terminals, for one, remember what earlier tests did to them."""
    rig.discard()
