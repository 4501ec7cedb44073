# SPDX-License-Identifier: BSD-2-Clause
"""slot: makes one run for a campaign on another host, which asks for it over ssh (--hosts)."""

from __future__ import annotations

import argparse

from harness.cli.options import begin_command
from harness.guests.options import ACCELERATOR
from harness.machine.description import Accelerator
from harness.runs.slot import attend, describe
from harness.store import Store


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add slot."""
    parser = begin_command(
        commands,
        "slot",
        "dfly-harness slot --about",
    )
    parser.add_argument("--about", action="store_true", help="say what this host is, as JSON, and end")
    ACCELERATOR.declare(parser.add_argument)
    parser.set_defaults(action=_slot)


def _slot(options: argparse.Namespace) -> int:
    accelerator = Accelerator(options.accelerator) if options.accelerator else None
    return describe(Store(), accelerator) if options.about else attend(Store())
