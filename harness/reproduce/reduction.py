# SPDX-License-Identifier: BSD-2-Clause
"""Delta debugging: the steps that matter, by leaving out ever smaller parts of them (Zeller and Hildebrandt, 2002)."""

from __future__ import annotations

from collections.abc import Callable

from harness.reproduce.steps import Story


def reduce_story(story: Story, shows: Callable[[Story], bool], tries: int = 200) -> Story:
    """Return a part of STORY that SHOWS what it shows, from which no single step can be left out.

    The last step stays where it is what is wrong.  At most TRIES stories are tried: then what is left is returned.
    """
    size = max(1, len(story.steps) // 2)
    while True:
        shrunk = False
        start = 0
        while start < _removable(story) and tries > 0:
            end = min(start + size, _removable(story))
            smaller = story.without(range(start, end))
            if len(smaller.steps) < len(story.steps) and _is_whole(smaller, story):
                tries -= 1
                if shows(smaller):
                    story, shrunk = smaller, True
                    continue
            start = end
        if (size == 1 and not shrunk) or tries <= 0:
            return story
        size = size if shrunk and size == 1 else max(1, size // 2)


def _removable(story: Story) -> int:
    return len(story.steps) if story.dies else len(story.steps) - 1


def _is_whole(smaller: Story, story: Story) -> bool:
    """Tell whether SMALLER still ends with what is wrong."""
    return bool(smaller.steps) and (story.dies or smaller.steps[-1] == story.steps[-1])
