# SPDX-License-Identifier: BSD-2-Clause
"""The question a bisection asks: where the commits are, what is sought, how kernels are built, and on what they run.

The same question again, word for word or by `--resume`, goes on with what was observed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from harness.bisect.predicate import Bound, Predicate
from harness.bisect.repository import Range
from harness.bisect.state import key_of
from harness.errors import UsageError
from harness.guests.options import TargetOptions
from harness.kernels.build import DEFAULT_CONFIG
from harness.options import PYTEST_PREFIX, Option, declare, read, words
from harness.programs.options import ProgramOptions
from harness.runs.options import PRISTINE
from harness.runs.suite import PytestWords

COMMITS = (
    Option("source", "git repository with DragonFly's history", "REPO", Path),
    Option("good", "without the failure (repeatable)", "REV", repeated=True),
    Option("bad", "with the failure", "REV"),
    Option("path", "only commits that touch PATH (repeatable)", "PATH", repeated=True),
    Option(
        "needs",
        "what a kernel is built from (repeatable): commits that leave it alone make the same kernel, and only this is"
        " handed to the builder (default: everything)",
        "PATH",
        repeated=True,
    ),
    Option(
        "exclude",
        "what no kernel is built from (repeatable): left out of what --needs says",
        "PATH",
        repeated=True,
    ),
    Option(
        "first-parent", "only a merge's first parent is followed: what a branch brought counts as its merge", flag=True
    ),
    Option("quirks", "what old trees need (repeatable)", "FILE", Path, repeated=True),
)
BUILDING = (
    Option(
        "command",
        "build on this host with a command of yours (default: in a DragonFly guest)",
        "'CMD {source} {output}'",
        aliases=("kernel-builder",),
        attribute="build_command",
    ),
    Option("config", f"kernel configuration (default: {DEFAULT_CONFIG})", default=DEFAULT_CONFIG),
    Option("builder-image", "image to build in (default: --image's, or the newest)", "NAME"),
    Option("builder-kernel", "kernel to build under (default: the image's own)", "NAME"),
    Option("patch", "apply to every revision (repeatable)", "FILE", Path, repeated=True),
)
SOUGHT = (
    Option("panic", "a panic or hang with TEXT in its cause", "TEXT", bare=True),
    Option("failure", "only failures whose report matches REGEX", "REGEX", default=""),
    Option("bench", "that this workload of `compare --costs` crosses the bound", "NAME"),
    Option("bound", "most it may cost, in microseconds (or instructions)", "X", float),
    Option("below", "the bound is the least it may cost", flag=True),
    Option("instructions", "count instructions instead of time", flag=True),
    Option("good-means", "'fail' finds a fix: --good fails, --bad passes", default="pass", choices=("pass", "fail")),
    Option("flaky", "the failure is known not to happen each time", flag=True),
    Option(
        "any-era",
        "run the tests on kernels, too, that they are not about: finds what changed a behaviour on purpose",
        flag=True,
    ),
    PRISTINE,
)
_ALL = (*COMMITS, *BUILDING, *SOUGHT)


@dataclass(frozen=True)
class Question:
    """All that makes a bisection the one it is; `tests` are paths and options for pytest."""

    source: Path
    good: tuple[str, ...]
    bad: str
    path: tuple[str, ...]
    needs: tuple[str, ...]
    exclude: tuple[str, ...]
    first_parent: bool
    quirks: tuple[Path, ...]
    build_command: str | None
    config: str
    builder_image: str | None
    builder_kernel: str | None
    patch: tuple[Path, ...]
    panic: str | None
    failure: str
    bench: str | None
    bound: float | None
    below: bool
    instructions: bool
    good_means: str
    flaky: bool
    any_era: bool
    pristine: bool
    target: TargetOptions
    tests: tuple[str, ...]

    @staticmethod
    def declare(
        add: Callable[..., object], add_building: Callable[..., object], add_sought: Callable[..., object]
    ) -> None:
        """Declare the options in the three groups in which help shows them; `tests` is for the caller to declare."""
        declare(COMMITS, add)
        TargetOptions.declare(add)
        declare(BUILDING, add_building)
        declare(SOUGHT, add_sought)

    @classmethod
    def read(cls, namespace: object, tests: Sequence[str]) -> Self:
        """Return the question that a parser left in NAMESPACE; raises UsageError for one that cannot be asked."""
        given: dict[str, Any] = read(_ALL, namespace)
        if given["source"] is None or not given["good"] or given["bad"] is None:
            raise UsageError("a bisection needs --source REPO, --good REV and --bad REV (or --resume)")
        target = TargetOptions.read(namespace)
        if target.control or target.kernel is not None:
            raise UsageError("bisect builds the kernels it tests: leave out --kernel and --control")
        for name in ("good", "path", "needs", "exclude", "quirks", "patch"):
            given[name] = tuple(given[name])
        question = cls(**{**given, "source": given["source"].resolve()}, target=target, tests=tuple(tests))
        question.predicate()
        if question.bench is None and not question.paths:
            raise UsageError("say which tests: bisect ... -- conformance -k EXPR")
        if question.bench is not None and question.any_era:
            raise UsageError("--any-era is about tests: a benchmark runs on every kernel")
        if question.bench is not None and question.pristine:
            raise UsageError("--pristine is about tests: each reading of a benchmark has a machine of its own anyway")
        return question

    def words(self) -> tuple[str, ...]:
        """Return the command line that asks it again, from wherever."""
        values = {**vars(self), "patch": [file.resolve() for file in self.patch]}
        values |= {"quirks": [file.resolve() for file in self.quirks]}
        return (*words(_ALL, values), *self.target.words(), "--", *self.tests)

    @property
    def paths(self) -> tuple[str, ...]:
        """The tests, programs among them, without pytest's options."""
        programs, words = ProgramOptions.taken_from(self.tests)
        return (*PytestWords.split(words).tests, *map(str, programs.files))

    @property
    def pytest_options(self) -> tuple[str, ...]:
        """The options for pytest."""
        programs, words = ProgramOptions.taken_from(self.tests)
        return (*PytestWords.split(words).options, *programs.words(PYTEST_PREFIX))

    def predicate(self) -> Predicate | Bound:
        """Return what is sought; raises UsageError where that contradicts itself."""
        is_fix = self.good_means == "fail"
        if self.bench is None:
            if self.bound is not None or self.below or self.instructions:
                raise UsageError(
                    "--bound, --below and --instructions are about a benchmark: say which one (--bench NAME)"
                )
            if self.panic is not None and self.failure:
                raise UsageError("--panic and --failure exclude each other")
            return Predicate(self.panic, self.failure, is_fix)
        if self.bound is None:
            raise UsageError("--bench needs a --bound to cross")
        return Bound(self.bench, self.bound, self.below, self.instructions, is_fix)

    def key(self, scope: Range, builder: str) -> str:
        """Return the name of the bisection of SCOPE with the builder called BUILDER."""
        # Said only where it matters: bisections begun before these options were there are found again.
        more = [*(["any era"] if self.any_era else []), *([self.exclude] if self.exclude else [])]
        more += ["first parent"] if self.first_parent else []
        more += ["pristine"] if self.pristine else []
        return key_of(
            str(self.source), scope.good, scope.bad, [*self.path], [*self.needs], builder, self.config,
            self.predicate(), [*self.tests], self.flaky, [str(file) for file in self.patch],
            self.target.image, [f"{name}={value}" for name, value in self.target.kenv.items()],
            self.target.cpus, self.target.memory, *more,
        )  # fmt: skip

    def in_words(self) -> str:
        """Return what is sought, for people."""
        predicate, tests = self.predicate(), " ".join(self.tests)
        if isinstance(predicate, Bound):
            unit = "instructions" if predicate.instructions else "us"
            more = "less" if predicate.below else "more"
            sought = f"{predicate.workload} costs {more} than {predicate.limit:g} {unit}"
        elif predicate.panic is not None:
            sought = f"a panic or hang{f' with {predicate.panic!r}' if predicate.panic else ''} in {tests}"
        else:
            sought = f"a failure of {tests}" + (f" that matches {predicate.failure!r}" if predicate.failure else "")
        return f"the end of: {sought}" if self.good_means == "fail" else sought
