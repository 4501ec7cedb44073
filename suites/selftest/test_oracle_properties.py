# SPDX-License-Identifier: BSD-2-Clause
"""Whatever happens, the oracle's books balance; and two worlds in lockstep are told apart if one of them is wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from harness.config import share
from harness.oracle import DEFAULT_ERA, ERAS, Oracle, make_oracle
from harness.oracle.kernel import Kernel
from harness.oracle.lockstep import DisagreementError, Lockstep, OracleWorld
from harness.oracle.traces import OPERATIONS, Step, load_trace, save_trace, steps
from harness.processes.kinfo import ProcFlag, ProcStat

TRACES = sorted((share() / "suites" / "lockstep" / "traces").glob("*.json"))


class Watched(OracleWorld):
    """An oracle whose books are checked whenever somebody looks at its table."""

    def __init__(self, oracle: Oracle) -> None:
        super().__init__(oracle, "its twin")
        self._kernel = oracle.kernel

    def table(self):  # type: ignore[no-untyped-def]
        """Check the books; return the process table."""
        check_processes(self._kernel)
        check_groups_and_sessions(self._kernel)
        check_reapers(self._kernel)
        check_terminals(self._kernel)
        return super().table()


def check_processes(k: Kernel) -> None:
    """Parents and children agree, and nobody is left with something to do."""
    for pid, proc in k.procs.items():
        assert proc.pid == pid
        assert (proc.parent is None) == (pid == 0)
        if proc.parent is not None:
            assert proc.parent.children.count(proc) == 1
        assert not (proc.is_zombie and (proc.children or proc.pending or proc.lwp.notified or proc.lwp.calls))
        assert [lwp.tid for lwp in proc.lwps] == sorted({lwp.tid for lwp in proc.lwps})
        assert all(lwp.proc is proc for lwp in proc.lwps)
        assert len(proc.lwps) == 1 if proc.is_zombie else proc.lwps
        assert proc.holds >= proc.waits_for_holders
        assert not (proc.reaps_itself and any(child.is_zombie for child in proc.children))
        assert (proc.is_zombie or proc.waits_for_holders) == bool(proc.flags & ProcFlag.P_WEXIT)
        for lwp in proc.lwps:
            if proc.stat is ProcStat.SACTIVE and lwp.waits_for_vfork is None and not proc.flags & ProcFlag.P_PPWAIT:
                assert not lwp.waiting - lwp.mask
            assert (lwp.waits_for_vfork is None) or lwp.waits_for_vfork.flags & ProcFlag.P_PPWAIT
    assert sum(len(proc.children) for proc in k.procs.values()) == len(k.procs) - 1


def check_groups_and_sessions(k: Kernel) -> None:
    """Each process is in one group, each group has its members as references, each session its groups."""
    for pgid, group in k.groups.items():
        assert group.pgid == pgid
        holders = sum(1 for terminal in k.terminals if terminal.group is group)
        assert group.members or holders
        assert group.references == len(group.members) + holders
        assert all(member.pgrp is group for member in group.members)
        assert k.sessions[group.session.sid] is group.session
    assert Counter(member.pid for group in k.groups.values() for member in group.members) == Counter(k.procs.keys())
    references = Counter(group.session.sid for group in k.groups.values())
    assert references == {sid: session.references for sid, session in k.sessions.items()}
    for session in k.sessions.values():
        assert session.leader is None or session.leader.session is session


def check_terminals(k: Kernel) -> None:
    """Terminals and sessions know each other, and what is open of them somebody has open."""
    opened = Counter(id(file) for proc in k.procs.values() for file in proc.files.values())
    for terminal in k.terminals:
        assert all(opened[id(file)] + 1 >= file.references >= opened[id(file)] for file in terminal.files)
        assert terminal.session is None or terminal.session.terminal is terminal
        assert terminal.group is None or k.groups[terminal.group.pgid] is terminal.group
        assert (terminal.group is None) or terminal.is_open
    assert not any(proc.files for proc in k.procs.values() if proc.is_zombie)
    assert all(session.terminal is not None for session in k.sessions.values() if session.has_terminal)


def check_reapers(k: Kernel) -> None:
    """Each reaper is referenced by its owner, by those who would be adopted, and by the reapers below."""
    living = [proc for proc in k.procs.values() if proc.reaper is not None]
    for proc in living:
        reaper = proc.reaper
        assert reaper is not None
        if reaper.proc is not None:
            assert reaper.proc.reaper is reaper
            assert not reaper.proc.is_zombie


@pytest.mark.parametrize("era", ["2017", "2020", "2026"])
def test_the_books_balance_after_every_call(era: str) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(steps(ERAS[era].traits, max_size=60))
    def balance(trace: list[Step]) -> None:
        Lockstep(make_oracle(era), Watched(make_oracle(era, seed=1))).run(trace)

    balance()


def disagreement(variant: str, *phases: Phase, at_least: int = 20) -> DisagreementError:
    """Return how the oracle and a wrong variant are found to disagree; shrunk, if that is among the phases."""
    found: list[DisagreementError] = []

    @seed(7)
    @settings(
        max_examples=300,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=phases,
        report_multiple_bugs=False,
    )
    @given(steps(DEFAULT_ERA.traits, min_size=at_least, max_size=40))
    def agree(trace: list[Step]) -> None:
        try:
            Lockstep(make_oracle(), OracleWorld(make_oracle(variant), "the wrong oracle")).run(trace)
        except DisagreementError as error:
            found.append(error)
            raise

    with pytest.raises(DisagreementError):
        agree()
    return found[-1]


@pytest.mark.parametrize(
    "variant",
    [
        "zombies-found",
        "children-not-adjusted",
        "wait-by-group-is-any",
        "exit-not-counted",
        "zombie-pid-handed-out",
        "threads-uncounted",
        "daemons-keep-their-terminal",
        "terminals-outlive-their-leader",
    ],
)
def test_lockstep_finds_a_wrong_world(variant: str) -> None:
    assert "the wrong oracle" in disagreement(variant, Phase.generate).what


def test_a_disagreement_is_shrunk_to_a_few_calls() -> None:
    """A child is born, and ends."""
    assert len(disagreement("zombies-leave-their-group", Phase.generate, Phase.shrink, at_least=0).log) <= 4


def test_every_operation_can_be_taken() -> None:
    lockstep = Lockstep(make_oracle("2026"), OracleWorld(make_oracle("2026"), "its twin"))
    for operation in OPERATIONS:
        lockstep.step(Step("fork"))
        lockstep.step(Step(operation, 1, 3, 5, 7))
    assert lockstep.calls > len(OPERATIONS)


def test_a_disagreement_tells_what_had_happened() -> None:
    lockstep = Lockstep(make_oracle(), OracleWorld(make_oracle("zombies-found"), "the wrong oracle"))
    lockstep.run([Step("fork"), Step("exit", 1, 4)])
    with pytest.raises(DisagreementError) as disagreement:
        lockstep.step(Step("getpgid", 0, 2))
    assert disagreement.value.log[-3:] == ("P0.fork() -> P1", "P1.exit(204)", "P0.getpgid(P1) -> ESRCH")
    assert disagreement.value.what == "getpgid(P1): the oracle says ESRCH, the wrong oracle P0"


def test_a_trace_survives_being_stored(tmp_path: Path) -> None:
    trace = [Step("fork"), Step("kill", 1, 2, 3, 4)]
    save_trace(tmp_path / "trace.json", "why it is kept", trace)
    assert load_trace(tmp_path / "trace.json") == ("why it is kept", trace)


@pytest.mark.parametrize("file", TRACES, ids=lambda file: file.stem)
def test_a_kept_trace_is_the_specification_s_own_story(file: Path) -> None:
    """Each was once a disagreement; the oracle has learnt it, and the suite of the kernel replays it."""
    why, trace = load_trace(file)
    assert why
    lockstep = Lockstep(make_oracle(), Watched(make_oracle(seed=1)))
    lockstep.run(trace)
    assert lockstep.calls > 1
