# SPDX-License-Identifier: BSD-2-Clause
"""A system call is added in one place: a method with its numbers."""

from __future__ import annotations

import struct
from typing import Any, cast

import pytest

from harness.processes.abi import DRAGONFLY, LINUX
from harness.processes.abi_base import Abi
from harness.processes.calls import Now, system_call
from harness.processes.connection import Call, Connection, Endpoint
from harness.processes.vocabulary import GuestError


class More(Now):
    """What somebody adds."""

    @system_call(dragonfly=9999)
    def frobnicate(self, how: int) -> Call[int]:
        """Frobnicate."""
        return self._call("frobnicate", how)

    def _perform(self, call: Call[Any]) -> Any:
        return struct.unpack_from("<8Q8I", call.payload)[8], call.text


def make(abi: Abi) -> More:
    return More(cast(Connection, None), abi, cast(Endpoint, None))


def test_a_call_is_known_by_the_number_that_its_method_declares() -> None:
    assert cast(object, make(DRAGONFLY).frobnicate(7)) == (9999, "frobnicate(7)")
    assert "frobnicate" not in DRAGONFLY.numbers


def test_where_it_has_no_number_there_is_no_such_call() -> None:
    with pytest.raises(GuestError, match="ENOSYS"):
        make(LINUX).frobnicate(7)
