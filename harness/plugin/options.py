# SPDX-License-Identifier: BSD-2-Clause
"""The run's options, read and checked once for each pytest process."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.files import output_file
from harness.options import PYTEST_PREFIX
from harness.results.record import read_record
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


def demand_writable_outputs(config: pytest.Config) -> None:
    """Raise UsageError for a file of pytest's own (`--junitxml`) that nobody can write: it would be, after the run."""
    named = getattr(config.option, "xmlpath", None)
    if not named:
        return
    file = Path(named).absolute()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)  # as pytest does later
        output_file(str(file))
    except argparse.ArgumentTypeError as error:
        raise pytest.UsageError(f"--junitxml: {error}") from None
    except OSError as error:
        raise pytest.UsageError(f"--junitxml: {file} cannot be written: {error.strerror}") from None


def durations_of(options: RunOptions) -> dict[str, float]:
    """Return how long tests took in the run that OPTIONS name, nothing where they name none."""
    if options.durations is None:
        return {}
    try:
        record = read_record(options.durations)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    return {result.test: result.seconds for result in record.results}
