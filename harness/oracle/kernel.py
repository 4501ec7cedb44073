# SPDX-License-Identifier: BSD-2-Clause
"""The state of the kernel, and how it begins."""

from __future__ import annotations

import random

from harness.oracle.calls import Order, Scheduler, first
from harness.oracle.clock import Clock
from harness.oracle.model import Credentials, Lwp, Pgrp, Proc, Reaper, Session, SigActs, Terminal
from harness.oracle.pids import PidAllocator
from harness.oracle.rules import HASH_SIZE, Rules
from harness.oracle.signals_table import IGNORED_AT_BIRTH
from harness.processes.kinfo import ProcFlag

MAXPROC = 980  # kern.maxproc with 512 MB of memory


class Kernel:
    """Everything there is: processes, groups and sessions by id, time, variables, the allocator, pending calls."""

    def __init__(self, rules: Rules, seed: int, order: Order = first) -> None:
        self.rules = rules
        self.clock = Clock()
        self.procs: dict[int, Proc] = {}  # allproc: zombies included
        self.groups: dict[int, Pgrp] = {}  # allpgrp
        self.sessions: dict[int, Session] = {}  # allsess
        self.variables = {
            "security.ps_showallprocs": 1,
            "security.ps_showallthreads": 1,
            "kern.ps_argsopen": 1,
            "kern.ps_arg_cache_limit": 256,
            "hw.ncpu": 1,
            "kern.osreldate": rules.era.osreldate,
            "kern.maxproc": MAXPROC,
            "kern.maxprocperuid": MAXPROC // 4,
        }
        self.births = 0
        self.jails = 0  # how many there have been
        self.terminals: list[Terminal] = []
        randomness = random.Random(seed)  # noqa: S311  (a model of a generator, not a secret)
        self.pids = PidAllocator(self, randomness)
        self.scheduler = Scheduler(self, order)
        self.running: Lwp | None = None  # curthread: whose system call is being executed
        self._swapper()
        self.init = self._system_process("init", b"/sbin/init")
        self.init.reaper = Reaper(self.init, None, real_init=True, references=2)
        self.init.session.login = "root"
        # A booted guest has been through some hundred processes.
        self.pids.nextpid = 600 + randomness.randrange(200)

    def _swapper(self) -> None:
        """Process 0, from which init is forked (init_main.c: proc0_init())."""
        sigacts = SigActs(ignored=IGNORED_AT_BIRTH)
        swapper = Proc(0, None, Credentials(), sigacts, None, 0, self.clock.realtime, comm="swapper")
        swapper.flags |= ProcFlag.P_SYSTEM
        swapper.lwps = [Lwp(swapper, self.rules.first_tid())]
        self._lead_new_session(swapper)
        self.procs[0] = swapper

    def _system_process(self, comm: str, program: bytes) -> Proc:
        """Make a child of process 0 that leads a session and reaps whatever it is left with."""
        swapper = self.procs[0]
        proc = Proc(self.pids.new_pid(), swapper, swapper.cred, swapper.sigacts, None, self.next_birth())
        proc.start = self.clock.realtime
        proc.lwps, proc.last_tid = [Lwp(proc, self.rules.first_tid())], self.rules.first_tid()
        proc.comm, proc.path, proc.args = comm, program.decode(), program + b"\0"
        proc.flags |= ProcFlag.P_EXEC
        proc.reaps_itself = True
        self._lead_new_session(proc)
        self.procs[proc.pid] = proc
        swapper.children.insert(0, proc)
        return proc

    def _lead_new_session(self, proc: Proc) -> None:
        session = Session(proc.pid, proc)
        proc.pgrp = Pgrp(proc.pid, session, [proc])
        self.sessions[session.sid] = session
        self.groups[proc.pid] = proc.pgrp

    @property
    def current(self) -> Proc | None:
        """curproc: the process whose system call is being executed."""
        return self.running.proc if self.running is not None else None

    def thread_of(self, proc: Proc) -> Lwp:
        """Return the thread of PROC that is executing a system call; its first, if somebody else does."""
        return self.running if self.running is not None and self.running.proc is proc else proc.lwp

    def next_birth(self) -> int:
        """Return the serial number of the next fork."""
        self.births += 1
        return self.births

    def process_count(self, ruid: int) -> int:
        """How many processes a real user id has, zombies included (kern_resource.c: chgproccnt())."""
        return sum(1 for proc in self.procs.values() if proc.cred.ruid == ruid)

    def allproc(self) -> list[Proc]:
        """All processes in the order in which the kernel's hash lists are walked: by chain, the youngest first."""
        return sorted(self.procs.values(), key=lambda proc: (proc.pid % HASH_SIZE, -proc.birth))
