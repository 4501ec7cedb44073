# SPDX-License-Identifier: BSD-2-Clause
"""Small C programs for the guests and the boot path, built by the host's compiler and cached by content."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import DeadlineError, HarnessError
from harness.files import write_whole

TOOL_DEADLINE = 1800.0
_SHOWN = 80  # characters of a command in a message


def run_tool(
    argv: Sequence[str], *, deadline: float = TOOL_DEADLINE, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Run ARGV to its end, as subprocess.run() does with OPTIONS, and capture what it says.

    Raises DeadlineError, and kills it, when it has not ended after DEADLINE seconds.
    """
    try:
        return subprocess.run(argv, capture_output=True, check=False, timeout=deadline, **options)
    except subprocess.TimeoutExpired:
        raise DeadlineError(f"`{' '.join(map(str, argv))[:_SHOWN]}` to end", deadline) from None


def _find_compiler() -> str:
    """Return the host's C compiler: $CC, else gcc, else clang."""
    for name in (os.environ.get("CC", ""), "gcc", "clang", "cc"):
        if name and (found := shutil.which(name)):
            return found
    raise HarnessError("no C compiler found: install gcc or clang (dfly-harness doctor --fix does)")


def has_header(name: str) -> bool:
    """Tell whether the host's C compiler finds the header NAME: a compiler may be there without the C library's."""
    try:
        argv = [_find_compiler(), "-E", "-x", "c", "-"]
        return run_tool(argv, input=f"#include <{name}>\n", text=True, deadline=60.0).returncode == 0
    except (HarnessError, OSError):
        return False


def _compiler_identity(compiler: str) -> str:
    done = run_tool([compiler, "--version"], text=True, deadline=60.0)
    return str(done.stdout).partition("\n")[0]


def compile_program(
    name: str, sources: Sequence[Path], flags: Sequence[str], cache: Path, *, depends: Sequence[Path] = ()
) -> Path:
    """Compile and link SOURCES with FLAGS into CACHE and return the program's path.

    The file name carries a hash of the compiler, the flags and the content of all sources and DEPENDS (headers, linker
    scripts), so an unchanged program is never built twice and a changed one never mistaken for the old one.  Safe to
    call from several processes at once.  Raises HarnessError when there is no compiler or it reports an error.
    """
    compiler = _find_compiler()
    digest = hashlib.sha256("\0".join([_compiler_identity(compiler), *flags]).encode())
    for file in (*sources, *depends):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    program = cache / f"{name}-{digest.hexdigest()[:16]}"
    if _is_sound(program):
        return program
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=cache) as scratch:
        output = Path(scratch) / name
        argv = [compiler, *flags, "-o", str(output), *map(str, sources)]
        done = run_tool(argv, text=True)
        if done.returncode != 0:
            first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
            raise HarnessError(f"{compiler} could not build {name}: {first}")
        made = hashlib.sha256(output.read_bytes()).hexdigest()
        output.replace(program)
        write_whole(_seal(program), made + "\n")
    return program


def _seal(program: Path) -> Path:
    """Return the file that has the digest of a compiled PROGRAM: a power failure may have left an empty one."""
    return program.with_name(f"{program.name}.sha256")


def _is_sound(program: Path) -> bool:
    try:
        return _seal(program).read_text().strip() == hashlib.sha256(program.read_bytes()).hexdigest()
    except (OSError, ValueError):
        return False


def damaged_programs(cache: Path) -> list[Path]:
    """Return the compiled programs in CACHE that are not as they were made; the next use makes each again."""
    seals = sorted(cache.glob("*.sha256"))
    return [program for seal in seals if (program := seal.with_suffix("")).exists() and not _is_sound(program)]
