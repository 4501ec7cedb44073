# SPDX-License-Identifier: BSD-2-Clause
"""Signal numbers of DragonFly and what each does by default (kern_sig.c: sigproptbl)."""

from __future__ import annotations

from enum import Flag, auto

from harness.processes.abi import DRAGONFLY

NSIG = 64  # signals from here on have no properties: they terminate


class Prop(Flag):
    """Properties of a signal."""

    NONE = 0
    KILL = auto()
    CORE = auto()
    STOP = auto()
    TTYSTOP = auto()
    IGNORE = auto()
    CONT = auto()
    CKPT = auto()


NUMBERS = DRAGONFLY.signals

SIGTRAP, SIGKILL, SIGSYS, SIGSTOP, SIGCONT, SIGCHLD, SIGTTIN, SIGTTOU = (
    NUMBERS[name] for name in ("SIGTRAP", "SIGKILL", "SIGSYS", "SIGSTOP", "SIGCONT", "SIGCHLD", "SIGTTIN", "SIGTTOU")
)
STOP_SIGNALS = frozenset(NUMBERS[name] for name in ("SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU"))
CANNOT_MASK = frozenset({SIGKILL, SIGSTOP})

_SPECIAL = {
    "SIGQUIT SIGILL SIGTRAP SIGABRT SIGEMT SIGFPE SIGBUS SIGSEGV SIGSYS": Prop.KILL | Prop.CORE,
    "SIGURG SIGCHLD SIGIO SIGWINCH SIGINFO SIGTHR": Prop.IGNORE,
    "SIGSTOP": Prop.STOP,
    "SIGTSTP SIGTTIN SIGTTOU": Prop.STOP | Prop.TTYSTOP,
    "SIGCONT": Prop.IGNORE | Prop.CONT,
    "SIGCKPT": Prop.CKPT,
    "SIGCKPTEXIT": Prop.KILL | Prop.CKPT,
}
_BY_NUMBER = {NUMBERS[name]: prop for names, prop in _SPECIAL.items() for name in names.split()}


_PLAIN = frozenset(NUMBERS.values())


def sigprop(number: int) -> Prop:
    """Return the properties of a signal (kern_sig.c: sigprop())."""
    if not 0 < number < NSIG:
        return Prop.NONE
    return _BY_NUMBER.get(number, Prop.KILL if number in _PLAIN else Prop.IGNORE)


# siginit(): ignored by default means ignored on arrival, except for SIGCONT, which has an effect even so.
IGNORED_AT_BIRTH = frozenset(n for n in range(1, NSIG) if Prop.IGNORE in sigprop(n) and n != SIGCONT)
