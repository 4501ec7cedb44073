# SPDX-License-Identifier: BSD-2-Clause
"""System calls that newer kernels have: what is sent, what is made of the answer, and on this host those it has."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from signal import SIGKILL, SIGTERM, SIGUSR1

import pytest
from scripted_kernel import HUB_PID, Asked, Fails, Script, ScriptedKernel

from harness.processes import (
    O_CLOFORK,
    Clock,
    EvFilter,
    EvFlag,
    Handler,
    Hub,
    Kevent,
    NoteFlag,
    ProcessGone,
    ReapKill,
    RemoteProcess,
    fails,
)
from harness.processes.kinfo import SYSCAP_INPARENT, SyscapFlag
from harness.processes.local import can_run_locally, local_hub
from harness.processes.shared_pages import ENTRIES, shared_page, size_of

CHILD = HUB_PID + 1


class Recorder:
    """A scripted kernel that remembers its calls, and a process on it."""

    def __init__(self, **calls: Script) -> None:
        self.seen: list[tuple[str, list[int], bytes]] = []

        def noting(script: Script) -> Script:
            def call(asked: Asked) -> int:
                self.seen.append((asked.name, asked.arguments, bytes(asked.memory)))
                return script(asked)

            return call

        self.kernel = ScriptedKernel(calls={name: noting(script) for name, script in calls.items()})
        self.hub = self.kernel.hub()
        self.process = self.hub.spawn()


@pytest.fixture
def procctl() -> Iterator[Recorder]:
    def call(asked: Asked) -> int:
        _, pid, command, data = asked.arguments[:4]
        if pid != asked.pid:
            raise Fails("EINVAL")
        match command:
            case 4:
                (signal,) = struct.unpack("<i", asked.bytes_at(data, 4))
                if signal > 127:
                    raise Fails("EINVAL")
            case 5:
                asked.put(data, struct.pack("<i", 30))
            case 6:
                flags, signal, _, _ = struct.unpack("<IiIi", asked.bytes_at(data, 16))
                if signal == 0:
                    raise Fails("ENOTCONN")
                asked.put(data, struct.pack("<IiIi", flags, signal, 5 if flags else 7, 1234))
            case _:
                raise Fails("EINVAL")
        return 0

    recorder = Recorder(procctl=call)
    yield recorder
    recorder.hub.close()


def test_the_signal_at_a_parents_death_is_a_word_of_the_processs_own(procctl: Recorder) -> None:
    procctl.process.procctl_pdeathsig(SIGUSR1)
    name, arguments, memory = procctl.seen[0]
    assert (name, arguments[:3], memory[arguments[3] :][:4]) == ("procctl", [0, CHILD, 4], struct.pack("<i", 30))
    assert procctl.process.procctl_pdeathsig_status() == 30
    with fails("EINVAL"):
        procctl.process.procctl_pdeathsig(128)


def test_a_reapers_signal_says_how_many_it_reached(procctl: Recorder) -> None:
    assert procctl.process.procctl_reap_kill(SIGTERM) == ReapKill(7, 1234)
    assert procctl.process.procctl_reap_kill(SIGTERM, children_only=True) == ReapKill(5, 1234)
    with fails("ENOTCONN"):
        procctl.process.procctl_reap_kill(0)


def test_restrictions_are_set_by_number_and_come_back_as_flags() -> None:
    recorder = Recorder(syscap_set=lambda asked: 1 | asked.arguments[1], syscap_get=lambda _: 2)
    assert recorder.process.syscap_set(0x19, SyscapFlag.EXEC) == SyscapFlag.ALL
    assert recorder.process.syscap_get(0x40 | SYSCAP_INPARENT) == SyscapFlag.EXEC
    assert [(name, arguments[:4]) for name, arguments, _ in recorder.seen] == [
        ("syscap_set", [0x19, 2, 0, 0]),
        ("syscap_get", [0x10040, 0, 0, 0]),
    ]
    recorder.hub.close()


def test_an_older_kernel_has_none_of_them() -> None:
    with ScriptedKernel().hub() as hub:
        process = hub.spawn()
        for call in (
            lambda: process.syscap_get(0),
            lambda: process.clock_nanosleep(0.1, Clock.CLOCK_MONOTONIC),
            lambda: process.fexecve(3),
            process.kqueue,
        ):
            with fails("ENOSYS"):
                call()


def test_the_errno_a_sleep_returns_is_raised() -> None:
    results = iter([0, 4, 45])
    recorder = Recorder(clock_nanosleep=lambda _: next(results))
    recorder.process.clock_nanosleep(1.5, Clock.CLOCK_MONOTONIC)
    with fails("EINTR"):
        recorder.process.clock_nanosleep(2.0, Clock.CLOCK_REALTIME, absolute=True)
    with fails("EOPNOTSUPP"):
        recorder.process.clock_nanosleep(1.0, 15)
    sent = [(arguments[:2], memory[arguments[2] :][:16]) for _, arguments, memory in recorder.seen]
    assert sent == [
        ([4, 0], struct.pack("<qq", 1, 500_000_000)),
        ([0, 1], struct.pack("<qq", 2, 0)),
        ([15, 0], struct.pack("<qq", 1, 0)),
    ]
    recorder.hub.close()


def test_events_go_and_come_as_structures_of_32_bytes() -> None:
    def kevent(asked: Asked) -> int:
        _, changes, count, events, room, _ = asked.arguments[:6]
        if count and not room:
            raise Fails("ESRCH")
        assert struct.unpack("<QhHIqQ", asked.bytes_at(changes, 32)) == (CHILD, -5, 0x11, 0x80000000, 0, 0)
        asked.put(events, struct.pack("<QhHIqQ", CHILD, -5, 0x8000, 0x80000000, 0x700, 0))
        asked.put(events + 32, struct.pack("<QhHIqQ", 9, -99, 0, 0, -1, 5))
        return 2

    recorder = Recorder(kevent=kevent, kqueue=lambda _: 17)
    queue = recorder.process.kqueue()
    wanted = Kevent(CHILD, EvFilter.EVFILT_PROC, EvFlag.EV_ADD | EvFlag.EV_ONESHOT, NoteFlag.NOTE_EXIT)
    assert recorder.process.kevent(queue, [wanted], timeout=1.0) == [
        Kevent(CHILD, EvFilter.EVFILT_PROC, EvFlag.EV_EOF, NoteFlag.NOTE_EXIT, 0x700),
        Kevent(9, -99, EvFlag(0), 0, -1, 5),
    ]
    with fails("ESRCH"):
        recorder.process.watch_process(queue, 99999, NoteFlag.NOTE_EXIT)
    recorder.hub.close()


@pytest.mark.parametrize(("flags", "subtype"), [({}, 0), ({"lwp": True}, 0x10), ({"lwkt": True}, 0x20),
                                                ({"lwp": True, "lwkt": True}, 0x30)])  # fmt: skip
def test_kernel_threads_and_threads_are_asked_for_by_flags(flags: dict[str, bool], subtype: int) -> None:
    kernel = ScriptedKernel({(1, 14, 1, HUB_PID): bytes(1048), (1, 14, subtype): bytes(1048 * 2)})
    with kernel.hub() as hub:
        assert len(hub.observer.sysctl.kern_proc_all(**flags)) == 2
        kernel.variables = {(1, 14, subtype | node, 5): bytes(1048) for node in (1, 2, 4, 5, 6)}
        kernel.variables[1, 14, 1, HUB_PID] = bytes(1048)
        sysctl = hub.observer.sysctl
        queries = (
            sysctl.kern_proc_pid, sysctl.kern_proc_pgrp, sysctl.kern_proc_tty, sysctl.kern_proc_uid,
            sysctl.kern_proc_ruid,
        )  # fmt: skip
        for query in queries:
            assert len(query(5, **flags)) == 1


def test_titles_of_processes_and_threads_have_mibs_of_their_own() -> None:
    with ScriptedKernel({(1, 14, 7, 5): b"a\0b\0", (1, 14, 7, 5, 2): b"t\0"}).hub() as hub:
        assert hub.observer.sysctl.kern_proc_args(5) == [b"a", b"b"]
        assert hub.observer.sysctl.kern_proc_args(5, 2) == [b"t"]
        with fails("ENOENT"):
            hub.observer.sysctl.kern_proc_args(5, 3)
    with ScriptedKernel({(1, 14, 10, 5): struct.pack("<QQ32x", 0x1000, 0x2000)}).hub() as hub:
        assert hub.observer.sysctl.kern_proc_sigtramp(5) == (0x1000, 0x2000)


class Page:
    """The memory behind /dev/lpmap and a pipe, as a script."""

    def __init__(self) -> None:
        self.memory = bytearray(4096)
        struct.pack_into("<HHHHHH", self.memory, 0, 0x0201, 256, 0x4214, 260, 0x4A13, 272)
        struct.pack_into("<ii", self.memory, 256, 1, 77)
        self.pipe = b""

    def write(self, asked: Asked) -> int:
        _, address, size = asked.arguments[:3]
        self.pipe += self.memory[address - 0x10000 :][:size]
        return size

    def read(self, asked: Asked) -> int:
        _, at, size = asked.arguments[:3]
        asked.put(at, self.pipe[:size])
        self.pipe = self.pipe[size:]
        return size

    def open(self, asked: Asked) -> int:
        if b"/dev/lpmap\0" not in asked.memory:
            raise Fails("ENOENT")
        return 3


def test_the_entries_of_a_shared_page_are_found_by_type() -> None:
    page = Page()
    recorder = Recorder(
        open=page.open, write=page.write, read=page.read, mmap=lambda _: 0x10000, pipe=lambda _: 4, close=lambda _: 0
    )
    lpmap = shared_page(recorder.process, "lpmap")
    assert (lpmap.value("version"), lpmap.value("tid"), lpmap.content("title")) == (1, 77, bytes(1024))
    with pytest.raises(KeyError):
        lpmap.value("blockallsigs")
    with fails("ENOENT"):
        shared_page(recorder.process)
    recorder.hub.close()


def test_the_sizes_of_entries_are_part_of_their_types() -> None:
    assert {size_of(entry) for page in ENTRIES.values() for entry in page.values()} == {4, 8, 32, 1024}


def test_close_on_fork_is_a_flag_of_dragonflys_open_alone() -> None:
    recorder = Recorder(open=lambda _: 3)
    recorder.process.open("/dev/null", os.O_RDWR | O_CLOFORK)
    assert recorder.seen[0][1][1] == 0x01000002
    recorder.hub.close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with local_hub(tmp_path_factory.mktemp("cache")) as hub:
        yield hub


@pytest.fixture
def init(hub: Hub) -> Iterator[RemoteProcess]:
    yield hub.spawn()
    hub.kill_all()


@pytest.mark.skipif(not can_run_locally(), reason="driven processes run locally on x86_64 Linux only")
class TestOnThisHost:
    """Linux has some of them under other names."""

    def test_a_parents_death_is_signalled(self, init: RemoteProcess) -> None:
        parent = init.fork()
        child = parent.fork()
        child.sigaction(SIGUSR1, Handler.LOG)
        child.procctl_pdeathsig(SIGUSR1)
        assert child.procctl_pdeathsig_status() == int(SIGUSR1)
        parent.exit()
        child.await_signal(SIGUSR1)

    def test_a_sleep_by_another_clock(self, init: RemoteProcess) -> None:
        pending = init.start.clock_nanosleep(0.05, Clock.CLOCK_MONOTONIC)
        pending.result()
        assert pending.seconds() >= 0.05
        until = init.start.clock_nanosleep(time.time() + 0.1, Clock.CLOCK_REALTIME, absolute=True)
        until.result()
        assert until.seconds() > 0

    def test_a_program_is_run_from_its_descriptor(self, init: RemoteProcess) -> None:
        child = init.fork()
        child.fexecve(child.open("/bin/sleep", os.O_RDONLY), ["sleep", "60"])
        with pytest.raises(ProcessGone):
            child.getpid()
        init.kill(child.pid, SIGKILL)
        assert init.wait4(child.pid).status.signal == SIGKILL  # type: ignore[union-attr]

    def test_it_has_no_queue_nor_close_on_fork(self, init: RemoteProcess) -> None:
        with fails("ENOSYS"):
            init.kqueue()
        with pytest.raises(ValueError, match="linux has no O_CLOFORK"):
            init.open("/dev/null", O_CLOFORK)
