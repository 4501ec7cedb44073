# SPDX-License-Identifier: BSD-2-Clause
"""Which code of a DragonFly kernel is meant by the names of source files and functions."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Sequence
from pathlib import Path

from harness.coverage.code import FORMAT, Branch, Code, Jump, Line, deadly_functions, jumps_in, keep_code, load_code
from harness.coverage.code import code_of_functions as code_without_lines
from harness.errors import UsageError
from harness.kernels.artefact import Kernel
from harness.machine.elf import KernelSymbols, read_code
from harness.machine.lines import LineTables, Unit
from harness.store import Store

#: What is measured where nothing else is said.
DEFAULT = "kern_proc.c"
_DEADLY = ("panic", "__stack_chk_fail")


def split_names(text: str) -> tuple[str, ...]:
    """Return the names in TEXT, as `--coverage` takes them: `kern_proc.c,kern_wait`; the default for none."""
    return tuple(dict.fromkeys(name.strip() for name in (text or DEFAULT).split(",") if name.strip()))


def kernel_code(store: Store, kernel: Kernel, names: Sequence[str]) -> Code:
    """Return the code of KERNEL that NAMES mean: source files (`kern_exit.c`) and functions (`kern_wait`).

    Reading a debug file takes seconds; the result is kept in the store's cache.  Without a debug file only functions
    can be named, and no lines are known of them.  Raises UsageError for names that the kernel does not have.
    """
    asked = hashlib.sha256(" ".join([kernel.elf, str(kernel.debug), *names]).encode()).hexdigest()[:24]
    file = store.cache / f"code-{FORMAT}-{asked}"
    if (known := load_code(file)) is not None:
        return known
    elf = store.blob(kernel.elf)
    if kernel.debug is not None:
        code = _code_with_lines(elf, store.blob(kernel.debug), names)
    else:
        code = _code_of_functions(kernel, elf, names)
    file.parent.mkdir(parents=True, exist_ok=True)
    keep_code(file, code)
    return code


def _deadly(symbols: KernelSymbols) -> frozenset[int]:
    found = {name: symbol.address for name in _DEADLY if (symbol := symbols.find(name)) is not None}
    return deadly_functions(found)


def _code_of_functions(kernel: Kernel, elf: Path, names: Sequence[str]) -> Code:
    if files := [name for name in names if "." in name]:
        raise UsageError(
            f"the lines of {files[0]} are known by the debug file of kernel {kernel.name} only: import it with"
            " --debug kernel.debug, or name functions (--coverage=pfind,pgfind)"
        )
    symbols = KernelSymbols(elf)
    found = [symbols[name] for name in names]
    texts = [read_code(elf, each.address, each.size) for each in found]
    return code_without_lines(
        [(each.name, each.address, text) for each, text in zip(found, texts, strict=True)], _deadly(symbols)
    )


def _code_with_lines(elf: Path, debug: Path, names: Sequence[str]) -> Code:
    tables, symbols = LineTables(debug), KernelSymbols(elf)
    units: dict[str, Unit] = {}
    whole, chosen = set(), set()
    for name in names:
        if "." in name:
            unit = tables.unit(name)
            whole.add(unit.path)
        else:
            path = tables.unit_at(symbols[name].address)
            if path is None:
                raise UsageError(f"{name} is not C: no lines of it are known")
            unit = tables.unit(path.rpartition("/sys/")[2])
            chosen.add((unit.path, name))
        units[unit.path] = unit
    code = _join(elf, [units[path] for path in sorted(units, key=lambda path: units[path].ranges)], _deadly(symbols))
    return _only(code, whole, chosen)


def _join(elf: Path, units: Sequence[Unit], deadly: frozenset[int]) -> Code:
    lines: dict[Line, int] = {}
    jumps: dict[tuple[str, int, str, int, int], list[Jump]] = {}
    extents: list[tuple[int, int, int]] = []
    ranges = sorted((begin, end, unit) for unit in units for begin, end in unit.ranges if end > begin)
    texts = [read_code(elf, begin, end - begin) for begin, end, _ in ranges]
    place = 0
    for (begin, end, unit), text in zip(ranges, texts, strict=True):
        inside = sorted((each for each in unit.extents if begin <= each.begin < end), key=lambda each: each.begin)
        own = [each for each in inside if not each.inlined]
        starts = [each.begin for each in own]
        for each in inside:
            line = Line(unit.path, each.line, _function(unit, each.line))
            number = lines.setdefault(line, len(lines))
            extents.append((place + each.begin - begin, place + min(each.end, end) - begin, number))
        for jump in jumps_in(begin, text, deadly):
            at = bisect.bisect_right(starts, jump.address) - 1
            if at >= 0 and jump.address < own[at].end:
                number = own[at].line
                function = _function(unit, number)
                key = (unit.path, number, function, own[at].column, jump.condition)
                jumps.setdefault(key, []).append(jump)
        place += len(text)
    branches = tuple(Branch(*key[:4], tuple(all_jumps)) for key, all_jumps in sorted(jumps.items()))
    return Code(tuple(lines), branches, tuple(each[0] for each in ranges), tuple(texts), tuple(extents))


def _function(unit: Unit, line: int) -> str:
    at = bisect.bisect_right(unit.functions, (line, "\x7f")) - 1
    return unit.functions[at][1] if at >= 0 else ""


def _only(code: Code, whole: set[str], chosen: set[tuple[str, str]]) -> Code:
    """Return CODE without lines and branches outside the files WHOLE and the functions CHOSEN."""

    def is_meant(each: Line | Branch) -> bool:
        return each.file in whole or (each.file, each.function) in chosen

    kept = [number for number, line in enumerate(code.lines) if is_meant(line)]
    numbers = {old: new for new, old in enumerate(kept)}
    return Code(
        tuple(code.lines[old] for old in kept),
        tuple(each for each in code.branches if is_meant(each)),
        code.addresses,
        code.texts,
        tuple((begin, end, numbers[line]) for begin, end, line in code.extents if line in numbers),
    )
