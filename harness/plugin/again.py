# SPDX-License-Identifier: BSD-2-Clause
"""A failure is looked at again: the test runs once more on a pristine machine; with `--repeat` each test runs N times.

The test keeps its worst verdict; all others are kept beside it.  What the first failure came to is said before the test
runs again, so that it is on disk whatever happens then.  So does a test whose machine turned out, later, to have died.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from harness.plugin.applies import needs_target
from harness.plugin.coverage import carry
from harness.plugin.outcome import RERUN, attach, attach_further, further_of, result_of
from harness.plugin.recorder import Recorder
from harness.plugin.supply import GuestSupply
from harness.results.record import TestResult
from harness.runs.options import RunOptions
from harness.visible import visible

# So many tests that failed again, and none that passed, show that this kernel's failures are no flakes.
_ENOUGH = 50
_Reports = list[pytest.TestReport]


class Attempts:
    """Runs a test as often as OPTIONS say; TELL lets a report carry what is known of the machines by then."""

    def __init__(
        self,
        supply: GuestSupply,
        options: RunOptions,
        recorder: Recorder | None,
        tell: Callable[[pytest.TestReport], None],
        *,
        interactive: bool,
    ) -> None:
        self._supply = supply
        self._repeat = options.repeat
        self._pristine = options.pristine
        # A person who looks at a failure does not want the next one to follow.
        self._looks_again = not (options.no_again or options.hold or interactive or options.oracle is not None)
        self._recorder = recorder
        self._tell = tell
        self._in_vain = 0
        self._flaky = 0
        self._seen = 0  # late deaths
        #: How many failures were not looked at again, because so many had been in vain.
        self.not_again = 0

    def run(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Run ITEM; as pytest's hook, say that it has been dealt with, or leave it to pytest."""
        if not (needs_target(item) and (self._looks_again or self._repeat > 1 or self._recorder is not None)):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        more = self._wants_more([reports])
        if not more and self._wants_more([reports], whatever_it_is_worth=True):
            self.not_again += 1
        if more or self._recorder is not None:
            reports = self._again(item, nextitem, reports)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _wants_more(self, attempts: Sequence[_Reports], *, whatever_it_is_worth: bool = False) -> bool:
        if self._supply.trouble is not None:
            return False
        first = worst_of(attempts[0])
        if first is None or first.verdict.is_left_out:
            return False
        if len(attempts) < self._repeat:
            return True
        # That a failure is looked at again is what repeating is for, too.
        one = self._repeat == len(attempts) == 1
        is_worth_it = whatever_it_is_worth or self._is_worth_it()
        return one and self._looks_again and first.verdict.against_kernel and is_worth_it

    def _is_worth_it(self) -> bool:
        return self._flaky > 0 or self._in_vain < _ENOUGH

    def _again(self, item: pytest.Item, nextitem: pytest.Item | None, reports: _Reports) -> _Reports:
        attempts = [reports]
        fresh = [False]
        while self._wants_more(attempts):
            last = worst_of(attempts[-1])
            fresh.append(last is not None and last.verdict.against_kernel)
            if last is not None and fresh[-1]:
                _say_failure(item, last)
            fresh[-1] = fresh[-1] or self._pristine
            if fresh[-1]:
                self._supply.renew()
            _forget(item)
            attempts.append(runtestprotocol(item, log=False, nextitem=nextitem))
        results = [
            replace(result, pristine=pristine) if (result := worst_of(each)) is not None else None
            for each, pristine in zip(attempts, fresh, strict=True)
        ]
        known = [(number, result) for number, result in enumerate(results) if result is not None]
        if not known:
            return reports
        chosen, worst = max(known, key=lambda each: (each[1].verdict.severity, -each[0]))
        others = tuple(result for number, result in known if number != chosen)
        shown = attempts[chosen]
        _join_further(attempts, shown)
        carry(shown[-1], (report for reports in attempts if reports is not shown for report in reports))
        kept = replace(worst, again=others, pristine=False)
        if others:
            self._count(kept)
            _add(shown, kept)
        if self._recorder is not None and kept.verdict.is_failure:
            self._recorder.record(item, nextitem, shown)
        self._tell(shown[-1])
        return shown

    def look_at_deaths(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """After ITEM, run the tests again that late deaths are charged to; after the last one its machine is given up.

        Their fixtures are made anew, and torn down again, those of wider scope too.
        """
        if nextitem is None:
            self._supply.renew()
        while self._seen < len(known := self._supply.deaths()):
            death = known[self._seen]
            charged = next((each for each in item.session.items if each.nodeid == death.test), None)
            if charged is not None and self._wants_another_look(death):
                self._look_at(death, charged)
            self._seen += 1

    def _wants_another_look(self, death: TestResult) -> bool:
        wanted = self._looks_again and self._repeat == 1 and self._supply.trouble is None
        if wanted and not self._is_worth_it():
            self.not_again += 1
            return False
        return wanted and death.verdict.against_kernel

    def _look_at(self, death: TestResult, item: pytest.Item) -> None:
        item.session._setupstate.teardown_exact(None)
        _forget(item)
        known = len(self._supply.deaths())
        came_to = worst_of(runtestprotocol(item, log=False, nextitem=None))
        self._supply.renew()
        if late := self._supply.deaths()[known:]:
            self._supply.withdraw(late)
            came_to = late[0]
        if came_to is not None:
            self._supply.looked_again(death, replace(came_to, pristine=True))
            self._count(replace(death, again=(came_to,)))

    def _count(self, result: TestResult) -> None:
        if result.is_flaky:
            self._flaky += 1
        elif result.verdict.against_kernel:
            self._in_vain += 1


def worst_of(reports: _Reports) -> TestResult | None:
    """Return the worst result that REPORTS on the phases of one run of a test carry."""
    results = [result for report in reports if (result := result_of(report)) is not None]
    return max(results, key=lambda result: result.verdict.severity, default=None)


def _join_further(attempts: Sequence[_Reports], shown: _Reports) -> None:
    """Let the SHOWN one of ATTEMPTS carry the worst of each further result, the others beside it."""
    found: dict[str, list[TestResult]] = {}
    for reports in attempts:
        for result in (each for report in reports for each in further_of(report)):
            found.setdefault(result.test, []).append(result)
    if found:
        joined = []
        for results in found.values():
            worst = max(results, key=lambda result: result.verdict.severity)
            joined.append(replace(worst, again=tuple(each for each in results if each is not worst)))
        attach_further(shown[-1], joined)


def _say_failure(item: pytest.Item, result: TestResult) -> None:
    said = pytest.TestReport(item.nodeid, item.location, {}, RERUN, None, "call")  # type: ignore[arg-type]  # no outcome of pytest's own
    attach(said, result)
    item.ihook.pytest_runtest_logreport(report=said)


def _forget(item: pytest.Item) -> None:
    """Make ITEM as it was before it ran, as pytest does before a test's first run."""
    again: Any = item
    again._initrequest()
    again._report_sections.clear()


def _add(reports: _Reports, result: TestResult) -> None:
    """Let the one of REPORTS that came to RESULT carry it with its other runs, and say so in words."""
    bearer = next(
        report for report in reports if (own := result_of(report)) is not None and own.verdict is result.verdict
    )
    attach(bearer, result)
    told = [f"{result.words}"]
    for other in result.again:
        where = "on a pristine machine" if other.pristine else "on the machine as it was"
        told.append(f"{where}: {other.verdict}{f': {other.cause}' if other.cause else ''}")
    for report in reports:
        report.user_properties.append(("runs", result.words))
    if bearer.failed:
        bearer.sections.append(("run again", visible("\n".join(told))))
