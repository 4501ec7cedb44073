# SPDX-License-Identifier: BSD-2-Clause
"""The page of eras: what kernels of different years promise differently, made from what the tests ask for.

A promise comes from a feature (harness.guests.features) that a test asks for, or from an `eras` mark whose reason names
a commit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support import pages

_COMMIT = re.compile(r"\b[0-9a-f]{10}\b")
_DATE = re.compile(r"\b20\d\d-\d\d-\d\d\b")
_YES, _NO = "●", "·"
_PERIODS = {
    "2012 to 2016": ("2012", "2017"),
    "2017 to July 2020": ("2017", "2020-07-25"),
    "July 2020 to April 2026": ("2020-07-25", "2027"),
}

#: Features that tests hold kernels to on one side only, and why there is nothing to hold them to on the other.
ONE_SIDED = {
    "getrandom": "not about processes; a test of another kind asks the running kernel",
    "posix_fallocate": "not about processes",
    "fdatasync": "not about processes",
    "futimesat": "not about processes",
    "pathname_einval": "before, asking panicked sooner or later: a known defect",
    "caps_hole": "while it was open nothing was promised",
    "procfs_exe": "a name that is not there is no promise",
    "bsd_ptys": "devices that nobody used are no promise",
    "sigmask_race_closed": "a race too rare to be shown by a test",
}

_HEAD = """\
# Eras

Made by `python suites/support/pages.py eras` from the marks of the tests and the features of kernels
(`harness/guests/features.py`); do not edit.  Each promise below came with one commit.  A table says which kernels make
it: **{yes}** this one does, **{no}** it does not.  Kernels named after releases are those their branches begin at.
*Version* is the first `__DragonFly_version` (`kern.osreldate`) all of whose kernels have the change.
"""


@dataclass
class Promise:
    """One change of what kernels do, the tests that hold those after it to it, and those that hold the others."""

    commit: str
    date: str
    version: int
    what: str
    feature: str = ""
    after: set[str] = field(default_factory=set)
    before: set[str] = field(default_factory=set)
    kept_by: dict[str, bool] = field(default_factory=dict)  # by name of the era

    @property
    def differs(self) -> bool:
        """Whether the kernels of the table are not all alike in it."""
        return len(set(self.kept_by.values())) > 1


def _name(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _from_features(items: Iterable[pytest.Item]) -> list[Promise]:
    """Return what tests ask for by name."""
    from harness.guests.features import FEATURES, KernelFacts
    from harness.oracle.eras import ERAS

    promises = {}
    for name, feature in FEATURES.items():
        change = feature.begins or feature.ends
        assert change is not None
        gone = feature.begins is None
        kept = {
            era.name: bool(KernelFacts.of_revision(era.osreldate, era.date).has(name)) is not gone
            for era in ERAS.values()
        }
        what = f"no longer: {feature.what}" if gone else feature.what
        version = change.certain or change.since
        promises[name] = Promise(change.commit, change.date, version, what, name, kept_by=kept)
    for item in items:
        for mark in item.iter_markers("feature"):
            for condition in mark.args:
                name = condition.removeprefix("!")
                has = (name == condition) is not (FEATURES[name].begins is None)
                (promises[name].after if has else promises[name].before).add(_name(item))
    return list(promises.values())


def _from_versions(items: Iterable[pytest.Item]) -> list[Promise]:
    """Return what tests ask for by version, where they name the commit."""
    from harness.oracle.eras import ERAS

    promises: dict[tuple[str, str], Promise] = {}
    for item in items:
        for mark in item.iter_markers("eras"):
            commits = _COMMIT.findall(mark.kwargs.get("reason", ""))
            if not commits:
                continue
            dates = _DATE.findall(mark.kwargs["reason"])
            version = mark.kwargs.get("since", mark.kwargs.get("until"))
            what = _name(item).rpartition("::test_")[2].replace("_", " ")
            kept = {era.name: era.osreldate >= version for era in ERAS.values()}
            key = (" ".join(commits), what)
            promise = promises.setdefault(key, Promise(", ".join(commits), dates[0], version, what, kept_by=kept))
            (promise.after if "since" in mark.kwargs else promise.before).add(_name(item))
    return list(promises.values())


def promises_of(items: Sequence[pytest.Item]) -> list[Promise]:
    """Return all promises, the oldest first."""
    found = _from_features(items) + _from_versions(items)
    return sorted(found, key=lambda promise: (promise.date, promise.commit, promise.what))


def one_sided(promises: Iterable[Promise]) -> list[str]:
    """Return complaints: features that tests ask for on one side only, without a reason, and reasons for nothing."""
    lacking = {promise.feature for promise in promises if promise.feature and not (promise.after and promise.before)}
    unexplained, surplus = sorted(lacking - ONE_SIDED.keys()), sorted(ONE_SIDED.keys() - lacking)
    return [
        *(
            f"feature {name} needs a test on either side of the change, or a reason in ONE_SIDED"
            for name in unexplained
        ),
        *(f"ONE_SIDED: {name} has tests on both sides, or is no feature" for name in surplus),
    ]


def _links(tests: Iterable[str]) -> str:
    files = sorted({test.partition("::")[0] for test in tests})
    return ", ".join(f"[{Path(file).stem.removeprefix('test_')}](../{file})" for file in files)


def page(promises: list[Promise]) -> str:
    """Return the page in Markdown: for each period a table of eras by promises, and the list of these."""
    parts = [_HEAD.format(yes=_YES, no=_NO)]
    number = 1
    for title, (first, end) in _PERIODS.items():
        numbered = list(enumerate((each for each in promises if first <= each.date < end), number))
        number += len(numbered)
        parts += [f"\n## {title} ({len(numbered)})\n\n", _table(numbered), "\n", _list(numbered)]
    return "".join(parts)


def _table(numbered: list[tuple[int, Promise]]) -> str:
    """Return the eras, and for each promise that not all of them make whether they do."""
    from harness.oracle.eras import ERAS

    different = [(number, promise) for number, promise in numbered if promise.differs]
    if not different:
        return "All kernels of the table make these.\n"
    lines = ["| kernel | version | " + " | ".join(str(number) for number, _ in different) + " |"]
    lines.append("|---|---|" + "---|" * len(different))
    for era in ERAS.values():
        cells = " | ".join(_YES if promise.kept_by[era.name] else _NO for _, promise in different)
        lines.append(f"| {era.name} ({era.date}) | {era.osreldate} | {cells} |")
    return "\n".join(lines) + "\n"


def _list(numbered: list[tuple[int, Promise]]) -> str:
    lines = ["| | promise | version | commit | date | tests after | tests before |", "|---|---|---|---|---|---|---|"]
    for number, promise in numbered:
        why = ONE_SIDED.get(promise.feature, "")
        what = f"`{promise.feature}`: {promise.what}" if promise.feature else promise.what
        cells = (str(number), what, str(promise.version), promise.commit, promise.date)
        lines.append("| " + " | ".join((*cells, _links(promise.after) or why, _links(promise.before) or why)) + " |")
    return "\n".join(lines) + "\n"


def make() -> str:
    """Return the page.  Raises ValueError for a feature that is tested on one side only."""
    promises = promises_of(pages.collected())
    if complaints := one_sided(promises):
        raise ValueError("\n".join(complaints))
    return page(promises)
