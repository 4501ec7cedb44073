# SPDX-License-Identifier: BSD-2-Clause
"""Which tests a run is about, as pytest is told: suites have names that work in a checkout and out of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from _pytest.config import get_config

from harness.config import share
from harness.errors import UsageError
from harness.options import PYTEST_PREFIX
from harness.runs.options import RunOptions

DEFAULT_SUITE = "suites/conformance"
#: What `--defects` adds where no tests are named.
DEFECTS_SUITE = "suites/regressions"
_SUITES = "suites"
# The harness's own options for pytest, by which it is found where the suite's conftest.py is not read.
PLUGIN = "harness.plugin.entry"


def suite_names() -> list[str]:
    """Return the names of the suites that come with the harness."""
    return sorted(folder.name for folder in (share() / _SUITES).iterdir() if any(folder.glob("test_*.py")))


def is_test(word: str) -> bool:
    """Tell whether there is a file for WORD, or a suite of that name: a test of the user's own may be elsewhere."""
    try:
        find_tests(word)
    except UsageError:
        return False
    return True


def find_tests(word: str) -> str:
    """Return what pytest takes for WORD: a path, or a suite by name, or a part of one such as `conformance/test_x.py`.

    `::TEST` may follow.  Raises UsageError when there is no such thing.
    """
    path, separator, test = word.partition("::")
    for place in (Path(path), share() / path, share() / _SUITES / path):
        if path and place.exists():
            return f"{place}{separator}{test}"
    raise UsageError(f"no test {word}: give a file, a folder, FILE::TEST, or a suite ({', '.join(suite_names())})")


@dataclass(frozen=True)
class PytestWords:
    """Words meant for pytest: those that are tests to pytest's own parser, and the whole line with suites' names found.

    An option's value, such as the file after `--junitxml`, is no test.  Options that a suite's own conftest.py declares
    are not known yet: a word after one of these is its value unless there is such a test.
    """

    tests: tuple[str, ...]
    options: tuple[str, ...]

    @classmethod
    def split(cls, words: Sequence[str]) -> PytestWords:
        """Tell tests from options in WORDS; raises UsageError for tests that do not exist."""
        config = get_config()
        config.pluginmanager.load_setuptools_entrypoints("pytest11")
        RunOptions.declare(config._parser.getgroup("dfly-harness").addoption, PYTEST_PREFIX)

        def parsed(line: Sequence[str]) -> tuple[list[str], list[str]]:
            known, unknown = config._parser.parse_known_and_unknown_args(list(line))
            return list(known.file_or_dir), unknown

        def is_one_less(line: Sequence[str], without: Sequence[str]) -> bool:
            try:
                return len(parsed(line)[0]) == len(parsed(without)[0]) + 1
            except pytest.UsageError:  # an option lacks its value
                return False

        left = list(words)
        options: list[str] = []
        try:
            found, unknown = parsed(words)
        except pytest.UsageError as error:
            raise UsageError(str(error).rpartition("error: ")[2]) from None
        values = {word for option, word in pairwise(words) if option in unknown and not is_test(word)}
        tests = [word for word in found if word not in values]
        # A word is a test where there is one test less without it: the same text may be an option's value elsewhere.
        while left:
            word, *left = left
            if word not in tests or not is_one_less([*options, word, *left], [*options, *left]):
                options.append(word)
        return cls(tuple(find_tests(test) for test in tests), tuple(option for option in options if option != "--"))


def default_tests(defects: bool) -> list[str]:
    """Return the suites that run where none is named; with DEFECTS those of known defects, too."""
    return [DEFAULT_SUITE, DEFECTS_SUITE] if defects else [DEFAULT_SUITE]


def suite_arguments(options: RunOptions, tests: Sequence[str] = ()) -> list[str]:
    """Return pytest's arguments to run TESTS (default: the conformance suite) as OPTIONS say.

    Programs are tests, too.  Raises UsageError when a test's file does not exist.
    """
    asked = {Path(test.partition("::")[0]).resolve() for test in tests}  # one of its cases
    everything = [*tests, *(str(file) for file in options.programs.files if file.resolve() not in asked)]
    return [*test_arguments(everything, defects=options.defects), *options.words()]


def test_arguments(tests: Sequence[str], *, defects: bool) -> list[str]:
    """Return pytest's arguments about which tests to run and where it finds what they need, nothing about a target."""
    root = share()
    paths = [find_tests(test) for test in tests or default_tests(defects)]
    arguments = [*paths, f"--rootdir={root_of(paths)}", f"--confcutdir={root}"]
    # A user's own tests lie elsewhere, out of reach of our conftest.py.
    arguments += ["-p", PLUGIN]
    if (root / "pyproject.toml").exists():
        arguments += ["-c", str(root / "pyproject.toml")]
    return arguments


def root_of(paths: Sequence[str]) -> Path:
    """Return the folder the names of tests begin at: that of the suites, or above tests that lie elsewhere.

    pytest leaves the file out of the names of tests in a file that is not below its root.
    """
    root = share()
    files = [Path(path.partition("::")[0]).resolve() for path in paths]
    if all(file.is_relative_to(root) for file in files):
        return root
    return Path(os.path.commonpath([file if file.is_dir() else file.parent for file in files]))
