# SPDX-License-Identifier: BSD-2-Clause
"""The oracle: an executable specification of DragonFly's process subsystem, by era, in plain Python.

`make_oracle().spawn()` gives a process with the interface of a driven one.  kernel.py holds the state, model.py what
it is made of, rules.py each promise by itself, sources.py where it comes from; pids, jobs, lifecycle, reapers, wait,
signals, delivery, creds, jails, scans, maps and views say what the system calls do, each function naming the C function
it specifies; calls.py decides who runs next; eras.py has what kernels of different years do differently, variants.py
breaks the promises one at a time.
"""

from harness.oracle.eras import DEFAULT_ERA, ERAS, Era, era_of, split_target
from harness.oracle.oracle import Oracle, make_oracle
from harness.oracle.process import OraclePending, OracleProcess, OracleWouldBlock
from harness.oracle.variants import VARIANTS, Variant, rules_of, variants_of

__all__ = [
    "DEFAULT_ERA",
    "ERAS",
    "VARIANTS",
    "Era",
    "Oracle",
    "OraclePending",
    "OracleProcess",
    "OracleWouldBlock",
    "Variant",
    "era_of",
    "make_oracle",
    "rules_of",
    "split_target",
    "variants_of",
]
