# SPDX-License-Identifier: BSD-2-Clause
"""Driven processes, tried out on this host: the executor for the Linux ABI at the other end of two pipes."""

from __future__ import annotations

import inspect
import os
import pydoc
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, SIGUSR1

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

from harness.errors import DeadlineError, GuestLostError, HarnessError
from harness.processes import (
    ABIS,
    LINUX,
    WCONTINUED,
    WEXITED,
    WNOHANG,
    WNOWAIT,
    WUNTRACED,
    Abi,
    Buffer,
    GuestError,
    Handler,
    Hub,
    IdType,
    Process,
    ProcessGone,
    ProcessStopped,
    RemoteProcess,
    RemoteThread,
    Resource,
    RforkFlag,
    build_executor,
    fails,
    local_transport,
)
from harness.processes.calls import SystemCall
from harness.processes.local import can_run_locally, local_hub

pytestmark = pytest.mark.skipif(not can_run_locally(), reason="needs x86_64 Linux")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with local_hub(tmp_path_factory.mktemp("cache")) as hub:
        yield hub


@pytest.fixture
def init(hub: Hub) -> Iterator[RemoteProcess]:
    yield hub.spawn()
    hub.kill_all()


def process_exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def as_process(process: RemoteProcess) -> Process:
    """For the type checker: a driven process is what conformance tests ask for."""
    return process


# ---- identity ----


def test_a_fresh_process_is_a_child_of_the_hub_and_leads_its_session(hub: Hub, init: RemoteProcess) -> None:
    assert init.getpid() == init.pid
    assert init.getppid() == hub.pid
    assert init.getsid() == init.getpgrp() == init.getpgid(init.pid) == init.pid


def test_a_fresh_process_has_no_open_files_and_no_signals_pending_or_blocked(init: RemoteProcess) -> None:
    assert init.open("/dev/null") == 0
    assert init.sigpending() == frozenset()
    assert init.sigprocmask() == frozenset()
    assert sorted(os.listdir(f"/proc/{init.pid}/fd")) == ["0", "20"]


def test_two_processes_are_driven_independently(hub: Hub, init: RemoteProcess) -> None:
    other = hub.spawn()
    assert other.pid != init.pid
    assert [p.getpid() for p in (init, other, init, other)] == [init.pid, other.pid, init.pid, other.pid]


# ---- fork, exit, wait ----


def test_fork_exit_and_wait(init: RemoteProcess) -> None:
    child = init.fork()
    assert child.getpid() == child.pid
    assert child.getppid() == init.pid
    child.exit(7)
    result = init.wait4(child.pid)
    assert (result.pid, result.exit_status, result.signal, result.stop_signal) == (child.pid, 7, None, None)
    assert not process_exists(child.pid)


def test_exit_returns_when_the_process_is_a_zombie(init: RemoteProcess) -> None:
    for _ in range(20):
        child = init.fork()
        child.exit()
        assert Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        assert init.wait4().pid == child.pid


def test_descriptors_of_a_child_are_its_own(init: RemoteProcess) -> None:
    child = init.fork()
    assert child.open("/dev/null") == 0
    with fails("EBADF"):
        init.close(0)
    assert sorted(os.listdir(f"/proc/{child.pid}/fd"), key=int)[1:] == ["21"], "a child keeps no channel but its own"


def test_a_long_line_of_descendants(init: RemoteProcess) -> None:
    line = [init]
    for _ in range(30):
        line.append(line[-1].fork())
    assert [p.getppid() for p in line[1:]] == [p.pid for p in line[:-1]]
    for parent, child in zip(reversed(line[:-1]), reversed(line[1:]), strict=True):
        child.exit(3)
        assert parent.wait4().exit_status == 3


def test_a_hundred_children_at_once(init: RemoteProcess) -> None:
    children = [pending.result() for pending in [init.start.fork() for _ in range(100)]]
    assert len({child.pid for child in children}) == 100
    answers = [child.start.getpid() for child in children]
    assert [answer.result() for answer in answers] == [child.pid for child in children]
    for child in children:
        child.start.exit(1)
    assert {init.wait4().pid for _ in children} == {child.pid for child in children}
    with fails("ECHILD"):
        init.wait4()


def test_wnohang_with_nothing_to_report(init: RemoteProcess) -> None:
    child = init.fork()
    result = init.wait4(-1, WNOHANG)
    assert (result.pid, result.status, result.exit_status) == (0, None, None)
    child.exit()
    assert init.wait4(-1, WNOHANG).pid == child.pid


def test_a_killed_child(init: RemoteProcess) -> None:
    child = init.fork()
    init.kill(child.pid, SIGKILL)
    result = init.wait4()
    assert (result.signal, result.exit_status) == (SIGKILL, None)
    child.await_gone()
    with pytest.raises(ProcessGone, match=rf"getpid\(\): process {child.pid} is gone"):
        child.getpid()


def test_stop_and_continue_are_reported(init: RemoteProcess) -> None:
    child = init.fork()
    init.kill(child.pid, SIGSTOP)
    assert init.wait4(child.pid, WUNTRACED).stop_signal == SIGSTOP
    init.kill(child.pid, SIGCONT)
    assert init.wait4(child.pid, WCONTINUED).continued
    assert child.getpid() == child.pid


def test_wait6(init: RemoteProcess) -> None:
    child = init.fork()
    child.exit(9)
    seen = init.wait6(IdType.P_PID, child.pid, WEXITED | WNOWAIT)
    reaped = init.wait6(IdType.P_ALL, 0, WEXITED)
    assert (seen.pid, seen.exit_status, reaped.pid, reaped.exit_status) == (child.pid, 9, child.pid, 9)
    assert reaped.siginfo is not None
    assert (reaped.siginfo.pid, reaped.siginfo.status) == (child.pid, 9)


def test_vfork_blocks_the_parent_until_the_child_has_ended(init: RemoteProcess) -> None:
    child = init.vfork()
    parents = init.start.getpid()
    assert child.getppid() == init.pid
    assert child.getpid() == child.pid
    assert not parents.done
    child.exit(4)
    assert parents.result() == init.pid
    assert init.wait4().exit_status == 4


def test_vfork_ends_with_another_program(init: RemoteProcess) -> None:
    child = init.vfork()
    parents = init.start.getpid()
    child.execve("/bin/sh", ["sh", "-c", "exit 5"])
    assert parents.result() == init.pid
    assert init.wait4(child.pid).exit_status == 5


def test_an_end_is_noticed_though_a_stopped_process_has_the_channel_open(init: RemoteProcess) -> None:
    parent = init.fork()
    child = parent.vfork()
    child.kill(parent.pid, SIGSTOP)
    child.reexec()
    with pytest.raises(ProcessGone):
        child.kill(child.pid, SIGKILL)
    assert child.gone
    init.kill(parent.pid, SIGCONT)
    assert parent.wait4(child.pid).signal == SIGKILL


def test_the_child_of_a_vfork_leaves_the_parents_state_alone(init: RemoteProcess) -> None:
    init.sigaction(SIGUSR1, Handler.LOG)
    child = init.vfork()
    child.kill(child.pid, SIGUSR1)
    assert [record.signal for record in child.signals()] == [SIGUSR1]
    child.exit()
    assert init.signals() == []
    assert init.sigaction_query(SIGUSR1).handler is Handler.LOG


def test_vfork_exit(init: RemoteProcess) -> None:
    pid = init.vfork_exit(6)
    result = init.wait4()
    assert (result.pid, result.exit_status) == (pid, 6)


def test_execve_ends_the_driving(init: RemoteProcess) -> None:
    child = init.fork()
    child.execve("/bin/sh", ["sh", "-c", 'exit "$STATUS"'], {"STATUS": "33"})
    with pytest.raises(ProcessGone):
        child.getpid()
    assert init.wait4(child.pid).exit_status == 33


def test_a_failing_execve_leaves_the_process_as_it_was(init: RemoteProcess) -> None:
    with fails("ENOENT"):
        init.execve("/no/such/program")
    assert init.getpid() == init.pid


def test_reexec_keeps_the_process_driven(init: RemoteProcess) -> None:
    child = init.fork()
    child.sigaction(SIGUSR1, Handler.LOG)
    before = Path(f"/proc/{child.pid}/cmdline").read_bytes()
    child.reexec()
    assert child.getpid() == child.pid
    assert Path(f"/proc/{child.pid}/cmdline").read_bytes() != before
    grandchild = child.fork()
    assert grandchild.getppid() == child.pid


# ---- threads ----


def test_a_thread_makes_calls_of_its_own(init: RemoteProcess) -> None:
    thread = init.thread()
    assert thread.getpid() == init.pid
    assert thread.gettid() == thread.tid != init.gettid()
    waiting = thread.start.wait4()
    with fails("ECHILD"):
        waiting.result()
    child = init.fork()
    waiting = thread.start.wait4()
    assert init.getpid() == init.pid, "the process answers while its thread waits"
    assert not waiting.done
    child.exit(2)
    assert waiting.result().exit_status == 2


def test_the_end_of_a_call_is_awaited_no_longer_than_is_said(init: RemoteProcess) -> None:
    reading, writing = init.pipe()
    waiter = init.fork()
    waiting = waiter.start.read(reading, 1)
    assert not waiting.done_within(0.05)
    init.write(writing, b"x")
    assert waiting.done_within(20.0)
    assert waiting.result() == b"x"


def test_a_thread_ends_without_its_process(init: RemoteProcess) -> None:
    threads = [init.thread() for _ in range(5)]
    assert len({thread.tid for thread in threads}) == 5
    threads[2].exit()
    threads[2].await_gone()
    with pytest.raises(ProcessGone):
        threads[2].gettid()
    assert [t.getpid() for t in (*threads[:2], *threads[3:])] == [init.pid] * 4


def test_a_thread_forks(init: RemoteProcess) -> None:
    thread = init.thread()
    child = thread.fork()
    assert (child.getpid(), child.getppid()) == (child.pid, init.pid)
    assert child.gettid() == child.pid
    child.exit()
    assert init.wait4().pid == child.pid


def test_threads_end_with_their_process(init: RemoteProcess) -> None:
    child = init.fork()
    thread = child.thread()
    child.exit(8)
    thread.await_gone()
    assert init.wait4().exit_status == 8


# ---- errors ----


def test_a_failure_names_the_call_its_arguments_and_the_errno(init: RemoteProcess) -> None:
    with pytest.raises(GuestError) as caught:
        init.setpgid(1, 0)
    assert str(caught.value) == "setpgid(1, 0): ESRCH"
    assert caught.value.errno == 3


def test_fails_insists(init: RemoteProcess) -> None:
    with fails("EPERM", "ESRCH") as failure:
        init.setpgid(1, 0)
    assert failure.error.name == "ESRCH"
    with pytest.raises(AssertionError, match="failed with ESRCH, not EPERM"), fails("EPERM"):
        init.setpgid(1, 0)
    with pytest.raises(AssertionError, match="succeeded instead of failing with EPERM"), fails(1):
        init.getpid()


def test_calls_without_counterpart_say_so(init: RemoteProcess) -> None:
    for call in (
        init.getlogin,
        lambda: init.setlogin("root"),
        lambda: init.revoke("/dev/null"),
        lambda: init.rfork(RforkFlag.RFPROC | RforkFlag.RFFDG),
        lambda: init.jail("/"),
        init.procctl_reaper_status,
        init.sysctl.kern_proc_all,
        lambda: init.sysctl.get_int("kern.randompid"),
    ):
        with fails("ENOSYS"):
            call()
    init.procctl_reaper_acquire()  # prctl() is an honest equivalent


def test_an_unknown_system_call_is_enosys(init: RemoteProcess) -> None:
    with fails("ENOSYS"):
        init.syscall(999)


def test_a_stopped_process_is_found_out(init: RemoteProcess) -> None:
    child = init.fork()
    init.kill(child.pid, SIGSTOP)
    with pytest.raises(ProcessStopped, match=rf"getuid\(\): process {child.pid} is stopped"):
        child.getuid()
    init.kill(child.pid, SIGCONT)
    assert child.getpid() == child.pid, "the answer to the call that was given up does not confuse later ones"


def test_a_started_call_waits_for_a_stopped_process(init: RemoteProcess) -> None:
    child = init.fork()
    init.kill(child.pid, SIGSTOP)
    child.await_stop()
    pending = child.start.getpid()
    with pytest.raises(DeadlineError, match=r"getpid\(\) in process"):
        pending.result(timeout=0.7)
    init.kill(child.pid, SIGCONT)
    assert pending.result() == child.pid


def test_a_call_that_takes_too_long(hub: Hub, init: RemoteProcess) -> None:
    init.fork()
    hub.deadline = 0.5
    try:
        with pytest.raises(DeadlineError, match=r"waited 0.5 s for wait4\(-1, 0\) in process"):
            init.wait4()
    finally:
        hub.deadline = 30


def test_a_process_killed_during_a_call(init: RemoteProcess) -> None:
    child = init.fork()
    pending = child.start.nanosleep(100)
    init.kill(child.pid, SIGKILL)
    with pytest.raises(ProcessGone, match="nanosleep"):
        pending.result()


# ---- started calls ----


def test_started_calls_are_made_in_order_without_a_round_trip(init: RemoteProcess) -> None:
    pending = [init.start.getpid() for _ in range(200)]
    assert [p.result() for p in pending] == [init.pid] * 200
    assert all(p.done for p in pending)


def test_more_requests_than_a_blocked_process_can_take(init: RemoteProcess) -> None:
    """The hub keeps them; another process is not held up meanwhile."""
    child = init.fork()
    init.kill(child.pid, SIGSTOP)
    child.await_stop()
    requests = [child.start.write(0, bytes(9000)) for _ in range(20)]
    assert init.getpid() == init.pid
    assert not requests[0].done
    init.kill(child.pid, SIGCONT)
    for request in requests:
        with fails("EBADF"):
            request.result()


def test_a_finished_call_tells_how_long_it_took(init: RemoteProcess) -> None:
    began = time.monotonic()
    pending = init.start.nanosleep(0.05)
    pending.result()
    assert 0.05 <= pending.seconds() <= time.monotonic() - began


# ---- the rest of the calls ----


def test_files(init: RemoteProcess, tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    fd = init.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    with fails("EEXIST"):
        init.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    assert init.write(fd, b"content") == 7
    init.close(fd)
    assert Path(path).read_bytes() == b"content"
    fd = init.open(path)
    assert init.read(fd, 100) == b"content"
    assert init.read(fd, 100) == b""
    assert init.dup2(fd, 9) == 9
    assert init.fcntl(9, 1) == 0
    init.mkdir(str(tmp_path / "folder"))
    init.chdir(str(tmp_path / "folder"))
    assert init.getcwd() == str(tmp_path / "folder")


def test_megabytes_come_back_whole(init: RemoteProcess) -> None:
    zero = init.open("/dev/zero")
    assert init.read(zero, 3_000_000) == bytes(3_000_000)


def test_a_pipe_between_two_processes(init: RemoteProcess) -> None:
    reading, writing = init.pipe()
    child = init.fork()
    pending = child.start.read(reading, 100)
    assert not pending.done
    init.write(writing, b"hello")
    assert pending.result() == b"hello"


def test_a_terminal(init: RemoteProcess) -> None:
    master, slave, name = init.openpty()
    assert name.startswith("/dev/pts/")
    with fails("ENOTTY"):
        init.tcgetpgrp(slave)
    init.set_controlling_tty(slave)
    assert init.tcgetsid(slave) == init.pid
    child = init.fork()
    child.setpgid(0, 0)
    init.tcsetpgrp(slave, child.pid)
    assert init.tcgetpgrp(slave) == child.pid
    init.write(master, b"\x03")  # ^C goes to the foreground group
    assert init.wait4().signal == signal.SIGINT


def test_limits(init: RemoteProcess) -> None:
    init.setrlimit(Resource.RLIMIT_NOFILE, 30, 40)
    assert init.getrlimit(Resource.RLIMIT_NOFILE) == (30, 40)


def test_clock_and_sleep(init: RemoteProcess) -> None:
    before = init.clock_gettime()
    init.sleep(0.05)
    assert init.clock_gettime() - before >= 0.05


def test_touched_memory_is_resident(init: RemoteProcess) -> None:
    def resident() -> int:
        # Not statm, which adds up what the CPUs have counted in batches.
        rollup = Path(f"/proc/{init.pid}/smaps_rollup").read_text()
        return int(rollup.partition("Rss:")[2].split()[0]) * 1024

    before = resident()
    assert init.touch_memory(8 << 20) > 0
    assert resident() - before >= 8 << 20


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_user_ids(init: RemoteProcess) -> None:
    child = init.fork()
    child.setresuid(1001, 1002, 1003)
    assert (child.getuid(), child.geteuid(), child.getresuid()) == (1001, 1002, (1001, 1002, 1003))
    child.seteuid(1003)
    assert child.geteuid() == 1003
    grandchild = child.fork()  # its channel is opened by a user who does not own the socket
    assert grandchild.getuid() == 1001
    with fails("EPERM"):
        grandchild.kill(init.pid, SIGTERM)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the root directory")
def test_fork_without_the_hubs_socket_says_why_it_fails(init: RemoteProcess, tmp_path: Path) -> None:
    init.chroot(str(tmp_path))
    with pytest.raises(HarnessError, match=r"fork\(\): no control channel for the child \(ENOENT\); .* chroot"):
        init.fork()
    assert init.getpid() == init.pid


def test_raw_calls_with_memory(init: RemoteProcess) -> None:
    ends = Buffer(bytes(8), wanted=True)
    result = init.syscall("pipe", ends)
    assert result.value == 0
    assert int.from_bytes(result.memory(ends)[:4], "little") == 0


# ---- the executor ----


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("abi", ABIS.values(), ids=ABIS)
def test_the_executor_builds_for_both_systems(
    compiler: str, abi: Abi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    monkeypatch.setenv("CC", compiler)
    program = build_executor(abi, tmp_path)
    assert build_executor(abi, tmp_path) == program, "built once"
    with program.open("rb") as file:
        elf = ELFFile(file)
        segments = [segment.header.p_type for segment in elf.iter_segments()]
        assert "PT_INTERP" not in segments
        notes = [note for s in elf.iter_segments() if isinstance(s, NoteSegment) for note in s.iter_notes()]
        # The kernel runs as DragonFly's only what says so in its first page (imgact_elf.c: check_note()).
        assert [note.n_name for note in notes if note.n_name == "DragonFly"] == ["DragonFly"] * abi.is_dragonfly


# ---- the hub ----


def test_kill_all_ends_everything_and_leaves_no_zombies(hub: Hub) -> None:
    made = [hub.spawn() for _ in range(3)]
    made += [parent.fork() for parent in made]
    orphan = made[0].fork().fork()
    stopped = made[1].fork()
    made[1].kill(stopped.pid, SIGSTOP)
    blocked = made[2].fork()
    blocked.start.nanosleep(1000)
    (parked,) = made[0].spawn_many(1, paused=True)
    made[0].kill(parked, SIGSTOP)
    runs_sleep = made[0].fork()
    runs_sleep.execve("/bin/sleep", ["sleep", "1000"])
    pids = [p.pid for p in (*made, orphan, stopped, blocked, runs_sleep)] + [parked]
    hub.kill_all()
    assert all(process.gone for process in made)
    deadline = time.monotonic() + 30
    while any(process_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)  # init reaps what was orphaned, in its own time
    assert [pid for pid in pids if process_exists(pid) and not _is_orphan_zombie(pid)] == []
    assert hub.spawn().getpid()


def _is_orphan_zombie(pid: int) -> bool:
    """Tell whether PID waits for an init which, as in some containers, never reaps."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before it was read
        return True
    return state == "Z" and parent == "1"


def test_everything_ends_with_the_hub(tmp_path: Path) -> None:
    with local_hub(tmp_path) as hub:
        first = hub.spawn()
        second = first.fork()
        first.kill(second.pid, SIGSTOP)
        pids = [hub.pid, first.pid, second.pid]
    deadline = time.monotonic() + 30
    while any(process_exists(pid) and not _is_orphan_zombie(pid) for pid in pids):
        assert time.monotonic() < deadline, pids
        time.sleep(0.01)
    with pytest.raises(GuestLostError):
        first.getpid()


def test_a_killed_hub_is_noticed(tmp_path: Path) -> None:
    with local_hub(tmp_path) as hub:
        process = hub.spawn()
        pending = process.start.nanosleep(100)
        os.kill(hub.pid, SIGKILL)
        with pytest.raises(GuestLostError, match=r"nanosleep\(100 s\)"):
            pending.result()


class HubWatch:
    """A watch that reports a panic when told to."""

    def __init__(self) -> None:
        self.panicked = False

    def __call__(self) -> None:
        if self.panicked:
            raise GuestLostError("the guest panicked")


def test_a_panic_interrupts_every_wait(tmp_path: Path) -> None:
    watch = HubWatch()
    with local_hub(tmp_path, watch=watch) as hub:
        pending = hub.spawn().start.nanosleep(100)
        watch.panicked = True
        with pytest.raises(GuestLostError, match="the guest panicked"):
            pending.result()


def test_what_is_no_hub_is_noticed() -> None:
    with pytest.raises(GuestLostError, match="really an executor"):
        Hub(local_transport(["echo", "Welcome to the shell of a guest"]), LINUX)


def test_help_shows_what_each_call_takes_and_says() -> None:
    for owner in (RemoteProcess, RemoteThread):
        calls = {name: call for name, call in inspect.getmembers(owner) if isinstance(call, SystemCall)}
        assert len(calls) > 80
        for name, call in calls.items():
            assert name.startswith("_") or (call.__doc__ or "").strip(), name
            assert next(iter(inspect.signature(call).parameters)) == "self", name
            assert "Call[" not in str(inspect.signature(call)), name
    shown = pydoc.plain(pydoc.render_doc(RemoteProcess))
    assert "wait4(self, pid: 'int' = -1, options: 'WaitOption | int' = <WaitOption: 0>) -> 'WaitResult'" in shown
    assert "(...)" not in shown


def test_a_bound_call_shows_no_self(hub: Hub) -> None:
    process = hub.spawn()
    assert str(inspect.signature(process.setpgid)) == "(pid: 'int', pgid: 'int') -> 'None'"
    assert RemoteProcess.getpid(process) == process.pid
