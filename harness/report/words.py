"""A test in words: a row reads as a sentence of its name, its case and what the test says."""

from __future__ import annotations

import re

from harness.results.record import TestResult

_NAME = re.compile(r"(?:test_)?(?P<words>[^\[]*)(?:\[(?P<case>.*)\])?", re.DOTALL)


def sentence(result: TestResult) -> str:
    """Return what RESULT is about: the test's name as words, the case in brackets, then what its description adds.

    A description that begins as the name does, or goes on where it ends, is not said twice.
    """
    found = _NAME.fullmatch(result.test.rpartition("::")[2])
    name, case = (found["words"], found["case"]) if found is not None else (result.test, None)
    words = name.replace("_", " ").strip()
    words = words[:1].upper() + words[1:]
    if case:
        words += f" [{case}]"
    said = result.behaviour.strip()
    if not said or said.rstrip(".").casefold() == words.casefold():
        return f"{words.rstrip('.')}."
    return f"{words.rstrip('.')}: {said}"
