# SPDX-License-Identifier: BSD-2-Clause
"""The page of the oracle's rules: where each comes from, and where code, manual and POSIX differ."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Mapping
from functools import cache

from harness.oracle import VARIANTS
from harness.oracle.rules import Rules
from harness.oracle.sources import SOURCES, Source
from support import pages

_CATCHES = pages.ROOT / "suites" / "selftest" / "oracle_catches.toml"

_HEAD = """\
# Rules of the oracle

Made by `python suites/support/pages.py oracle-rules` from `harness/oracle`; do not edit.  The oracle says what the code
of DragonFly does.  Of {count} rules {posix} are also stated by POSIX, {manual} by a manual page of April 2026 and not
by POSIX; {code} are known from the code only: there a kernel that differs is another kernel, not a wrong one.
"""

_DIFFERENCES = """
## Where code, manual and POSIX differ ({count})

Kernels do what the second column says; the test shows it, or, with *defect*, fails because of it.

| rule | the kernel | who says otherwise | and says | test |
|---|---|---|---|---|
"""

_RULES = """
## All rules

A variant is an oracle that breaks the rule (`harness/oracle/variants.py`); each is caught by a test.

| rule | what it says | stated by | variants |
|---|---|---|---|
"""


@cache
def descriptions() -> Mapping[str, str]:
    """Return what each rule says: its docstring's first paragraph, or the comment above a number."""
    found = dict(re.findall(r"    #: (.+)\n    (\w+) = ", inspect.getsource(Rules)))
    told = {comment_name: text for text, comment_name in found.items()}
    for name, member in vars(Rules).items():
        if not name.startswith("__") and (text := inspect.getdoc(member.fget if _is_property(member) else member)):
            told.setdefault(name, " ".join(text.partition("\n\n")[0].split()))
    return {name: told[name] for name in rule_names()}


def _is_property(member: object) -> bool:
    return isinstance(member, property)


def rule_names() -> list[str]:
    """Return the names of all rules, in the order of rules.py."""
    return [name for name in vars(Rules) if not name.startswith("_")]


def variants_by_rule() -> dict[str, list[str]]:
    """Return the names of the variants that break each rule."""
    found: dict[str, list[str]] = {}
    for variant in VARIANTS.values():
        for member in vars(variant.rules):
            found.setdefault(member, []).append(variant.name)
    return found


def catches() -> dict[str, str]:
    """Return a test that catches each variant, in the latest era that has one of its own."""
    tables = tomllib.loads(_CATCHES.read_text())
    return {variant: test for table in tables.values() for variant, test in table.items()}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _link(test: str, prefix: str = "") -> str:
    file, _, name = test.partition("[")[0].partition("::")
    return f"{prefix}[{name.rpartition('::')[2]}](../{file})"


def shown_by(rule: str, test: str) -> str:
    """Return the link to what shows a difference.  Raises ValueError if nothing does."""
    if test:
        return _link(test, "*defect* " if test.startswith("suites/regressions/") else "")
    caught = catches()
    tests = [caught[variant] for variant in variants_by_rule().get(rule, ()) if variant in caught]
    if not tests:
        raise ValueError(f"{rule}: it differs from a page, and no variant of it is caught by a test")
    return _link(f"suites/conformance/{tests[-1]}")


def differences() -> list[tuple[str, str]]:
    """Return rule and line of the table for each difference."""
    lines = []
    for rule, source in SOURCES.items():
        for one in source.differs:
            cells = (f"`{rule}`", descriptions()[rule], one.page, one.says, shown_by(rule, one.test))
            lines.append((rule, "| " + " | ".join(map(_cell, cells)) + " |"))
    return lines


def page(sources: Mapping[str, Source], told: Mapping[str, str]) -> str:
    """Return the page in Markdown."""
    posix = sum(1 for source in sources.values() if source.posix)
    manual = sum(1 for source in sources.values() if source.manual and not source.posix)
    code = len(sources) - posix - manual
    found = [line for _, line in differences()]
    broken = variants_by_rule()
    rows = []
    for rule, text in told.items():
        cells = (f"`{rule}`", text, sources[rule].origin, ", ".join(broken.get(rule, ())))
        rows.append("| " + " | ".join(map(_cell, cells)) + " |")
    return "".join(
        (
            _HEAD.format(count=len(sources), posix=posix, manual=manual, code=code),
            _DIFFERENCES.format(count=len(found)),
            "\n".join(found),
            "\n",
            _RULES,
            "\n".join(rows),
            "\n",
        )
    )


def make() -> str:
    """Return the page.  Raises ValueError for a rule without a source, a source without a rule, a lost test."""
    names = set(rule_names())
    if wrong := names ^ SOURCES.keys():
        raise ValueError(f"harness/oracle/sources.py: rules without a source, or sources of no rule: {sorted(wrong)}")
    there = {item.nodeid.partition("[")[0] for item in pages.collected()}
    lost = [one.test for source in SOURCES.values() for one in source.differs if one.test and one.test not in there]
    if lost:
        raise ValueError(f"harness/oracle/sources.py: no such test: {', '.join(lost)}")
    return page(SOURCES, descriptions())
