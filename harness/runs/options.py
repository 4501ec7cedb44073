# SPDX-License-Identifier: BSD-2-Clause
"""The options of one run: the same for `dfly-harness run`, for pytest, and on a child's command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from harness.coverage.choice import Place
from harness.errors import UsageError
from harness.files import output_file
from harness.guests.copying import Put
from harness.guests.options import PUT, TargetOptions
from harness.guests.targets import ResolvedTarget
from harness.machine.description import Accelerator
from harness.options import PYTEST_PREFIX, Option, declare, read, words
from harness.programs.options import ProgramOptions
from harness.results.shards import Shard
from harness.runs.order import Order

#: What `run`, `compare` and `bisect` have.
PRISTINE = Option(
    "pristine", "a machine of its own for each test, in the target's warm state", flag=True, aliases=("isolate",)
)
#: What `run` and pytest both have.
OPTIONS = (
    Option(
        "oracle",
        "run on the executable specification of an era, or on a wrong variant of it: no kernel, no machine",
        "[ERA][:VARIANT]",
        bare=True,
    ),
    Option("cold", "boot from power-on instead of resuming the warm state", flag=True),
    PRISTINE,
    Option(
        "lane",
        "tests of time where waiting is free (auto, if that works), all tests (warped), none (wall: nightly)",
        default="auto",
        choices=("auto", "wall", "warped"),
    ),
    Option("function", "only tests about this function of the kernel: pgrel, kern_wait", "NAME", default=""),
    Option("shard", "only part I of N of the tests; `report --merge` puts the records together", "I/N", Shard.parse),
    Option("durations", "share tests out by how long they took in the run of RECORD (default: here)", "RECORD", Path),
    Option("order", "longest (default), written, or random:SEED: the order of the tests", "ORDER", Order.parse),
    Option("defects", "also run the tests of known defects; they may panic the kernel", flag=True),
    Option("any-era", "also run what the target's era did not promise yet", flag=True),
    Option("invariants", "look after each test whether the process table is sound", flag=True),
    Option("repeat", "run each test N times and say how often it failed", "N", int, default=1),
    Option("no-again", "do not run a test that failed once more on a pristine machine", flag=True),
    Option("record", "run failed tests again on a machine that `replay` can repeat", flag=True),
    Option(
        "hold",
        "pause the machine of a test that failed and say how to get at it",
        flag=True,
        aliases=("pdb-guest",),
    ),
    Option(
        "coverage",
        "note which lines and branches of FILES each test runs: source files and functions of the kernel, with commas"
        " between (kern_proc.c)",
        "FILES",
        bare=True,
    ),
    Option("lcov", "with --coverage: write what was run to FILE as lcov's tracefile", "FILE", output_file),
    Option("cobertura", "with --coverage: write what was run to FILE as Cobertura's XML", "FILE", output_file),
    Option("annotate", "with --coverage: show the sources in TREE, the kernel's own, on the page", "TREE", Path),
    Option(
        "touching",
        "first the tests that run this function (pgrel) or line (kern_proc.c:812-815) of the kernel, as --coverage has"
        " found (repeatable)",
        "PLACE",
        Place.parse,
        repeated=True,
    ),
    Option("map", "by what was found on KERNEL, whose lines are meant then", "KERNEL", default=""),
    Option("only", "with --touching or --changed: no other tests", flag=True),
    Option("dump-memory", "keep the memory of a kernel that died, as ELF cores", "FOLDER", Path),
    Option("json", "write the run's record to FILE", "FILE", output_file),
    Option("html", "write the run's report to FILE: one page, no network needed", "FILE", output_file),
    Option("learn-control", "write the list of what the control guest fails", flag=True),
    PUT,
)
#: What only pytest has: `run` always shows the view, and hands on what it resolved.
PYTEST_ONLY = (
    Option("live", "show workers, current tests and trouble instead of one dot for each test", flag=True),
    Option("target", "the target by content, as the harness hands it to its children", "JSON", default=""),
    Option("resume", "go on with the run that left this record", "FILE", Path),
)


@dataclass(frozen=True)
class RunOptions:
    """What a user said about a run; `oracle` None stands for a real target, and is "" for the specification."""

    target: TargetOptions
    oracle: str | None = None
    cold: bool = False
    pristine: bool = False
    lane: str = "auto"
    defects: bool = False
    any_era: bool = False
    invariants: bool = False
    repeat: int = 1
    no_again: bool = False
    record: bool = False
    hold: bool = False
    coverage: str | None = None
    lcov: Path | None = None
    cobertura: Path | None = None
    annotate: Path | None = None
    touching: tuple[Place, ...] = ()
    map: str = ""
    only: bool = False
    dump_memory: Path | None = None
    json: Path | None = None
    html: Path | None = None
    learn_control: bool = False
    live: bool = False
    resolved: ResolvedTarget | None = None
    function: str = ""
    shard: Shard | None = None
    durations: Path | None = None
    order: Order | None = None
    resume: Path | None = None
    put: tuple[Put, ...] = ()
    programs: ProgramOptions = field(default_factory=ProgramOptions)

    def __post_init__(self) -> None:
        named = self.target.image is not None or self.target.kernel is not None
        if self.target.control and named:
            raise UsageError("--control is a target of its own: leave out --image and --kernel, or leave out --control")
        if self.oracle is not None and (named or self.target.control):
            raise UsageError("--oracle needs no machine: leave out --image, --kernel and --control")
        if self.oracle is not None and (
            self.record or self.hold or self.dump_memory or self.invariants or self.pristine or self.put
        ):
            raise UsageError(
                "--record, --hold, --dump-memory, --invariants, --put and --pristine are about a machine;"
                " --oracle has none"
            )
        self._check_coverage()
        if (self.map or self.only) and not self.touching:
            raise UsageError("--map and --only say how tests are chosen: give --touching or --changed, too")
        if self.repeat < 1:
            raise UsageError("--repeat is at least 1")
        if self.cold and self.lane == "warped":
            raise UsageError("--cold boots, and kernels do not boot in the time-warped lane: leave out one of them")

    def _check_coverage(self) -> None:
        if self.coverage is None:
            if self.lcov is not None or self.cobertura is not None or self.annotate is not None:
                raise UsageError("--lcov, --cobertura and --annotate are about what --coverage notes: give that, too")
            return
        if self.oracle is not None:
            raise UsageError("--coverage is about a kernel's code; --oracle has none")
        if self.target.accelerator not in {None, Accelerator.TCG}:
            raise UsageError(
                f"--coverage takes --accelerator tcg: under {self.target.accelerator} the host's CPU runs the guest's"
                " code as it is, and nobody can note what is executed"
            )

    @staticmethod
    def declare(add: Callable[..., object], prefix: str = "") -> None:
        """Declare all options, the target's too; those of PYTEST_ONLY where PREFIX is pytest's."""
        TargetOptions.declare(add, prefix)
        declare(OPTIONS, add, prefix)
        ProgramOptions.declare(add, prefix)
        if prefix == PYTEST_PREFIX:
            declare(PYTEST_ONLY, add, prefix)

    @classmethod
    def read(cls, namespace: object, prefix: str = "") -> Self:
        """Return what a parser left in NAMESPACE; raises UsageError for what cannot be."""
        given = read(OPTIONS, namespace, prefix)
        given |= {option.field: tuple(given[option.field]) for option in OPTIONS if option.repeated}
        if prefix == PYTEST_PREFIX:
            more = read(PYTEST_ONLY, namespace, prefix)
            given |= {"live": more["live"], "resume": more["resume"]}
            given["resolved"] = ResolvedTarget.from_text(more["target"]) if more["target"] else None
        programs = ProgramOptions.read(namespace, prefix)
        return cls(TargetOptions.read(namespace, prefix), programs=programs, **given)

    def words(self, prefix: str = PYTEST_PREFIX) -> list[str]:
        """Return the command line, pytest's unless PREFIX is another, that says the same."""
        given = [*self.target.words(prefix), *words(OPTIONS, vars(self), prefix), *self.programs.words(prefix)]
        if prefix == PYTEST_PREFIX:
            resolved = self.resolved.to_text() if self.resolved is not None else ""
            only = {"live": self.live, "target": resolved, "resume": self.resume}
            given += words(PYTEST_ONLY, only, prefix)
        return given
