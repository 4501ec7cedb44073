# SPDX-License-Identifier: BSD-2-Clause
"""Delta debugging: the steps that matter, by leaving out ever smaller parts of them (Zeller and Hildebrandt, 2002).

A kernel that dies is wrong whatever led to it, so that anything may be left out.  What a call comes to is wrong only as
things are: that an unprivileged process may signal another one is no defect once the step is gone by which it lost its
privileges.  There only those steps may be left out that change nothing for the processes that matter to the last call.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.reproduce.steps import Step, Story, outcome_of


def reduce_story(story: Story, shows: Callable[[Story], bool], tries: int = 200) -> Story:
    """Return a part of STORY that SHOWS what it shows, from which no single step that may go can be left out.

    The last step stays where it is what is wrong.  At most TRIES stories are tried: then what is left is returned.
    """
    size = max(1, len(story.steps) // 2)
    while True:
        shrunk = False
        start = 0
        candidates = removable(story)
        while start < len(candidates) and tries > 0:
            smaller = story.without(candidates[start : start + size])
            if smaller.steps and (story.dies or smaller.steps[-1] == story.steps[-1]):
                tries -= 1
                if shows(smaller):
                    story, shrunk = smaller, True
                    candidates = removable(story)
                    continue
            start += size
        if tries <= 0 or (size == 1 and not shrunk):
            return story
        size = max(1, size // 2)


def removable(story: Story) -> list[int]:
    """Return the numbers of the steps that may be left out without making right what is wrong."""
    if story.dies:
        return list(range(len(story.steps)))
    matter = _concerned(story)
    return [
        number
        for number, step in enumerate(story.steps[:-1])
        if is_look(step) or not ({step.child} if step.child else {step.who} | named_by(step, story)) & matter
    ]


def is_look(step: Step) -> bool:
    """Tell whether STEP changes nothing."""
    if step.name in {"kill", "killpg"}:
        return step.arguments[1:] == ("0",)
    if step.name in {"wait4", "wait6"}:
        return "WNOHANG" in step.arguments[-1] and outcome_of(step).value == 0
    return step.name.startswith("get") or step.name == "sysctl"


def named_by(step: Step, story: Story) -> set[int]:
    """Return the processes of STORY that the arguments of STEP name."""
    return step.numbers & set(story.processes)


def _concerned(story: Story) -> set[int]:
    """Return who matters to the last step: who makes it, whom it names, who made these or did something to them."""
    last = story.steps[-1]
    matter = {last.who} | named_by(last, story)
    while True:
        more = {story.parent_of(pid) for pid in matter} - {0}
        more |= {step.who for step in story.steps if not is_look(step) and named_by(step, story) & matter}
        if more <= matter:
            return matter
        matter |= more
