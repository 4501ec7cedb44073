# SPDX-License-Identifier: BSD-2-Clause
"""The run's options, read and checked once for each pytest process."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.options import PYTEST_PREFIX
from harness.runs.options import RunOptions

_OPTIONS = pytest.StashKey[RunOptions]()


def options_of(config: pytest.Config) -> RunOptions:
    """Return what the command line said; raises pytest.UsageError for what cannot be."""
    if _OPTIONS not in config.stash:
        try:
            config.stash[_OPTIONS] = RunOptions.read(config.option, PYTEST_PREFIX)
        except UsageError as error:
            raise pytest.UsageError(str(error)) from None
    return config.stash[_OPTIONS]
