# SPDX-License-Identifier: BSD-2-Clause
"""What a kernel queue tells of a process it watches (kern_event.c: filt_proc(), kern_exit.c, kern_fork.c)."""

from __future__ import annotations

from errno import ESRCH

import pytest

from harness.processes import WNOHANG, RemoteProcess, fails
from harness.processes.vocabulary import EvFilter, EvFlag, Kevent, NoteFlag
from support.processes import NO_SUCH_ID, SOMEBODY, bury
from support.procfs import end
from support.sysctl import setting

pytestmark = pytest.mark.needs_kernel

NOTE_EXIT, NOTE_FORK, NOTE_EXEC, NOTE_TRACK, NOTE_CHILD = (
    NoteFlag.NOTE_EXIT,
    NoteFlag.NOTE_FORK,
    NoteFlag.NOTE_EXEC,
    NoteFlag.NOTE_TRACK,
    NoteFlag.NOTE_CHILD,
)


def only(events: list[Kevent]) -> Kevent:
    """Return the one event there is."""
    (event,) = events
    return event


@pytest.mark.passes("proc_move_allproc_zombie", "pfind")
@pytest.mark.cpus(2)
def test_whoever_hears_of_an_end_can_reap(init: RemoteProcess) -> None:
    """The event comes when there is a zombie, and brings the status (kqueue(2): NOTE_EXIT; kern_exit.c: exit1)."""
    queue = init.kqueue()
    for round_ in range(40):
        child = init.fork()
        init.watch_process(queue, child.pid, NOTE_EXIT)
        end(child, round_)
        event = only(init.kevent(queue, timeout=20.0))
        assert init.wait4(child.pid, WNOHANG).exit_status == round_
        assert (event.ident, event.filter) == (child.pid, EvFilter.EVFILT_PROC)
        assert NOTE_EXIT & event.fflags
        assert EvFlag.EV_EOF in EvFlag(event.flags)
        assert event.data == round_ << 8


@pytest.mark.passes("proc_move_allproc_zombie", "pfind")
def test_an_end_is_the_end_of_watching_whatever_was_watched_for(init: RemoteProcess) -> None:
    """EV_EOF without NOTE_EXIT for whoever did not ask for that (kern_event.c: filt_proc)."""
    queue, child = init.kqueue(), init.fork()
    init.watch_process(queue, child.pid, NOTE_FORK)
    child.exit()
    event = only(init.kevent(queue, timeout=20.0))
    assert event.fflags == 0
    assert EvFlag.EV_EOF in EvFlag(event.flags)
    assert init.kevent(queue) == []


@pytest.mark.passes("pfind")
def test_births_and_programs_are_events(init: RemoteProcess) -> None:
    """Several that came before they were asked for are one (kqueue(2): NOTE_FORK, NOTE_EXEC)."""
    queue, child = init.kqueue(), init.fork()
    init.watch_process(queue, child.pid, NOTE_FORK | NOTE_EXEC)
    assert init.kevent(queue) == []
    bury(child, child.fork(), child.fork())
    assert only(init.kevent(queue)).fflags == NOTE_FORK
    child.reexec()
    assert only(init.kevent(queue)).fflags == NOTE_EXEC
    assert init.kevent(queue) == []


@pytest.mark.passes("proc_makepid", "pfind")
def test_children_are_watched_like_their_parents_if_asked_for(init: RemoteProcess) -> None:
    """Each is announced with its parent's pid (kqueue(2): NOTE_TRACK, NOTE_CHILD; kern_event.c: filt_proc)."""
    queue, child = init.kqueue(), init.fork()
    init.watch_process(queue, child.pid, NOTE_FORK | NOTE_TRACK | NOTE_EXIT)
    grandchild = child.fork()
    events = {event.ident: event for event in init.kevent(queue, timeout=20.0)}
    assert set(events) == {child.pid, grandchild.pid}
    assert events[child.pid].fflags == NOTE_FORK
    assert (events[grandchild.pid].fflags, events[grandchild.pid].data) == (NOTE_CHILD, child.pid)
    grandchild.exit(3)
    event = only(init.kevent(queue, timeout=20.0))
    assert (event.ident, event.data) == (grandchild.pid, 3 << 8)


@pytest.mark.passes("pfind", "zpfind")
def test_nobody_is_nobody_to_watch(init: RemoteProcess) -> None:
    """ESRCH (kern_event.c: filt_procattach)."""
    with fails(ESRCH):
        init.watch_process(init.kqueue(), NO_SUCH_ID, NOTE_EXIT)


@pytest.mark.passes("pfind")
def test_a_process_outside_the_jail_is_nobody_to_watch(init: RemoteProcess) -> None:
    """It cannot be watched (kern_event.c: filt_procattach, PRISON_CHECK)."""
    jailed = init.fork()
    jailed.jail("/")
    with fails("EACCES", "ESRCH"):
        jailed.watch_process(jailed.kqueue(), init.pid, NOTE_EXIT)


@pytest.mark.passes("pfind")
@pytest.mark.defect(
    since=200000,
    severity="breach",
    reason="filt_procattach() looks at the prison, and not at security.ps_showallprocs",
    reproducer="hidden-processes.c",
)
def test_a_hidden_process_is_nobody_to_watch(init: RemoteProcess) -> None:
    """With ps_showallprocs=0 its end is nobody else's business (FreeBSD: filt_procattach, p_cansee())."""
    user = init.fork()
    user.setuid(SOMEBODY)
    with setting(init, "security.ps_showallprocs", 0), fails(ESRCH, "EACCES"):
        user.watch_process(user.kqueue(), init.pid, NOTE_EXIT)
