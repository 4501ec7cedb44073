# SPDX-License-Identifier: BSD-2-Clause
"""What differs between the system call interfaces of the guests: numbers, bit values and structure layouts."""

from __future__ import annotations

import os
import signal as host_signal
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from enum import Enum, Flag
from typing import ClassVar, TypeVar

from harness.processes.vocabulary import (
    O_CLOFORK,
    Clock,
    IdType,
    Resource,
    SigFlag,
    SigHow,
    SigInfo,
    SignalLike,
    SignalName,
    WaitOption,
    WaitStatus,
)

F = TypeVar("F", bound=Flag)
E = TypeVar("E", bound=Enum)


class Abi(ABC):
    """A system call interface.  Names of this package in, the guest's numbers out, and the other way round."""

    name: ClassVar[str]
    numbers: ClassVar[Mapping[str, int]]  # system calls
    errnos: ClassVar[Mapping[int, str]]
    signals: ClassVar[Mapping[str, int]]
    wait_options: ClassVar[Mapping[WaitOption, int]]
    id_types: ClassVar[Mapping[IdType, int]]
    signal_flags: ClassVar[Mapping[SigFlag, int]]
    mask_operations: ClassVar[Mapping[SigHow, int]]
    resources: ClassVar[Mapping[Resource, int]]
    clocks: ClassVar[Mapping[Clock, int]]
    open_flags: ClassVar[Mapping[str, int]]  # by the name of the host's os.O_ constant, and O_CLOFORK
    ioctls: ClassVar[Mapping[str, int]]
    ptrace_requests: ClassVar[Mapping[str, int]]
    sigset_size: ClassVar[int]  # bytes
    siginfo_size: ClassVar[int]  # bytes

    @property
    def is_dragonfly(self) -> bool:
        """Whether this is DragonFly's interface (and not that of the control target)."""
        return self.name == "dragonfly"

    @abstractmethod
    def decode_status(self, raw: int) -> WaitStatus:
        """Decode a status word of wait4()."""

    @abstractmethod
    def decode_siginfo(self, data: bytes) -> SigInfo:
        """Decode siginfo_t."""

    def errno_name(self, number: int) -> str:
        """Return the name of a guest errno."""
        return self.errnos.get(number, f"errno {number}")

    def signal_number(self, signal: SignalLike) -> int:
        """Return the guest's number of a signal; a plain int is taken as it is.

        Raises ValueError for a name this ABI lacks.
        """
        if isinstance(signal, host_signal.Signals):
            signal = signal.name
        if isinstance(signal, int):
            return signal
        if signal not in self.signals:
            raise ValueError(f"{self.name} has no signal {signal}")
        return self.signals[signal]

    def signal_name(self, number: int) -> SignalName:
        """Return the host's constant for a guest signal number, or its name where the host has no such signal."""
        name = self._signal_names().get(number, f"signal {number}")
        return host_signal.Signals.__members__.get(name, name)

    def _signal_names(self) -> Mapping[int, str]:
        return {number: name for name, number in self.signals.items()}

    def signal_set(self, signals: Iterable[SignalLike]) -> bytes:
        """Encode a sigset_t."""
        bits = 0
        for signal in signals:
            bits |= 1 << (self.signal_number(signal) - 1)
        return bits.to_bytes(self.sigset_size, "little")

    def decode_signal_set(self, data: bytes) -> frozenset[SignalName]:
        """Decode a sigset_t."""
        bits = int.from_bytes(data, "little")
        return frozenset(self.signal_name(bit + 1) for bit in range(len(data) * 8) if bits >> bit & 1)

    def wait_option_bits(self, options: WaitOption | int) -> int:
        """Return the guest's bits for wait options."""
        return self._bits(self.wait_options, options)

    def signal_flag_bits(self, flags: SigFlag | int) -> int:
        """Return the guest's bits for sigaction flags."""
        return self._bits(self.signal_flags, flags)

    def decode_signal_flags(self, bits: int) -> SigFlag:
        """Return the sigaction flags set in BITS; unknown bits (SA_RESTORER) are left out."""
        flags = SigFlag(0)
        for flag, bit in self.signal_flags.items():
            if bits & bit:
                flags |= flag
        return flags

    def _bits(self, table: Mapping[F, int], value: F | int) -> int:
        if isinstance(value, int):
            return value
        bits = 0
        for flag in value:
            if flag not in table:
                raise ValueError(f"{self.name} has no {flag.name}")
            bits |= table[flag]
        return bits

    def mask_operation(self, how: SigHow | int) -> int:
        """Return the guest's number of a sigprocmask() operation; the host's signal.SIG_BLOCK etc. go by name."""
        if isinstance(how, host_signal.Sigmasks):
            how = SigHow[how.name]
        return self._number(self.mask_operations, how)

    def id_type_number(self, idtype: IdType | int) -> int:
        """Return the guest's number of an id type."""
        return self._number(self.id_types, idtype)

    def resource_number(self, resource: Resource | int) -> int:
        """Return the guest's number of a resource limit."""
        return self._number(self.resources, resource)

    def clock_number(self, clock: Clock | int) -> int:
        """Return the guest's number of a clock."""
        return self._number(self.clocks, clock)

    def _number(self, table: Mapping[E, int], value: E | int) -> int:
        if isinstance(value, int):
            return value
        if value not in table:
            raise ValueError(f"{self.name} has no {value.name}")
        return table[value]

    def open_flag_bits(self, flags: int) -> int:
        """Translate the host's os.O_ flags, and O_CLOFORK, to the guest's.

        Raises ValueError for O_CLOFORK where the guest's interface has none.
        """
        if flags & O_CLOFORK and "O_CLOFORK" not in self.open_flags:
            raise ValueError(f"{self.name} has no O_CLOFORK")
        bits = flags & 3  # the access mode is the same everywhere
        for name, bit in self.open_flags.items():
            host = O_CLOFORK if name == "O_CLOFORK" else getattr(os, name, 0)
            if host and flags & host == host:
                bits |= bit
        return bits


def decode_bsd_status(abi: Abi, raw: int, continued: int) -> WaitStatus:
    """Decode a status word; all systems agree on its bits, except on the one word that means "continued"."""
    if raw == continued:
        return WaitStatus(raw, continued=True)
    low = raw & 0x7F
    if low == 0x7F:
        return WaitStatus(raw, stop_signal=abi.signal_name(raw >> 8 & 0xFF))
    if low:
        return WaitStatus(raw, signal=abi.signal_name(low), core_dumped=bool(raw & 0x80))
    return WaitStatus(raw, exit_status=raw >> 8 & 0xFF)
