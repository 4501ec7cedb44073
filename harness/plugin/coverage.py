# SPDX-License-Identifier: BSD-2-Clause
"""`--coverage`: what each test runs of the kernel's code, from the machine's notes to the map and other tools' files.

A test's own is all that its machines executed, once they were ready, from the beginning of its setup to the end of its
teardown: by the test, but also by the kernel's daemons and interrupts meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.coverage.code import Code, pack, unpack
from harness.coverage.control import control_code, known_control_code
from harness.coverage.export import cobertura, lcov
from harness.coverage.kernel import kernel_code, split_names
from harness.coverage.map import CoverageMap, Reach, map_of, texts_of
from harness.errors import UsageError
from harness.files import write_whole
from harness.guests.guest import Progress
from harness.kernels.build import Build
from harness.later import Later
from harness.machine.executed import instrument
from harness.machine.qemu import qemu_version
from harness.plugin.rig import Rig
from harness.plugin.tested import TestedTarget
from harness.results.coverage import Coverage
from harness.runs.options import RunOptions
from harness.store import Store

if TYPE_CHECKING:
    import numpy as np

    from harness.coverage.code import Hits
    from harness.machine.executed import Notes
else:
    np = Later("numpy")

_KEY = "dfly_coverage"


class CoverageTaker:
    """Takes down what the tests of this process run, of the code that ASKED names."""

    def __init__(self, tested: TestedTarget, store: Store, asked: str) -> None:
        self._tested = tested
        self._store = store
        self._names = split_names(asked)
        self._asked = asked
        self._code: Code | None = None
        self._between: Hits | None = None

    def check(self) -> None:
        """Raise pytest.UsageError for code that the kernel does not have, as far as that is known before it runs."""
        if self._tested.resolved().is_dragonfly:
            try:
                code_of(self._tested, self._store, self._names)
            except UsageError as error:
                raise pytest.UsageError(str(error)) from None

    def equip(self, rig: Rig, progress: Progress) -> None:
        """Let it be noted what the sessions of RIG execute; raises HarnessError where that cannot be."""
        if rig.target.is_dragonfly:
            self._code = code_of(self._tested, self._store, self._names)
        else:
            names = self._names if self._asked else ()
            self._code = known_control_code(self._store, rig.target.key, names)
            if self._code is None:
                progress("looking where the kernel's functions are")
                with rig.fresh() as session:
                    self._code = control_code(self._store, rig.target.key, session.guest, names)
        rig.equip(instrument(self._code.ranges, qemu_version(), self._store.cache))

    def begin(self, rig: Rig | None) -> None:
        """Put aside what was run since the last test."""
        if rig is not None and self._code is not None:
            self._between = self._hits(rig.executed())

    def end(self, rig: Rig | None, report: pytest.TestReport) -> None:
        """Let REPORT, on a test's teardown, carry what the test ran."""
        if rig is None or self._code is None:
            return
        hits = self._hits(rig.executed())
        # To boot a machine, or to go on with one, is none of the test's doing.
        between = self._hits(rig.started())
        between |= self._between if self._between is not None else between
        self._between = None
        vars(report)[_KEY] = [{"test": pack(hits), "between": pack(between)}]

    def _hits(self, notes: Sequence[Notes]) -> Hits:
        assert self._code is not None
        found = np.zeros(self._code.size, dtype=bool)
        for each in notes:
            found |= self._code.hits(each)
        return found


def carry(report: pytest.TestReport, others: Iterable[pytest.TestReport]) -> None:
    """Let REPORT, on a test's end, carry also what OTHERS carry, on other runs of it, of which pytest is not told."""
    if more := [told for other in others if other is not report for told in vars(other).get(_KEY, ())]:
        vars(report)[_KEY] = [*vars(report).get(_KEY, ()), *more]


def code_of(tested: TestedTarget, store: Store, names: Sequence[str]) -> Code:
    """Return the code of the DragonFly kernel under test that NAMES mean; raises UsageError where it is not known."""
    kernel = tested.resolved().kernel
    if kernel is None:
        raise UsageError("--coverage needs a kernel of the store: where its code is is not known otherwise")
    return kernel_code(store, kernel, names)


class CoverageLedger:
    """What all processes of a run have taken down; makes the map and the files that were asked for of it."""

    def __init__(self, tested: TestedTarget, options: RunOptions, store: Store, root: Path) -> None:
        self._tested = tested
        self._options = options
        self._store = store
        self._root = root
        self._told: list[tuple[str, dict[str, str]]] = []
        self._seconds: dict[str, float] = {}

    def add(self, report: pytest.TestReport) -> None:
        """Take in what a test's REPORT carries."""
        if self._options.coverage is None:
            return
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + float(getattr(report, "duration", 0))
        for told in vars(report).pop(_KEY, ()):
            self._told.append((report.nodeid, told))

    def finish(self, tests: Collection[str]) -> Coverage:
        """Keep the map, write what was asked for, and return what TESTS, all of the run, have run of the code.

        Raises pytest.UsageError when a file cannot be written.
        """
        if not self._told or self._options.coverage is None:
            return Coverage()
        made = self._map(split_names(self._options.coverage))
        if made is None:
            return Coverage()
        # A test that was left out has run nothing of its own.
        made = made.only({test: reach for test, reach in made.tests.items() if test in tests})
        file = made.keep(self._store)
        kept = map_of(self._store, made.kernel, made.names) or made
        # A run that was resumed has tests from before.
        shown = made.only({test: kept.tests[test] for test in tests if test in kept.tests})
        try:
            if self._options.lcov is not None:
                write_whole(self._options.lcov, lcov(shown))
            if self._options.cobertura is not None:
                write_whole(self._options.cobertura, cobertura(shown))
        except OSError as error:
            raise pytest.UsageError(f"{error.filename}: {error.strerror}") from None
        return shown.summary(file)

    def _map(self, names: tuple[str, ...]) -> CoverageMap | None:
        if self._tested.is_dragonfly:
            code: Code | None = code_of(self._tested, self._store, names)
        else:
            asked = names if self._options.coverage else ()
            code = known_control_code(self._store, self._tested.open().key, asked)
        if code is None:
            return None
        hits: dict[str, Hits] = {}
        between = np.zeros(code.size, dtype=bool)
        for test, told in self._told:
            own = unpack(told["test"], code.size)
            hits[test] = own | hits[test] if test in hits else own
            if "between" in told:
                between |= unpack(told["between"], code.size)
        texts = texts_of(hits, self._root)
        tests = {test: Reach(own, round(self._seconds.get(test, 0.0), 3), texts[test]) for test, own in hits.items()}
        kernel = self._tested.resolved().kernel
        digest = kernel.elf if kernel is not None else self._tested.open().key
        osreldate = (kernel.osreldate if kernel is not None else 0) or 0
        return CoverageMap(
            digest, self._tested.label, names, code, tests, between, _tree(self._store, digest), osreldate
        )


def _tree(store: Store, elf: str) -> str:
    """Return the git tree of the sources that the kernel was built from, where the store knows it."""
    return next((build.tree for build in store.all(Build) if build.elf == elf), "")
