# SPDX-License-Identifier: BSD-2-Clause
"""The code of the control guest's Linux, function by function: what it is for is to prove the measuring itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from harness.coverage.code import FORMAT, Code, code_of_functions, deadly_functions, keep_code, load_code
from harness.errors import UsageError
from harness.guests.guest import Guest
from harness.store import Store

#: What is measured where nothing is named: what the process subsystem's system calls come to.
FUNCTIONS = (
    "kernel_clone", "copy_process", "do_exit", "kernel_wait4", "ksys_setsid", "__x64_sys_setpgid", "do_getpgid",
    "find_vpid", "alloc_pid", "free_pid", "__set_task_comm",
)  # fmt: skip
_LONGEST = 1 << 16  # bytes


def _file(store: Store, target: str, names: Sequence[str]) -> Path:
    asked = hashlib.sha256(" ".join([target, *names]).encode()).hexdigest()[:24]
    return store.cache / f"code-{FORMAT}-{asked}"


def known_control_code(store: Store, target: str, names: Sequence[str]) -> Code | None:
    """Return what control_code() found of the guest with the key TARGET; None if nobody has looked yet."""
    return load_code(_file(store, target, names))


def control_code(store: Store, target: str, guest: Guest, names: Sequence[str]) -> Code:
    """Return the code of the functions NAMES in GUEST, whose key is TARGET, and keep it in STORE.

    The kernel says itself where they are (/proc/kallsyms).  Raises UsageError for one that it does not have.
    """
    rows = [line.split() for line in guest.ssh.run("cat /proc/kallsyms").output.splitlines()]
    addresses = {row[2]: int(row[0], 16) for row in reversed(rows) if row[1] in "Tt" and len(row) == 3}
    ordered = sorted({int(row[0], 16) for row in rows if len(row) == 3})
    following = dict(pairwise(ordered))
    found = []
    for name in names or [each for each in FUNCTIONS if each in addresses]:
        if not addresses.get(name):
            raise UsageError(f"the control guest's kernel has no function {name}: name functions of Linux for it")
        begin = addresses[name]
        size = min(following[begin] - begin, _LONGEST)
        found.append((name, begin, guest.machine.read_virtual(begin, size)))
    code = code_of_functions(found, deadly_functions(addresses))
    file = _file(store, target, names)
    file.parent.mkdir(parents=True, exist_ok=True)
    keep_code(file, code)
    return code
