# SPDX-License-Identifier: BSD-2-Clause
"""Which tests are about a kernel: the marks eras, feature and defect against what is known of it.

    @pytest.mark.feature("syscap")                      # kernels that have it; of others the test is not applicable
    @pytest.mark.feature("!lwkt", reason="...")         # kernels that lack it; several conditions must all hold
    @pytest.mark.eras(since=500317, until=600302, reason="...")
    @pytest.mark.defect(since=..., until=..., feature="caps_hole", severity="...", reason="...")

Names are those of harness.guests.features.  What a version does not tell is decided when the guest is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from harness.guests.features import KernelFacts

MARKERS = (
    "eras(since, until, reason): __DragonFly_version range in which the promise is made",
    "feature(*conditions, reason): features the kernel must have, or with `!` before the name lack, for the promise",
    "defect(since, until, feature, severity, reason, reproducer, introduced): demonstrates a known defect of such"
    " kernels, where only --defects runs it; reproducer is a file of suites/reproducers that shows it, too; introduced"
    " the commit that is proved to have brought it",
)
# Fixtures that stand for the target: tests without them are not about a kernel.
_TARGET_FIXTURES = {"init", "rig", "guest", "hub", "fresh_guest"}


def fixtures_of(item: pytest.Item) -> set[str]:
    """Return the names of the fixtures ITEM uses."""
    return set(getattr(item, "fixturenames", ()))


def needs_target(item: pytest.Item) -> bool:
    """Tell whether ITEM is about a kernel."""
    return bool(_TARGET_FIXTURES & fixtures_of(item))


def in_era(osreldate: int, era: Mapping[str, Any]) -> bool:
    """Tell whether a kernel's __DragonFly_version lies in [since, until)."""
    return bool(era.get("since", 0) <= osreldate < era.get("until", 1 << 62))


def is_settled(item: pytest.Item, facts: KernelFacts) -> bool:
    """Tell whether FACTS suffice to say if the test is about the kernel."""
    marks = [mark for name in ("eras", "defect", "cpus") for mark in item.iter_markers(name)]
    bounded = any({"since", "until"} & mark.kwargs.keys() for mark in marks)
    conditions = [condition for mark in item.iter_markers("feature") for condition in mark.args]
    for mark in item.iter_markers("defect"):
        conditions += _conditions(mark.kwargs)
    return (bool(facts.osreldate) or not bounded) and facts.settles(conditions)


def inapplicable(item: pytest.Item, facts: KernelFacts) -> str | None:
    """Say why the test is not about the kernel, None if it is.  Raises UsageError for an unknown feature."""
    version = facts.osreldate or "a kernel of unknown version"
    for era in item.iter_markers("eras"):
        if not in_era(facts.osreldate, era.kwargs):
            return f"not applicable to {version}: {era.kwargs.get('reason') or era.kwargs}"
    for mark in item.iter_markers("feature"):
        if (lack := facts.lacks(mark.args)) is not None:
            why = f" ({mark.kwargs['reason']})" if mark.kwargs.get("reason") else ""
            return f"not applicable to {version}: {lack}{why}"
    return None


def shown_defect(item: pytest.Item, facts: KernelFacts | None) -> str | None:
    """Return the known defect that the test shows on this kernel; None where it has none, or has it no more."""
    mark = item.get_closest_marker("defect")
    if mark is None:
        return None
    if facts is None:  # Linux has the defects of no era
        return str(mark.kwargs.get("reason", "")) if in_era(0, mark.kwargs) else None
    if facts.osreldate and not in_era(facts.osreldate, mark.kwargs):
        return None
    if facts.lacks(_conditions(mark.kwargs)) is not None:
        return None
    return str(mark.kwargs.get("reason", ""))


def may_show_defect(item: pytest.Item, facts: KernelFacts | None) -> bool:
    """Tell whether the kernel has the known defect that the test shows, or may have it: others hold to the promise."""
    if item.get_closest_marker("defect") is None:
        return False
    return facts is None or not is_settled(item, facts) or shown_defect(item, facts) is not None


def _conditions(defect: Mapping[str, Any]) -> Iterable[str]:
    given = defect.get("feature", ())
    return (given,) if isinstance(given, str) else tuple(given)
