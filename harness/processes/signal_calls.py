# SPDX-License-Identifier: BSD-2-Clause
"""System calls about signals: sending, handling, blocking and waiting for them."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from harness.processes.api import NO_FLAGS
from harness.processes.calls import (
    Caller,
    system_call,
    timespec,
)
from harness.processes.connection import Call
from harness.processes.vocabulary import (
    SIG_SETMASK,
    GuestError,
    Handler,
    SigAction,
    SigFlag,
    SigHow,
    SigInfo,
    SignalLike,
    SignalName,
    SignalRecord,
    signal_text,
)
from harness.processes.wire import (
    Answer,
    Buffer,
    Operation,
)

# executor.h: enum handler_kind
_HANDLERS = {Handler.DEFAULT: 0, Handler.IGNORE: 1, Handler.LOG: 2}
_HANDLER_INTERNAL = 3  # the executor's own handler for SIGSYS, which a test has not asked for
_HANDLER_QUERY = 4

_SIGACTION_REQUEST = struct.Struct("<IIII16s")
_SIGACTION_DATA = struct.Struct("<II16s")
_SIGNAL_RECORD = struct.Struct("<iiiiiIQIi")


def _signal_set_text(signals: Iterable[SignalLike]) -> str:
    return "{" + ", ".join(sorted(signal_text(signal) for signal in signals)) + "}"


class SignalCalls(Caller):
    """Part of SystemCalls."""

    @system_call
    def kill(self, pid: int, sig: SignalLike) -> Call[None]:
        """Send a signal; pid 0, -1 and -pgid have their usual meaning."""
        return self._void("kill", pid, self._abi.signal_number(sig), text=f"kill({pid}, {signal_text(sig)})")

    @system_call
    def killpg(self, pgid: int, sig: SignalLike) -> Call[None]:
        """Send a signal to a process group: kill(-pgid, sig)."""
        return self._void("kill", -pgid, self._abi.signal_number(sig), text=f"killpg({pgid}, {signal_text(sig)})")

    @system_call
    def lwp_kill(self, pid: int, tid: int, sig: SignalLike) -> Call[None]:
        """Send a signal to one thread."""
        name = "lwp_kill" if self._abi.is_dragonfly else "tgkill"
        text = f"{name}({pid}, {tid}, {signal_text(sig)})"
        return self._void(name, pid, tid, self._abi.signal_number(sig), text=text)

    @system_call
    def sigaction(
        self,
        sig: SignalLike,
        action: Handler,
        flags: SigFlag | int = NO_FLAGS,
        mask: Iterable[SignalLike] = (),
    ) -> Call[SigAction]:
        """Set what a signal does; return what it did before.

        With SIGSYS, DEFAULT means that unknown system calls fail with ENOSYS: the process is not killed.
        """
        return self._sigaction(sig, _HANDLERS[action], flags, mask, f"{action.name}")

    @system_call
    def sigaction_query(self, sig: SignalLike) -> Call[SigAction]:
        """Return what a signal does."""
        return self._sigaction(sig, _HANDLER_QUERY, NO_FLAGS, (), "NULL")

    def _sigaction(
        self, sig: SignalLike, handler: int, flags: SigFlag | int, mask: Iterable[SignalLike], action: str
    ) -> Call[SigAction]:
        abi = self._abi
        payload = _SIGACTION_REQUEST.pack(
            abi.signal_number(sig) & 0xFFFFFFFF, handler, abi.signal_flag_bits(flags), 0, abi.signal_set(mask)
        )
        text = f"sigaction({signal_text(sig)}, {action})"

        def decode(answer: Answer) -> SigAction:
            if answer.error:
                raise GuestError(text, abi.errno_name(answer.error), answer.error)
            kind, bits, mask_data = _SIGACTION_DATA.unpack(answer.data)
            return SigAction(
                next((name for name, number in _HANDLERS.items() if number == kind), Handler.DEFAULT),
                abi.decode_signal_flags(bits),
                abi.decode_signal_set(mask_data[: abi.sigset_size]),
            )

        return Call(text, Operation.SIGACTION, payload, decode)

    @system_call
    def signals(self) -> Call[list[SignalRecord]]:
        """Return, and forget, the signals logged so far by Handler.LOG; at most the last 256."""
        name = self._abi.signal_name

        def decode(answer: Answer) -> list[SignalRecord]:
            return [
                SignalRecord(name(number), code, pid, uid & 0xFFFFFFFF, status, sequence, at / 1e9, bool(info))
                for number, code, pid, uid, status, info, at, sequence, _ in _SIGNAL_RECORD.iter_unpack(answer.data)
            ]

        return Call("signals()", Operation.SIGNALS, b"", decode)

    @system_call
    def sigprocmask(
        self, how: SigHow | int = SIG_SETMASK, mask: Iterable[SignalLike] = ()
    ) -> Call[frozenset[SignalName]]:
        """Change the signal mask; return the previous one."""
        new = tuple(mask)
        old = Buffer(bytes(self._abi.sigset_size), wanted=True)
        return self._describe(
            "sigprocmask",
            (self._abi.mask_operation(how), Buffer(self._abi.signal_set(new)), old, self._abi.sigset_size),
            f"sigprocmask({how if isinstance(how, int) else how.name}, {_signal_set_text(new)})",
            lambda result: self._abi.decode_signal_set(result.memory(old)),
        )

    @system_call
    def sigpending(self) -> Call[frozenset[SignalName]]:
        """Return the signals that are blocked and pending."""
        pending = Buffer(bytes(self._abi.sigset_size), wanted=True)
        return self._describe(
            "sigpending",
            (pending, self._abi.sigset_size),
            "sigpending()",
            lambda result: self._abi.decode_signal_set(result.memory(pending)),
        )

    @system_call
    def sigsuspend(self, mask: Iterable[SignalLike] = ()) -> Call[None]:
        """Wait with another signal mask until a handler has run; always ends with EINTR."""
        signals = tuple(mask)
        text = f"sigsuspend({_signal_set_text(signals)})"
        return self._void("sigsuspend", Buffer(self._abi.signal_set(signals)), self._abi.sigset_size, text=text)

    @system_call
    def sigtimedwait(self, signals: Iterable[SignalLike], timeout: float) -> Call[SigInfo]:
        """Wait up to TIMEOUT seconds for one of SIGNALS, which should be blocked, and take it."""
        awaited = tuple(signals)
        info = Buffer(bytes(self._abi.siginfo_size), wanted=True)
        return self._describe(
            "sigtimedwait",
            (Buffer(self._abi.signal_set(awaited)), info, Buffer(timespec(timeout)), self._abi.sigset_size),
            f"sigtimedwait({_signal_set_text(awaited)}, {timeout} s)",
            lambda result: self._abi.decode_siginfo(result.memory(info)),
            timeout=timeout + 30,
        )
