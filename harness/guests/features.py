# SPDX-License-Identifier: BSD-2-Clause
"""What a kernel can: its features, by the version it says it has, and by a look at it where versions do not tell.

Features come and go with changes in DragonFly's history.  `__DragonFly_version` (kern.osreldate) is raised only now and
then, so kernels before and after a change may share a version: there it is undecided until the running kernel has been
asked (harness.processes.probes).  Where the version decides, it is never overruled: a faulty kernel is not excused by
the look of its fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

from harness.errors import UsageError


@dataclass(frozen=True)
class Change:
    """A commit of DATE (ISO), and what versions say of it.

    The version is SINCE right after it; it is CERTAIN when it was raised next, after which no kernel is without the
    change.  CERTAIN 0 says that the commit raised it itself.  A release may have taken over a FIX made after its branch
    (5.8 has versions 5008xx, what follows it 5009xx).
    """

    commit: str
    date: str
    since: int
    certain: int = 0
    fix: bool = False

    def lies_before(self, osreldate: int) -> bool | None:
        """Tell whether kernels of that version have the change; None where some have and some have not."""
        series = osreldate // 100
        if self.fix and series % 2 == 0 and self.since // 100 == series + 1:
            return None
        if osreldate < self.since:
            return False
        return True if osreldate >= (self.certain or self.since) else None


@dataclass(frozen=True)
class Feature:
    """Something that kernels have from one change on (None: ever since), until another (None: to this day)."""

    name: str
    what: str
    begins: Change | None
    ends: Change | None = None

    def decided_by(self, osreldate: int) -> bool | None:
        """Tell whether kernels of that version have it; None where some have and some have not."""
        begun = True if self.begins is None else self.begins.lies_before(osreldate)
        ended = False if self.ends is None else self.ends.lies_before(osreldate)
        if begun is False or ended is True:
            return False
        return True if begun and ended is False else None

    def present_on(self, date: str) -> bool:
        """Tell whether the main branch had it on DATE."""
        begun = self.begins is None or self.begins.date <= date
        return begun and (self.ends is None or date < self.ends.date)


_PDEATHSIG = Change("acdf1ee6e0", "2020-11-15", 500901, 500902)
_SYSCAP = Change("2b3f93ea6d", "2023-10-12", 600503, 600504)

_ALL = (
    # Version 4.8 (2017) to 5.8 (2020)
    Feature("wait6", "wait6() and waitid()", Change("33b81dc963", "2018-09-30", 500316, 500317)),
    Feature(
        "login33",
        "login names of up to 32 characters, records of 992 bytes",
        Change("e2e9821d30", "2019-09-10", 500705),
    ),
    Feature("lpmap", "/dev/lpmap, a page of each thread's own", Change("64b5a8a550", "2019-11-11", 500708, 500709)),
    Feature(
        "thread_titles", "kern.proc.args.PID.TID, titles of threads", Change("e7126f0a10", "2019-11-12", 500708, 500709)
    ),
    Feature("getrandom", "getrandom() and __realpath()", Change("fa0a7960d9", "2020-02-01", 500710)),
    Feature(
        "wait_reservation",
        "several threads may wait for children at once",
        Change("f071b5e0ac", "2020-02-14", 500710, 500800),
    ),
    # Version 6.0 (2021)
    Feature(
        "getcwd_enoent",
        "ENOENT from getcwd() in a removed directory",
        Change("d6853f97de", "2020-11-01", 500901, 500902, fix=True),
    ),
    Feature("pdeathsig", "PROC_PDEATHSIG_CTL and PROC_PDEATHSIG_STATUS", _PDEATHSIG),
    Feature("signal128", "a signal of number 128", None, _PDEATHSIG),
    Feature("clock_nanosleep", "clock_nanosleep()", Change("86ccdacbb5", "2021-01-19", 500907)),
    Feature("fexecve", "fexecve()", Change("337acc4483", "2021-02-20", 500908)),
    # Version 6.2 (2022)
    Feature(
        "pathname_einval",
        "EINVAL for the program of whoever runs none",
        Change("a23ed7f524", "2021-05-19", 600100, 600101, fix=True),
    ),
    Feature("posix_fallocate", "posix_fallocate()", Change("09d96b9c7c", "2021-09-07", 600104)),
    Feature("fdatasync", "fdatasync()", Change("74fa2560ac", "2021-09-12", 600105)),
    Feature(
        "bounded_drain",
        "an exit() that does not wait for a terminal",
        Change("de22b67f22", "2021-11-29", 600106, 600107, fix=True),
    ),
    # Version 6.4 (2022)
    Feature("lwkt", "kernel threads on request only, KERN_PROC_FLAG_LWKT", Change("ec1c3f3acb", "2022-11-17", 600302)),
    # The development version after it
    Feature("syscap", "syscap_get() and syscap_set(), records of 1048 bytes", _SYSCAP),
    Feature(
        "caps_hole", "root's privileges for everybody", _SYSCAP, Change("0258b0f94e", "2026-02-06", 600516, 600517)
    ),
    Feature("procfs_exe", "/proc/PID/exe", Change("f658e60ac8", "2024-03-07", 600508, 600509)),
    Feature("futimesat", "futimesat()", Change("5af8357c50", "2024-09-11", 600509)),
    Feature(
        "sigmask_race_closed",
        "signals not lost while masks change",
        Change("bbd7e13329", "2024-11-29", 600509, 600510, fix=True),
    ),
    Feature("reap_kill", "PROC_REAP_KILL", Change("46d73a5af0", "2025-03-19", 600510)),
    Feature("clofork", "O_CLOFORK and FD_CLOFORK", Change("dcc509c885", "2025-07-09", 600512, 600513)),
    Feature(
        "bsd_ptys", "the old pseudo-terminals /dev/ptyXX", None, Change("eeb6b5e961", "2025-12-18", 600516, 600517)
    ),
    Feature(
        "size_queries",
        "lengths of kern.proc.args and cwd",
        Change("b08bfb72c8", "2026-01-11", 600516, 600517, fix=True),
    ),
)

#: All features, by name, in the order of history.
FEATURES: Mapping[str, Feature] = MappingProxyType({feature.name: feature for feature in _ALL})


@dataclass(frozen=True)
class KernelFacts:
    """What is known of one kernel: its version (0: unknown), and what it FOUND to have, or lack, when looked at.

    `record_size` is that of struct kinfo_proc in bytes, 0 if nobody has looked.
    """

    osreldate: int = 0
    record_size: int = 0
    found: Mapping[str, bool] = field(default_factory=dict)

    @classmethod
    def of_revision(cls, osreldate: int, date: str, record_size: int = 0) -> Self:
        """Return all there is to know of a revision of DragonFly's main branch of that DATE (ISO)."""
        return cls(osreldate, record_size, {name: each.present_on(date) for name, each in FEATURES.items()})

    def has(self, name: str) -> bool | None:
        """Tell whether the kernel has a feature; None where nobody can tell.  UsageError for a name that is none."""
        if (feature := FEATURES.get(name)) is None:
            raise UsageError(f"no kernel feature is called {name!r} (there are: {', '.join(FEATURES)})")
        decided = feature.decided_by(self.osreldate) if self.osreldate else None
        return decided if decided is not None else self.found.get(name)

    @property
    def undecided(self) -> tuple[str, ...]:
        """The features of which neither version nor look tells."""
        return tuple(name for name in FEATURES if self.has(name) is None)

    def lacks(self, conditions: Iterable[str]) -> str | None:
        """Say which of CONDITIONS ("syscap", "!lwkt") does not hold, and why; None where all do.

        One that cannot be told does not hold either.  Raises UsageError for a name that is no feature's.
        """
        for condition in conditions:
            name = condition.removeprefix("!")
            wanted = name == condition
            present = self.has(name)
            if present is None:
                return f"nobody can tell whether a kernel of version {self.osreldate or 'unknown'} has {_named(name)}"
            if present is not wanted:
                return f"this kernel has {'no ' if wanted else ''}{_named(name)}"
        return None

    def settles(self, conditions: Iterable[str]) -> bool:
        """Tell whether for each of CONDITIONS is known whether it holds."""
        return all(self.has(condition.removeprefix("!")) is not None for condition in conditions)

    def summary(self) -> str:
        """Return one line for reports: version, size of the record, features by name; a question mark where unknown."""
        if not self.osreldate:
            return "version unknown"
        size = f", records of {self.record_size} bytes" if self.record_size else ""
        names = [name if has else f"{name}?" for name in FEATURES if (has := self.has(name)) is not False]
        return f"{self.osreldate}{size}: {' '.join(names) or 'none of the known features'}"


def _named(name: str) -> str:
    return f"{name} ({FEATURES[name].what})"
