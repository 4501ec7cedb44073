# SPDX-License-Identifier: BSD-2-Clause
"""How a thread is made: who is told its id, where it may run, and when it is not made (kern_fork.c: lwp_create1())."""

from __future__ import annotations

import struct
from errno import EFAULT

import pytest

from harness.processes import RemoteProcess, fails
from harness.processes.memory import OwnMemory
from harness.processes.wire import Buffer
from support.processes import bury, eventually

pytestmark = [pytest.mark.needs_kernel, pytest.mark.passes("sysctl_out_proc")]
CREATE2 = pytest.mark.eras(since=400_709, reason="lwp_create2() appeared in January 2017, within 400708")

#: machine/lwp_params: function, argument, stack, and two places for the thread id
LWP_PARAMS = struct.Struct("<5Q")
NOWHERE = 0x1000  # no process has memory there
PAGE = 4096
ANYTHING, MAP_PRIVATE, MAP_ANON = 7, 2, 0x1000  # sys/mman.h
FIRST, SECOND = 256, 264  # where in the page thread ids are told
ENDLESS = b"\xeb\xfe"  # a jump to itself
CPUS = 32  # bytes of a cpumask_t


class Maker:
    """A process that makes threads which run in a circle."""

    def __init__(self, init: RemoteProcess) -> None:
        self.init = init
        self.process = init.fork()
        flags = MAP_PRIVATE | MAP_ANON
        self.page = self.process.syscall("mmap", 0, PAGE, ANYTHING, flags, -1, 0, 0).wide
        self.memory = OwnMemory(self.process)
        self.memory.write(self.page, ENDLESS)

    def parameters(self, *, stack: int | None = None, first: int = 0, second: int = 0) -> bytes:
        """Return what lwp_create() takes, with the places to tell the thread id."""
        return LWP_PARAMS.pack(self.page, 0, self.page + PAGE - 8 if stack is None else stack, first, second)

    def tids(self) -> list[int]:
        """Return the ids of its threads, as its rows tell them."""
        return sorted(row.lwp.tid for row in self.init.sysctl.kern_proc_pid(self.process.pid, lwp=True))

    def bury(self) -> None:
        """Let it end, and all of its threads with it."""
        bury(self.init, self.process)


def cpus(number: int) -> bytes:
    """Return a cpumask_t of the CPUs that are the bits of NUMBER."""
    return number.to_bytes(CPUS, "little")


@pytest.mark.parametrize("told", ["both", "first", "second", "nobody"])
def test_the_id_of_a_new_thread_is_told_wherever_that_is_asked_for(init: RemoteProcess, told: str) -> None:
    """In none, one or two places (lwp_create(2); kern_fork.c: lwp_create1, lwp_tid1, lwp_tid2)."""
    maker = Maker(init)
    (own,) = maker.tids()
    first = maker.page + FIRST if told in {"both", "first"} else 0
    second = maker.page + SECOND if told in {"both", "second"} else 0
    assert maker.process.syscall("lwp_create", maker.parameters(first=first, second=second)).value == 0
    (new,) = set(maker.tids()) - {own}
    written = [maker.memory.word(maker.page + place) for place in (FIRST, SECOND)]
    assert written == [new if first else 0, new if second else 0]
    maker.bury()


@pytest.mark.parametrize(
    "what", ["parameters", "stack", "first place", "second place", pytest.param("cpus", marks=CREATE2)]
)
def test_a_thread_that_cannot_be_given_what_it_needs_is_not_made(init: RemoteProcess, what: str) -> None:
    """EFAULT, and nothing is left of it (kern_fork.c: lwp_create1, fail; vm_machdep.c: cpu_prepare_lwp)."""
    maker = Maker(init)
    before = maker.tids()
    good = maker.page + FIRST
    given: dict[str, bytes | int] = {
        "parameters": NOWHERE,
        "stack": maker.parameters(stack=NOWHERE),
        "first place": maker.parameters(first=NOWHERE),
        "second place": maker.parameters(first=good, second=NOWHERE),
        "cpus": maker.parameters(),
    }
    with fails(EFAULT):
        if what == "cpus":
            maker.process.syscall("lwp_create2", given[what], NOWHERE)
        else:
            maker.process.syscall("lwp_create", given[what])
    assert maker.tids() == before
    assert init.sysctl.kern_proc_pid(maker.process.pid)[0].nthreads == 1
    maker.bury()


@CREATE2
@pytest.mark.cpus(2)
@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        pytest.param(cpus(0b01), 0b01, id="first"),
        pytest.param(cpus(0b10), 0b10, id="second"),
        pytest.param(cpus(0b10 | 1 << 200), 0b10, id="one that is not there, too"),
        pytest.param(cpus(1 << 200), 0b11, id="one that is not there"),
        pytest.param(0, 0b11, id="not said"),
    ],
)
def test_a_thread_runs_on_the_cpus_it_was_made_for(init: RemoteProcess, asked: bytes | int, allowed: int) -> None:
    """Those that are not there do not count, and none at all means any (kern_fork.c: lwp_create1, lwp_fork1)."""
    maker = Maker(init)
    maker.process.syscall("lwp_create2", maker.parameters(first=maker.page + FIRST), asked)
    tid = maker.memory.word(maker.page + FIRST)
    mask = Buffer(bytes(CPUS), wanted=True)
    told = init.syscall("lwp_getaffinity", maker.process.pid, tid, mask).memory(mask)
    assert int.from_bytes(told, "little") == allowed

    def place() -> int:
        rows = init.sysctl.kern_proc_pid(maker.process.pid, lwp=True)
        return next(row.lwp.cpuid for row in rows if row.lwp.tid == tid)

    eventually(lambda: allowed >> place() & 1 == 1, "the thread to come to its CPU")
    maker.bury()


def test_a_sleeper_on_a_word_of_memory_is_found_though_a_child_shares_the_page_by_then(init: RemoteProcess) -> None:
    """What is written next is another page, by which it would not be found (umtx(2); kern_fork.c: wake_umtx_threads).

    Before October 2017 it is woken by the writing, since then by fork().
    """
    maker = Maker(init)
    word = maker.page + FIRST
    sleeper = maker.process.thread()
    pending = sleeper.start.syscall("umtx_sleep", word, 0, 0)
    observed = maker.process.pid

    def sleeps() -> bool:
        return any(row.lwp.wmesg == "umtxsl" for row in init.sysctl.kern_proc_pid(observed, lwp=True))

    eventually(sleeps, "the thread to sleep")
    child = maker.process.fork()
    maker.memory.write(word, b"\1")
    maker.process.syscall("umtx_wakeup", word, 0)
    assert pending.result(20.0).value == 0  # EWOULDBLOCK where it was not woken
    bury(maker.process, child)
    maker.bury()
