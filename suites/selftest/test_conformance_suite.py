# SPDX-License-Identifier: BSD-2-Clause
"""The conformance suite is a specification: every test says what it promises and whose promise it is."""

from __future__ import annotations

import re

import pytest

from harness.config import share
from harness.plugin.about import functions_of
from harness.plugin.control import load_lacks, name_of_test

CONFORMANCE = share() / "suites" / "conformance"

# What kern_proc.c defines, at the revisions the suite knows.
FUNCTIONS = frozenset(
    """
    procinit procinsertinit pgrpinsertinit sessinsertinit inferior pfind pfindn zpfind phold pstall prelezomb pholdzomb
    prele pgfind enterpgrp leavepgrp pgref pgrel sess_hold sess_rele fixjobc orphanpg proc_add_allproc proc_makepid
    proc_move_allproc_zombie proc_remove_zombie allproc_scan alllwp_scan zombproc_scan sysctl_out_proc
    sysctl_out_proc_kthread sysctl_kern_proc sysctl_kern_proc_args sysctl_kern_proc_cwd sysctl_kern_proc_pathname
    sysctl_kern_proc_sigtramp sysctl_kern_randompid proc_usermap proc_userunmap lwp_usermap lwp_userunmap lwpfind
    lwpkthreaddeferred lwpuserret pcredcache pwaitres_pending pwaitres_set
    """.split()
)

#: Those of which programs see no more than others do with them.
NOT_PROMISED = frozenset(
    """
    lwpkthreaddeferred pcredcache pgrpinsertinit pwaitres_pending sessinsertinit zombproc_scan
    """.split()
)


class _Collector:
    """Keeps what pytest collects."""

    def __init__(self) -> None:
        self.items: list[pytest.Function] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Take the items."""
        self.items = [item for item in session.items if isinstance(item, pytest.Function)]


@pytest.fixture(scope="module")
def tests() -> list[pytest.Function]:
    collector = _Collector()
    arguments = [str(CONFORMANCE), "--collect-only", "--dfly-oracle", f"--rootdir={share()}"]
    assert pytest.main(arguments, plugins=[collector]) == 0
    return collector.items


def marked(test: pytest.Function, *marks: str) -> set[str]:
    return {str(name) for mark in marks for marker in test.iter_markers(mark) for name in marker.args}


def test_every_test_names_functions_of_kern_proc_c(tests: list[pytest.Function]) -> None:
    unnamed = [test.nodeid for test in tests if not marked(test, "kern_proc", "passes")]
    unknown = {name for test in tests for name in marked(test, "kern_proc", "passes")} - FUNCTIONS
    assert not unnamed
    assert not unknown


def test_what_a_test_is_about_its_text_speaks_of(tests: list[pytest.Function]) -> None:
    silent = set()
    for test in tests:
        text = f"{test.function.__doc__} {test.name} {test.module.__doc__}"
        silent |= {(test.nodeid, name) for name in marked(test, "kern_proc") if not re.search(rf"\b{name}\b", text)}
        silent -= {(test.nodeid, name) for name in marked(test, "kern_proc") if name in test.name}
    assert not silent


def test_each_function_of_kern_proc_c_has_tests_that_are_about_it(tests: list[pytest.Function]) -> None:
    found = {name for test in tests for name in functions_of(test)}
    assert not (FUNCTIONS - found - NOT_PROMISED)
    assert not (NOT_PROMISED & found)


def test_every_test_says_its_promise_in_words(tests: list[pytest.Function]) -> None:
    assert not [test.nodeid for test in tests if not (test.function.__doc__ or "").strip()]


def test_the_expected_failures_of_the_control_guest_are_of_tests_that_exist(tests: list[pytest.Function]) -> None:
    known = {name_of_test(test.nodeid) for test in tests}
    known |= {name.partition("[")[0] for name in known}
    assert not {name for lack in load_lacks(CONFORMANCE) for name in lack.tests} - known


@pytest.mark.parametrize("suite", ["conformance", "regressions"])
def test_no_test_file_imports_another_or_is_too_long_to_be_looked_through(suite: str) -> None:
    files = sorted((CONFORMANCE.parent / suite).glob("test_*.py"))
    texts = {file.name: file.read_text() for file in files}
    assert not [
        name for name, text in texts.items() if re.search(r"^\s*(from|import) .*\btest_\w+", text, re.MULTILINE)
    ]
    assert not [name for name, text in texts.items() if text.count("\n") > 480]
