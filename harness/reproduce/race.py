# SPDX-License-Identifier: BSD-2-Clause
"""A race as a C program of one file: over and over, on CPUs of their own; and what a test has stated, in words."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from harness.errors import UsageError
from harness.reproduce.program import PIPES, SHARED, Writer, filled
from harness.reproduce.steps import Step, Story

#: Seconds that a program goes on for, and that it gives the calls of one round.
SECONDS, PATIENCE = 60, 5


def write_race(story: Story, title: str, name: str, expectation: str = "", stated: str = "") -> str:
    """Return STORY, some steps of which are made beside others, as a C program to be called NAME.

    Its other words are as of write_program(); STATED is the interleaving that is wrong.  Raises UsageError for a story
    of which the kernel does not die, as what a call comes to in a race may be right in another order, for one in which
    nothing is made beside anything else, and for a call whose arguments are not understood.
    """
    if not story.dies or len(story.racers) < 2:
        raise UsageError("not two processes whose calls end the kernel, made at the same time")
    return _RaceWriter(story, title, name, expectation, stated).text()


def stated_interleaving(file: Path, test: str) -> str:
    """Return what the function TEST in FILE says to its schedule, in words; empty where there is nothing to be read."""
    try:
        tree = ast.parse(file.read_text())
    except (OSError, ValueError, SyntaxError):
        return ""
    function = next((each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef) and each.name == test), None)
    calls = [each for each in ast.walk(function) if isinstance(each, ast.Call)] if function is not None else []
    calls.sort(key=lambda call: (call.lineno, call.col_offset))
    return "; ".join(words for call in calls if (words := _in_words(call)))


def _in_words(call: ast.Call) -> str:
    """Return what CALL says to a schedule, empty for another call."""
    if not (isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "schedule" and call.args):
        return ""
    who = ast.unparse(call.args[-1] if call.func.attr in {"result", "settle"} else call.args[0])
    named = {each.arg: each.value for each in call.keywords}
    point = named.get("at", named.get("reaches", call.args[1] if len(call.args) > 1 else None))
    where = str(point.value) if isinstance(point, ast.Constant) else ast.unparse(point) if point is not None else ""
    words = {
        "holding": f"{who} is held at {where}",
        "until": f"{who} comes to {where}",
        "result": f"{who} makes its call",
        "settle": f"{who} makes its call, or waits",
    }
    return words.get(call.func.attr, "")


class _RaceWriter(Writer):
    """Writes the program of a story with racers."""

    def __init__(self, story: Story, title: str, name: str, expectation: str, stated: str) -> None:
        super().__init__(story, title, name, expectation)
        self._stated = stated
        self._names[story.root] = "PARENT"
        self._racers = story.racers
        self._before = [step for step in story.steps if not step.beside]

    def _more_comment(self) -> Iterator[str]:
        *most, last = map(self._called, self._racers)
        who = f"{', '.join(most)} and {last}"
        yield from filled(
            f"It is a race: {who} make their calls at the same time, on CPUs of their own, over and over for"
            f" {SECONDS} s.  On a machine with one CPU that nothing happens says nothing.",
            " * ",
        )
        if self._stated:
            yield " *"
            yield from filled(f"The order that is wrong, as a test of the harness states it: {self._stated}.", " * ")
        yield " *"

    def _beginning(self, used: str) -> Iterator[str]:
        yield from super()._beginning(used)
        yield f"enum {{ RACERS = {len(self._racers)}, SECONDS = {SECONDS}, PATIENCE = {PATIENCE} }};"
        yield from _VARIABLES

    def _helpers(self, used: str) -> Iterator[str]:
        yield from super()._helpers(used)
        yield from _FUNCTIONS

    def _declarations(self, pid: int) -> Iterator[str]:
        yield from super()._declarations(pid)
        if pid in self._racers:
            yield f"\town_cpu({self._racers.index(pid)});"

    def _steps(self, pid: int) -> Iterator[str]:
        yield from self._in_turn(pid, self._before)
        mine = [step for step in self._story.steps if step.beside and step.who == pid]
        if not mine:
            return
        yield f"\tmeet({self._racers.index(pid)});"
        for step in mine:
            if step.name == "_exit":
                yield "\t__sync_fetch_and_add(finished, 1);"
            yield from self._plain(step)
        if mine[-1].name != "_exit":
            yield "\t__sync_fetch_and_add(finished, 1);"

    def _last(self, step: Step) -> Iterator[str]:
        yield from self._plain(step)
        yield "\t*prepared = 1;"

    def _main(self) -> Iterator[str]:
        root = self._story.root
        yield from ("", "static void", "parent(void)", "{", "\tlong began;")
        yield from self._declarations(root)
        yield f"\tpid[{self._names[root]}] = getpid();"
        yield from self._steps(root)
        yield from _AWAIT
        yield from ("\t_exit(0);", "}")
        yield from (*_MAIN, "")
        yield from SHARED
        if len({step.who for step in self._before}) > 1:
            yield from PIPES
        yield from _POINTERS
        yield from _ROUNDS


_VARIABLES = """\
static volatile int *prepared; /* all is as it is before the race */
static volatile int *ready;    /* racers that stand at its start */
static volatile int *finished; /* racers that have made their calls */
static volatile int *turns;    /* rounds */""".splitlines()
_FUNCTIONS = """
static long
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec;
}

/* Where it is not allowed, or there are fewer, nothing comes of it. */
static void
own_cpu(int number)
{
	usched_set(getpid(), USCHED_SET_CPU, &number, sizeof(number));
}

/* Wait for the others, and then longer or shorter in each round. */
static void
meet(int number)
{
	volatile unsigned wait;

	while (*prepared == 0)
		usleep(100);
	__sync_fetch_and_add(ready, 1);
	while (*ready < RACERS)
		continue;
	wait = (*turns * 7919u + number * 104729u) % 20000;
	while (wait > 0)
		wait--;
}""".splitlines()
_AWAIT = """\
	for (began = now(); now() < began + PATIENCE;) {
		if (*finished == RACERS)
			break;
		usleep(500);
	}""".splitlines()
_MAIN = """
int
main(void)
{
	long until = now() + SECONDS;
	int each, status;
""".splitlines()
_POINTERS = """\
	prepared = (volatile int *)(pid + PROCESSES);
	ready = prepared + 1;
	finished = prepared + 2;
	turns = prepared + 3;""".splitlines()
_ROUNDS = """\
	while (now() < until) {
		++*turns;
		*prepared = *ready = *finished = 0;
		for (each = 0; each < PROCESSES; each++)
			pid[each] = 0;
		if (fork() == 0)
			parent();
		wait(&status);
		for (each = 1; each < PROCESSES; each++)
			if (pid[each] > 0)
				kill(pid[each], SIGKILL);
	}
	printf("right: nothing happened in %d rounds\\n", *turns);
	return 0;
}""".splitlines()
