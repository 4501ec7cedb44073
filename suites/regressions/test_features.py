# SPDX-License-Identifier: BSD-2-Clause
"""The features a kernel shows when it is looked at are those its version promises (harness.guests.features)."""

from __future__ import annotations

import pytest

from harness.guests.features import FEATURES
from harness.guests.guest import Guest
from harness.plugin.rig import Rig
from harness.processes import Hub
from harness.processes.probes import PROBES, look

pytestmark = pytest.mark.needs_kernel


@pytest.fixture
def dragonfly(guest: Guest) -> None:
    """Leave the control guest out: its version is no DragonFly's."""
    if not guest.target.is_dragonfly:
        pytest.skip("not applicable: no DragonFly kernel")


@pytest.mark.usefixtures("dragonfly")
@pytest.mark.parametrize("name", PROBES)
def test_a_look_shows_what_the_version_promises(hub: Hub, rig: Rig, name: str) -> None:
    """Where the version leaves it open, a look must tell; the same look tells the same twice."""
    assert rig.facts is not None
    seen = look(hub, name)
    promised = FEATURES[name].decided_by(rig.facts.osreldate)
    assert promised in {None, seen}, (
        f"{FEATURES[name].what}: seen {seen}, promised by {rig.facts.osreldate}: {promised}"
    )
    assert look(hub, name) is seen
    assert rig.facts.has(name) is seen
