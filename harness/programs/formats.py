# SPDX-License-Identifier: BSD-2-Clause
"""The formats in which programs say what came of their cases, and how each is asked for its cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from harness.programs import atf, gtest, libtest
from harness.programs.cases import ENDED, Case, ExitStatus, Outcome, PosixStatus, Reader
from harness.programs.go import Go, GoJson
from harness.programs.junit import JUnit
from harness.programs.lines import Ltp, Pytest
from harness.programs.program import Program
from harness.programs.tap import Tap


@dataclass(frozen=True)
class Format:
    """A format.

    `signs` are texts of which a program that speaks it contains one; `listing` are the arguments with which it lists
    its cases, which `listed` reads; `choice` are those with which it runs one case within so many seconds.  Programs
    without a `listing` run as a whole.  `cleaned` reads from the listing which cases have a part that cleans up, and
    `cleanup` are the arguments with which that is run.
    """

    name: str
    reader: Callable[[str], Reader]
    signs: tuple[bytes, ...] = ()
    listing: tuple[str, ...] = ()
    listed: Callable[[str], Sequence[str]] = lambda _: ()
    choice: Callable[[str, float], tuple[str, ...]] = lambda _case, _seconds: ()
    cleaned: Callable[[str], Sequence[str]] = lambda _: ()
    cleanup: Callable[[str], tuple[str, ...]] = lambda _case: ()
    is_first: bool = False  # whether its arguments come before the user's


def _go_listed(text: str) -> Sequence[str]:
    words = ("Test", "Example", "Fuzz")
    return [line for line in text.splitlines() if line.startswith(words) and line.isidentifier()]


def _go_choice(case: str, seconds: float) -> tuple[str, ...]:
    # Its own deadline comes first: what all goroutines do then is more than anybody outside can say.
    return "-test.v", f"-test.run=^{case}$", f"-test.timeout={0.9 * seconds:.0f}s"


_ENOUGH = 10_000  # lines


class _Any(Reader):
    """Reads a program of which nothing is known, in whatever it turns out to speak."""

    def __init__(self) -> None:
        super().__init__()
        self._readers: list[Reader] = [
            Tap(), Ltp(), Go(), GoJson(), gtest.GoogleTest(), libtest.Libtest(), libtest.LibtestJson(), Pytest(),
            atf.Kyua(), JUnit(),
        ]  # fmt: skip
        self._status = ExitStatus()
        self._lines = 0

    def feed(self, line: str) -> None:
        self._status.feed(line)
        self._lines += 1
        if self._lines == _ENOUGH:  # whoever has recognised nothing so far will not
            self._readers = [each for each in self._readers if each.is_sure] or self._readers[:1]
        if self._lines > _ENOUGH and not self._readers[0].is_sure:
            return
        for reader in self._readers:
            reader.feed(line)
        best = self._best()
        self.cases, self.running = best.cases, best.running

    def finish(self) -> None:
        for reader in self._readers:
            reader.finish()
        self.cases, self.running = self._best().cases, ""

    def _best(self) -> Reader:
        return max(self._readers, key=lambda reader: (reader.is_sure, len(reader.cases)))

    @property
    def complaint(self) -> str:
        best = self._best()
        return best.complaint if best.is_sure else ""

    @property
    def last_words(self) -> str:
        return "" if self._best().is_sure else self._status.last_words


FORMATS = (
    Format("go", lambda _: Go(), (b"test.testlogfile",), ("-test.list=.",), _go_listed, _go_choice, is_first=True),
    Format("go-json", lambda _: GoJson()),
    Format(
        "gtest",
        lambda _: gtest.GoogleTest(),
        (b"gtest_list_tests",),
        ("--gtest_list_tests",),
        gtest.listed,
        lambda case, _: (f"--gtest_filter={case}", "--gtest_color=no"),
        is_first=True,
    ),
    Format(
        "libtest",
        lambda _: libtest.Libtest(),
        (b"RUST_TEST_THREADS",),
        ("--list", "--format=pretty"),
        libtest.listed,
        lambda case, _: (case, "--exact", "--format=pretty", "--color=never"),
        is_first=True,
    ),
    Format(
        "libtest-json",
        lambda _: libtest.LibtestJson(),
        (),
        ("--list", "--format=pretty"),
        libtest.listed,
        lambda case, _: (case, "--exact", "-Z", "unstable-options", "--format=json"),
        is_first=True,
    ),
    Format(
        "atf",
        atf.Atf,
        (b"application/X-atf-tp", b"atf-sh\n"),
        ("-l",),
        lambda text: list(atf.listed(text)),
        lambda case, _: (case,),
        lambda text: [name for name, cleans in atf.listed(text).items() if cleans],
        lambda case: (f"{case}:cleanup",),
    ),
    Format("tap", lambda _: Tap()),
    Format("ktap", lambda _: Tap()),
    Format("ltp", lambda _: Ltp()),
    Format("pytest", lambda _: Pytest()),
    Format("kyua", lambda _: atf.Kyua()),
    Format("junit", lambda _: JUnit()),
    Format("posix", lambda _: PosixStatus()),
    Format("exit", lambda _: ExitStatus()),
)
_BY_NAME = {each.name: each for each in FORMATS}
_UNKNOWN = Format("auto", lambda _: _Any())
NAMES = (_UNKNOWN.name, *_BY_NAME)


def format_of(program: Program, name: str = "auto") -> Format:
    """Return the format called NAME; with `auto` what the program's content says, or its output will."""
    if name != _UNKNOWN.name:
        return _BY_NAME[name]
    content = program.content
    for each in FORMATS:
        if any(sign in content for sign in each.signs):
            return each
    return _UNKNOWN


def judged(reader: Reader, status: int | None, died: str) -> tuple[list[Case], Case]:
    """Return the cases that READER has read to the end, and what the program came to as a whole.

    It ended with exit STATUS, or None if it DIED otherwise, in words.
    """
    reader.finish()
    ended = died or f"exit status {status}"
    told = (replace(each, reason=f"{ENDED}: {ended}") if each.reason == ENDED else each for each in reader.cases)
    cases = _unlike(list(told))
    failed = [case for case in cases if case.outcome is Outcome.FAILED]
    broken = [case for case in cases if case.outcome is Outcome.BROKEN]
    why = ": ".join(filter(None, (died or (f"exit status {status}" if status else ""), reader.last_words)))
    if failed or broken:
        worst = failed or broken
        shown = ", ".join(case.name for case in worst[:5]) + (" ..." if len(worst) > 5 else "")
        kind = Outcome.FAILED if failed else Outcome.BROKEN
        return cases, Case("", kind, f"{len(worst)} of {len(cases)} {kind}: {shown}")
    if reader.complaint or died:
        return cases, Case("", Outcome.FAILED, "; ".join(dict.fromkeys(filter(None, (reader.complaint, why)))))
    if status and not cases and (meant := reader.statuses.get(status)) is not None:
        return cases, Case("", meant, why)
    if status and not (cases and status == _LTP_CONF and all(case.outcome is Outcome.SKIPPED for case in cases)):
        return cases, Case("", Outcome.FAILED, why)
    if cases and all(case.outcome is Outcome.SKIPPED for case in cases):
        return cases, Case("", Outcome.SKIPPED, cases[0].reason or "all its cases were skipped")
    return cases, Case("", Outcome.PASSED)


_LTP_CONF = 32  # what LTP ends with that has nothing to test here (tst_res_flags.h: TCONF)


def _unlike(cases: Sequence[Case]) -> list[Case]:
    """Return CASES with a number behind names that are there more than once."""
    seen: dict[str, int] = {}
    named = []
    for case in cases:
        seen[case.name] = seen.get(case.name, 0) + 1
        name = case.name if seen[case.name] == 1 else f"{case.name} #{seen[case.name]}"
        named.append(replace(case, name=name))
    return named
