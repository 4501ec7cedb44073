# SPDX-License-Identifier: BSD-2-Clause
"""A test in words: a row reads as a sentence of its name, its case and what the test says."""

from __future__ import annotations

from harness.results.record import TestResult


def sentence(result: TestResult) -> str:
    """Return what RESULT is about: the test's name as words, the case in brackets, then what its description adds.

    A description that begins as the name does is not said twice.
    """
    name, bracket, case = result.test.partition("[")
    words = name.rpartition("::")[2].removeprefix("test_").replace("_", " ").strip()
    words = words[:1].upper() + words[1:] + (f" {bracket}{case}" if bracket else "")
    said = result.behaviour.strip()
    if not said or said.rstrip(".").casefold() == words.casefold():
        return f"{words.rstrip('.')}."
    return f"{words.rstrip('.')}: {said}"
