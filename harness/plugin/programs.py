# SPDX-License-Identifier: BSD-2-Clause
"""Programs that nobody here wrote as tests of pytest: each of their cases is one, where they can list them.

A program that lists its cases is asked once in a guest, before the tests.  One that does not is a test by itself,
called `whole`, and what it says of its cases are further results; a case that is asked for by name runs the program
and looks at that case.  Each program begins on a pristine guest, and so does what follows a case that did not end by
itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from os import getpid
from pathlib import Path
from typing import Any

import pytest

from harness.errors import GuestDeadlineError, HarnessError, UsageError
from harness.plugin.outcome import EXPECTED
from harness.plugin.supply import GuestSupply
from harness.plugin.tested import TestedTarget
from harness.programs.cases import Case, CaseBrokenError, CaseFailedError, ExitStatus, Outcome, Reader
from harness.programs.expectations import Expectation, find, load_expectations
from harness.programs.formats import Format, format_of, judged
from harness.programs.judgement import WHOLE, Judged, judge, judge_all, name_of, vanished
from harness.programs.options import ProgramOptions
from harness.programs.program import Program
from harness.programs.running import Ending, NotStartedError, Workplace, output_file
from harness.results.record import TestResult
from harness.results.verdict import Verdict
from harness.store import Store

_LISTING_DEADLINE = 60.0  # s
_SHOWN, _WIDE = 40, 500  # lines of output on the page, and their characters
_OUTPUT = "output"
_PROCESSES = "processes in the guest"


@dataclass(frozen=True)
class Listing:
    """The names of a program's cases, and of those `cleaned` up after by a part of their own."""

    names: list[str]
    cleaned: list[str]


class Programs:
    """The programs of one pytest process, and the place in a guest that the present one has."""

    def __init__(
        self, config: pytest.Config, tested: TestedTarget, supply: GuestSupply, options: ProgramOptions, store: Store
    ) -> None:
        self._config = config
        self._tested = tested
        self._supply = supply
        self.options = options
        self.store = store
        self._files = {file.resolve(): file for file in options.files}
        self._place: Workplace | None = None
        self._program: Program | None = None
        self._folder: Path | None = None

    def collect_file(self, file: Path, parent: pytest.Collector) -> ProgramFile | None:
        """Return the collector of FILE, None unless it is one of the programs."""
        if file.resolve() not in self._files:
            return None
        return ProgramFile.from_parent(parent, path=file, programs=self)

    @property
    def has_machine(self) -> bool:
        """Whether there are guests at all: the oracle has none."""
        return self._tested.variant is None

    def expectations(self, program: Program) -> tuple[Expectation, ...]:
        """Return the known failures of PROGRAM; raises UsageError for a list that is none."""
        return load_expectations(program.file, self.options.expected)

    @property
    def osreldate(self) -> int:
        """__DragonFly_version of the target, 0 on the control guest."""
        return self._supply.osreldate

    def place(self, program: Program, *, pristine: bool = True) -> Workplace:
        """Return where PROGRAM is in a guest, carried there if need be: a PRISTINE guest, unless that is its own."""
        rig = self._supply.ready()
        if rig.guest is None or self._place is None or self._place.guest is not rig.guest:
            self._place = self._program = None
        if self._place is not None and self._program == program:
            return self._place
        program.demand(rig.target.abi)
        if pristine and not self._supply.is_unused:
            self._supply.renew()
            rig = self._supply.ready()
        assert rig.guest is not None
        self._place, self._program = None, None
        place = Workplace(rig.guest, program, self.options, self.store)
        self._place, self._program = place, program
        self._supply.use()
        return place

    def spoil(self) -> None:
        """Give the guest up: what ran in it has not ended by itself."""
        self._place = self._program = None
        self._supply.renew()

    def release(self, item: pytest.Item, following: pytest.Item | None) -> None:
        """Give the guest of a program up whose last test was ITEM: others find no traces."""
        if isinstance(item, ProgramItem) and (following is None or following.parent is not item.parent):
            self.spoil()

    def output(self, test: str) -> Path:
        """Return the file for the output of TEST."""
        if self._folder is None:
            stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S")
            self._folder = self.store.folder("results", "output") / f"{stamp}-{getpid()}"
        return output_file(self._folder, test)

    def processes(self) -> str:
        """Return the processes of the present guest, a line each; empty where it does not tell."""
        with contextlib.suppress(HarnessError, OSError):
            rows = self._supply.ready().ready().observer.sysctl.kern_proc_all()
            lines = [f"{row.pid:>7} {row.ppid:>7} {row.stat!s:<8} {row.lwp.wmesg:<10} {row.comm}" for row in rows]
            return "\n".join(["    pid    ppid state    waits for  program", *lines])
        return ""

    def listing(self, program: Program, format_: Format) -> Listing | None:
        """Return the cases that PROGRAM lists; None where it cannot, or there is no guest to ask it in."""
        if not (format_.listing and self.has_machine):
            return None
        about = ["2", program.digest, format_.name, *self.options.args, *map(str, dict(self.options.env).items())]
        key = hashlib.sha256("\0".join(about).encode()).hexdigest()[:32]
        file = self.store.cache / f"listing-{key}.json"
        with contextlib.suppress(OSError, ValueError):
            return Listing(*json.loads(file.read_text()))
        listing = self._ask(program, format_)
        if listing is not None:
            part = file.with_suffix(f".{getpid()}.part")
            part.write_text(json.dumps([listing.names, listing.cleaned]))
            part.replace(file)
        return listing

    def _ask(self, program: Program, format_: Format) -> Listing | None:
        said = io.BytesIO()
        try:
            place = self.place(program, pristine=False)
            ending = place.run([*self.options.args, *format_.listing], ExitStatus(), _LISTING_DEADLINE, said)
        except (HarnessError, CaseBrokenError, pytest.fail.Exception):
            # Its one test will meet the same, and say so.
            self._place = self._program = None
            return None
        if ending.status != 0:
            return None
        text = said.getvalue().decode(errors="replace")
        return Listing(list(dict.fromkeys(format_.listed(text))), list(format_.cleaned(text)))


class ProgramFile(pytest.File):
    """One program."""

    def __init__(self, *, programs: Programs, **given: Any) -> None:
        super().__init__(**given)
        self.programs = programs
        self.program = Program(self.path)

    def collect(self) -> Iterator[ProgramItem]:
        """Yield its cases, or itself where it does not list them."""
        programs = self.programs
        try:
            format_ = format_of(self.program, programs.options.format)
            expected = programs.expectations(self.program)
        except UsageError as error:
            raise self.CollectError(str(error)) from None
        listing = programs.listing(self.program, format_)
        if listing is None or not listing.names:
            for name in dict.fromkeys([*self._asked(), WHOLE]):
                yield self._item(name, None if name == WHOLE or not format_.listing else name, format_)
            return
        gone = vanished(self.path.name, listing.names, expected, programs.osreldate)
        for name in [*listing.names, *gone]:
            item = self._item(name_of(name), name, format_)
            item.is_gone = name in gone
            item.is_cleaned = name in listing.cleaned
            yield item

    def _item(self, name: str, case: str | None, format_: Format) -> ProgramItem:
        return ProgramItem.from_parent(self, name=name, case=case, format_=format_)

    def _asked(self) -> Iterator[str]:
        """Yield the names of cases that were asked for on the command line."""
        for word in self.config.args:
            path, separator, name = word.partition("::")
            if separator and Path(path).resolve() == self.path.resolve():
                yield name


class ProgramItem(pytest.Item):
    """A CASE of a program, by the program's own name for it; None for the whole, of which NAME may be a part."""

    #: What the target's own fixture is called: by it tests about a kernel are known.
    fixturenames = ("guest",)

    def __init__(self, *, case: str | None, format_: Format, **given: Any) -> None:
        super().__init__(**given)
        self.case = case
        self._format = format_
        self.is_gone = self.is_cleaned = False
        #: What the program said of its cases, where it ran as a whole.
        self.results: list[Judged] = []
        #: What there is to show of its last run: title and text.
        self.sections: list[tuple[str, str]] = []
        self._running = ""
        self._spoiled = False  # whether something may still run in its guest
        self.add_marker(pytest.mark.needs_kernel)

    @property
    def file(self) -> ProgramFile:
        """The program it is of."""
        assert isinstance(self.parent, ProgramFile)
        return self.parent

    def _initrequest(self) -> None:
        """Do what pytest's own tests do before they run again: it has no fixtures."""

    def reportinfo(self) -> tuple[Path, int, str]:
        """Say where it is."""
        return self.path, 0, self.name

    def setup(self) -> None:
        """Carry the program into a guest."""
        if not self.is_gone:
            self.file.programs.place(self.file.program)

    def runtest(self) -> None:
        """Run the case and raise what it came to."""
        programs, program = self.file.programs, self.file.program
        self.results, self.sections, self._running = [], [], ""
        self.user_properties[:] = [each for each in self.user_properties if each[0] != EXPECTED]
        if self.is_gone:
            raise CaseBrokenError("vanished: it is listed as failing, and the program has no such case")
        expected, osreldate = programs.expectations(program), programs.osreldate
        if self.case is not None:
            case = self._run_case(self.case, find(expected, program.file.name, self.case, osreldate))
            self._raise(judge(case, find(expected, program.file.name, self.case, osreldate)))
            return
        cases, whole = self._run_whole()
        results, all_of_it = judge_all(program.file.name, cases, whole, expected, osreldate)
        if self.name == WHOLE:
            self.results = results
            self._raise(all_of_it)
            return
        mine = next((each for each in results if each.name == self.name), None)
        if mine is None:
            raise CaseBrokenError(f"the program says nothing of a case {self.name}; it came to: {all_of_it.verdict}")
        self._raise(mine)

    def _run_case(self, name: str, expectation: Expectation | None) -> Case:
        options = self.file.programs.options
        choice = self._format.choice(name, options.deadline)
        words = [*choice, *options.args] if self._format.is_first else [*options.args, *choice]
        reader = self._format.reader(name)
        try:
            ending = self._run(words, reader)
        except GuestDeadlineError as error:
            if expectation is None:
                raise
            return Case(name, Outcome.FAILED, str(error))
        case = chosen(reader, ending, name)
        return self._clean_up(case) if self.is_cleaned else case

    def _clean_up(self, case: Case) -> Case:
        """Run the part that cleans up after CASE, where that ran; return what both came to (atf-test-case(4))."""
        words = [*self.file.programs.options.args, *self._format.cleanup(case.name)]
        try:
            ending = self._run(words, ExitStatus(), anew=False)
        except GuestDeadlineError as error:
            wrong = str(error)  # its guest goes
        else:
            wrong = "" if ending.status == 0 else str(ending)
        if not wrong or case.outcome is not Outcome.PASSED:
            return case
        return replace(case, outcome=Outcome.BROKEN, reason=f"it passed, but cleaning up after it did not: {wrong}")

    def _run_whole(self) -> tuple[list[Case], Case]:
        reader = self._format.reader("")
        try:
            ending = self._run(self.file.programs.options.args, reader)
        except BaseException:
            self._running = reader.running
            osreldate, expected = self.file.programs.osreldate, self.file.programs.expectations(self.file.program)
            name = self.path.name
            self.results = [judge(case, find(expected, name, case.name, osreldate)) for case in reader.cases]
            raise
        return judged(reader, ending.status, ending.died)

    def _run(self, words: Sequence[str], reader: Reader, *, anew: bool = True) -> Ending:
        programs = self.file.programs
        place = programs.place(self.file.program)
        file = programs.output(self.nodeid.rpartition("/")[2])
        try:
            with file.open("wb") as sink:
                return place.run(words, reader, programs.options.deadline, sink, anew=anew)
        except NotStartedError:
            if not anew:
                raise  # what is to be cleaned up is there
            programs.spoil()  # an earlier case may have filled the disk
            with file.open("wb") as sink:
                return programs.place(self.file.program).run(words, reader, programs.options.deadline, sink)
        except GuestDeadlineError:
            if told := programs.processes():
                self.sections.append((_PROCESSES, told))
            self._spoiled = True
            raise
        except BaseException:
            self._spoiled = True
            raise
        finally:
            self._show(file)

    def teardown(self) -> None:
        """Give a guest up in which something may still run."""
        if self._spoiled:
            self._spoiled = False
            self.file.programs.spoil()

    def _show(self, file: Path) -> None:
        """Let the report have the end of the output in FILE, and say where the whole of it is."""
        content = file.read_bytes()
        if not content:
            file.unlink()
            return
        count = content.count(b"\n") + (not content.endswith(b"\n"))
        lines = content[-_SHOWN * _WIDE :].decode(errors="replace").splitlines()[-_SHOWN:]
        told = [f"{count} lines, {len(content)} bytes in {file}", *(["..."] if count > len(lines) else [])]
        self.sections.append((_OUTPUT, "\n".join([*told, *(line[:_WIDE] for line in lines)])))

    def _raise(self, result: Judged) -> None:
        if result.verdict is Verdict.FAILED:
            raise CaseFailedError(result.reason)
        if result.verdict is Verdict.TEST_ERROR:
            raise CaseBrokenError(result.reason)
        if result.verdict is Verdict.KNOWN_DEFECT:
            self.user_properties.append((EXPECTED, result.defect))
        if result.verdict.is_left_out:
            raise pytest.skip.Exception(result.reason, _use_item_location=True)

    def _repr_failure_py(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return why it failed, also while it was carried in, without a traceback, which would be of ours."""
        if isinstance(excinfo.value, (CaseFailedError, CaseBrokenError, HarnessError)):
            return "\n".join(f"E   {line}" for line in str(excinfo.value).splitlines())
        return super()._repr_failure_py(excinfo, style)

    def further_results(self, own: TestResult) -> list[TestResult]:
        """Return what else there is to say, beside its OWN result: of the cases of a program that ran as a whole."""
        begin = self.file.nodeid
        found = [
            TestResult(
                f"{begin}::{each.name}",
                each.verdict,
                each.seconds,
                "\n".join(f"E   {line}" for line in each.reason.splitlines()),
                worker=own.worker,
                lane=own.lane,
            )
            for each in self.results
        ]
        if self._running and own.verdict.is_failure:
            found.append(replace(own, test=f"{begin}::{name_of(self._running)}", evidence="", again=()))
        return found


def chosen(reader: Reader, ending: Ending, name: str) -> Case:
    """Return what READER, of a program that was asked for its case NAME and ended so, has heard of that."""
    cases, whole = judged(reader, ending.status, ending.died)
    mine = [case for case in cases if case.name == name]
    if not cases and whole.outcome is Outcome.PASSED:
        return Case(name, Outcome.BROKEN, "the program says nothing of it: it has no such case")
    found = mine[0] if mine else Case(name, whole.outcome, whole.reason, sum(case.seconds for case in cases))
    if found.outcome is Outcome.PASSED and (ending.died or (ending.status and not mine)):
        return Case(name, Outcome.FAILED, str(ending), found.seconds)
    if found.outcome is Outcome.PASSED and ending.status:
        return Case(name, Outcome.FAILED, f"it passed, but the program ended with {ending}", found.seconds)
    return found
