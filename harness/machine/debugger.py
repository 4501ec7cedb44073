# SPDX-License-Identifier: BSD-2-Clause
"""A lasting session with QEMU's gdb stub: the machine runs, and is stopped for an instant whenever a CPU meets a point.

Breakpoints are QEMU's own: under TCG nothing is written into the guest's code, so no other thread meets a changed
instruction, and whoever looks at the code finds it as it was.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from harness.errors import DeadlineError, GuestLostError, HarnessError
from harness.machine.gdbstub import DEADLINE, GdbLine

T = TypeVar("T")

_TRAP = "05"  # SIGTRAP: a breakpoint, or a step; any other signal says that it stands as it was asked to


class Cpu:
    """A virtual CPU of a machine that stands still; good for as long as a handler runs."""

    def __init__(self, debugger: Debugger, number: int) -> None:
        self._debugger = debugger
        #: Counted from 0, as the kernel counts them.
        self.number = number

    def _register(self, which: int) -> int:
        self._debugger._select(self.number)
        return int.from_bytes(bytes.fromhex(self._debugger._line.ask(f"p{which:x}")), "little")

    @property
    def address(self) -> int:
        """Where it is: the address of the instruction it executes next."""
        return self._register(16)

    @address.setter
    def address(self, address: int) -> None:
        self._debugger._select(self.number)
        self._debugger._demand(f"P10={struct.pack('<Q', address).hex()}")

    @property
    def stack(self) -> int:
        """Its stack pointer."""
        return self._register(7)

    @property
    def frame(self) -> int:
        """Its frame pointer."""
        return self._register(6)

    @property
    def takes_interrupts(self) -> bool:
        """Whether interrupts are enabled (RFLAGS.IF)."""
        return bool(self._register(17) & 0x200)

    @property
    def in_kernel(self) -> bool:
        """Whether it executes the kernel's code (CPL 0)."""
        return not self._register(18) & 3

    @property
    def own_data(self) -> int:
        """The base of %gs: in the kernel, the data of this CPU."""
        return self._register(25)

    def read(self, address: int, size: int) -> bytes:
        """Return SIZE bytes at the virtual ADDRESS as this CPU sees it; raises HarnessError where nothing is mapped."""
        self._debugger._select(self.number)
        return self._debugger._line.read(address, size)

    def word(self, address: int) -> int:
        """Return the eight bytes at ADDRESS as a number; raises what read() raises."""
        return int.from_bytes(self.read(address, 8), "little")


#: What is done when a CPU has met a point, while the machine stands still.  It goes on behind that.
Handler = Callable[[Cpu], None]


class Debugger:
    """The machine behind the gdb stub at the socket PATH, running, with points at which handlers are called.

    A context manager: leaving it takes all points away and lets the machine run, unless it is PAUSED.  A thread of its
    own listens to the stub; handlers are called in it, and must not call the methods of this class.

    While there is such a session, nobody else may stop the machine or let it go on: QEMU announces a stop of its
    monitor's in the words of one that was asked for here, so that the two could not be told apart.
    """

    def __init__(self, path: Path, *, paused: bool = False) -> None:
        self._line = GdbLine(path)
        self._handlers: dict[int, Handler] = {}
        self._selected = -1
        self._wanted: deque[Callable[[HarnessError | None], None]] = deque()
        self._closing = False
        #: Whether the machine is to stand still until resume(), rather than just while it is looked at.
        self.paused = paused
        #: What a handler has failed of, if one has.
        self.complaint: HarnessError | None = None
        #: What ended the session before its time.
        self.failure: HarnessError | None = None
        #: How often a CPU has met a point that has a handler, and for how many seconds the machine stood in all.
        self.hits, self.stood = 0, 0.0
        try:
            # Who has asked for that may ask for single registers.
            self._line.ask("qXfer:features:read:target.xml:0,ffb")
            self.cpus = self._count_cpus()
        except BaseException:
            self._line.close()
            raise
        self._bell, self._ring = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="debugger", daemon=True)
        self._thread.start()

    # What others call

    def standing(self, work: Callable[[Debugger], T]) -> T:
        """Do WORK while the machine stands still, in this object's thread, and return what it returns.

        Raises GuestLostError when the stub has gone, DeadlineError when it does not answer, and what WORK raises.
        """
        done: Future[T] = Future()

        def do(failure: HarnessError | None) -> None:
            try:
                if failure is None:
                    done.set_result(work(self))
                else:
                    done.set_exception(failure)
            except BaseException as error:  # whoever asked for it is told
                done.set_exception(error)

        self._wanted.append(do)
        if self.failure is not None:
            raise self.failure
        os.write(self._ring, b"!")
        try:
            return done.result(DEADLINE + 10.0)
        except TimeoutError:
            raise DeadlineError("the machine to stop for its debugger", DEADLINE + 10.0) from None

    def at(self, address: int, handler: Handler) -> None:
        """Have HANDLER called whenever a CPU is about to execute the instruction at ADDRESS; raises as standing()."""
        self.standing(lambda self: self.insert(address, handler))

    def forget(self, address: int) -> None:
        """Undo at(); raises as standing()."""
        self.standing(lambda self: self.remove(address))

    def pause(self) -> None:
        """Have the machine stand still until resume(); raises as standing()."""
        self.standing(lambda self: self._keep(paused=True))

    def resume(self) -> None:
        """Let the machine run again; raises as standing()."""
        self.standing(lambda self: self._keep(paused=False))

    def close(self) -> None:
        """Take all points away, let the machine run unless it is paused, and hang up."""
        if not self._closing:
            self._closing = True
            with contextlib.suppress(OSError):
                os.write(self._ring, b"!")
            self._thread.join(DEADLINE + 10.0)
            self._line.close()
            os.close(self._ring)
            os.close(self._bell)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What WORK and handlers may call: the machine stands still

    def insert(self, address: int, handler: Handler) -> None:
        """Begin to call HANDLER at ADDRESS, instead of another one."""
        if address not in self._handlers:
            self._demand(f"Z0,{address:x},1")
        self._handlers[address] = handler

    def remove(self, address: int) -> None:
        """Stop calling a handler at ADDRESS, if there is one."""
        if self._handlers.pop(address, None) is not None:
            self._demand(f"z0,{address:x},1")

    def cpu(self, number: int) -> Cpu:
        """Return CPU NUMBER."""
        return Cpu(self, number)

    def read(self, address: int, size: int) -> bytes:
        """Return SIZE bytes at the virtual ADDRESS; raises HarnessError where nothing is mapped."""
        return self._line.read(address, size)

    def write(self, address: int, data: bytes) -> None:
        """Store DATA at the virtual ADDRESS; raises HarnessError where nothing is mapped."""
        self._line.write(address, data)

    def _keep(self, *, paused: bool) -> None:
        self.paused = paused

    # The protocol

    def _demand(self, command: str) -> None:
        if (answer := self._line.ask(command)) != "OK":
            raise HarnessError(f"QEMU's gdb stub refuses {command.partition(',')[0]} ({answer!r})")

    def _count_cpus(self) -> int:
        first = self._line.ask("qfThreadInfo")
        found: list[str] = []
        while first.startswith("m"):
            found += first[1:].split(",")
            first = self._line.ask("qsThreadInfo")
        return len(found)

    def _select(self, number: int) -> None:
        if number != self._selected:
            self._demand(f"Hg{number + 1:x}")
            self._selected = number

    # The thread

    def _serve(self) -> None:
        try:
            self._go_on()
            while not self._closing:
                ready, _, _ = select.select([self._line.fileno(), self._bell], [], [])
                if self._bell in ready:
                    os.read(self._bell, 4096)
                if self._wanted or self._closing:
                    self._stop()
                    self._answer_requests()
                    self._go_on()
                elif self._line.fileno() in ready and self._line.listen():  # else it only says that it has understood
                    self._line.stops.append(self._line.receive())
                    self._go_on()
            self._stop()
            for address in list(self._handlers):
                self.remove(address)
            if not self.paused:
                self._line.ask("D")
        except HarnessError as error:
            self.failure = error
        except OSError as error:
            self.failure = GuestLostError(f"QEMU's gdb stub is gone ({error.strerror or type(error).__name__})")
        finally:
            while self._wanted:
                self._wanted.popleft()(self.failure)

    def _stop(self) -> None:
        """Return when the machine stands still, whether it did already, because of us or of a point that was met."""
        self._line.interrupt()  # it means nothing to a machine that stands
        self._line.ask("qfThreadInfo")
        self._selected = -1

    def _answer_requests(self) -> None:
        while self._wanted:
            self._wanted.popleft()(None)

    def _go_on(self) -> None:
        """Deal with the stops that were announced, and let the machine run again unless it is paused."""
        began = time.monotonic()
        while self._line.stops:
            stop = self._line.stops.popleft()
            if stop[1:3] == _TRAP:
                self._meet(self._number_in(stop))
                self._answer_requests()
        if not self.paused:
            self.stood += time.monotonic() - began
            self._selected = -1
            self._line.send("c")

    def _number_in(self, stop: str) -> int:
        _, _, thread = stop.partition("thread:")
        return int(thread.partition(";")[0].rpartition(".")[2], 16) - 1

    def _meet(self, number: int) -> None:
        """Call the handler of the point that CPU NUMBER has met, and take it over the point."""
        self._selected = -1
        cpu = Cpu(self, number)
        handler = self._handlers.get(cpu.address)
        if handler is None:  # it was taken away while the CPU was on its way to it
            return
        self.hits += 1
        try:
            handler(cpu)
        except HarnessError as error:  # it is told to whoever asks next
            self.complaint = self.complaint or error
        if cpu.address in self._handlers:
            self.step(number)

    def step(self, number: int) -> None:
        """Have CPU NUMBER execute one instruction, without interrupts, while all others stand."""
        self._line.send(f"vCont;s:{number + 1:x}")
        self._line.receive()
        self._selected = -1
