# SPDX-License-Identifier: BSD-2-Clause
"""The system call interfaces of the guests, by name."""

from __future__ import annotations

from collections.abc import Mapping

from harness.processes.abi_base import Abi
from harness.processes.abi_dragonfly import DRAGONFLY
from harness.processes.abi_linux import LINUX

ABIS: Mapping[str, Abi] = {abi.name: abi for abi in (DRAGONFLY, LINUX)}

__all__ = ["ABIS", "DRAGONFLY", "LINUX", "Abi"]
