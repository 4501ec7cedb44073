# SPDX-License-Identifier: BSD-2-Clause
"""Which other hosts a campaign's runs are made on, as the user says it."""

from __future__ import annotations

import argparse

from harness.errors import UsageError
from harness.guests.guest import Progress
from harness.machine.description import Accelerator
from harness.options import Option, declare
from harness.runs.hosts import COMMAND, HostPool, Slots
from harness.store import Store

_HOSTS = (
    Option(
        "hosts",
        "hosts that make the runs, with machines side by side on each; ssh knows them by these names, and 'local' is"
        " this one (instead of --jobs)",
        "A:4,B:8",
        Slots.parse,
    ),
    Option("hosts-command", f"how the harness is called there (default: {COMMAND})", "CMD", default=COMMAND),
)


def add_host_options(parser: argparse.ArgumentParser) -> None:
    """Add what says on which other hosts runs are made."""
    declare(_HOSTS, parser.add_argument)


def hosts_of(
    options: argparse.Namespace, store: Store, accelerator: Accelerator | None, progress: Progress
) -> HostPool | None:
    """Return the hosts that OPTIONS name, all of them fit for runs on ACCELERATOR if that is one; None without any.

    Raises UsageError for --jobs beside them, and HarnessError for a host that is not fit.
    """
    if options.hosts is None:
        return None
    if options.jobs:
        raise UsageError("--hosts says how many machines run side by side: leave out --jobs")
    pool = HostPool(options.hosts, store, command=options.hosts_command, progress=progress)
    pool.check(accelerator)
    return pool
