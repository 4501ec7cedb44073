# SPDX-License-Identifier: BSD-2-Clause
"""debug: look into a kernel that is held, recorded, or dead and dumped: processes, groups, holds, why one stays."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from harness.cli.options import begin_command
from harness.cli.replay import find_recording, target_of
from harness.errors import ExitCode, HarnessError, UsageError
from harness.files import input_file
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.drgnview import drgn_program, interact
from harness.guests.gdbview import PipeReader, write_script
from harness.guests.held import held_machine
from harness.guests.kernelmemory import MemoryReader
from harness.guests.looking import COMMANDS, STRUCTURES, Looking, obey
from harness.guests.whitebox import layouts_of
from harness.kernels.artefact import Kernel
from harness.machine.core import MemoryDump
from harness.machine.elf import KernelSymbols
from harness.machine.gdbstub import GdbStub
from harness.processes.recording import Replay
from harness.report.terminal import make_console, progress_display
from harness.store import Store
from harness.visible import visible


@dataclass(frozen=True)
class _Subject:
    """A kernel that stands still: its memory, its two files, what it is, and where gdb can get at it."""

    reader: MemoryReader
    elf: Path
    debug: Path
    title: str
    gdb: Path | None = None


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add debug."""
    parser = begin_command(
        commands,
        "debug",
        "dfly-harness debug --hold --command dfly-ps --command 'dfly-why 42'",
    )
    parser.description = (
        f"{parser.description}\n\nBoth have the commands {', '.join(COMMANDS)} PID (in drgn: dfly_why(42)).\n"
        "RUN TEST is the recording of a failed test (run --record), at its end; --hold a guest that\n"
        "`hold` or `run --hold` holds; --core what `run --dump-memory` kept."
    )
    parser.add_argument("run", nargs="?", metavar="RUN", help="what `run --json` wrote, or - for the last run")
    parser.add_argument("test", nargs="?", metavar="TEST", help="the test, or a part of its name that is no other's")
    parser.add_argument("--hold", nargs="?", const="", metavar="NAME", help="the guest held as NAME, or the only one")
    parser.add_argument("--core", type=input_file, metavar="FILE", help="a dump of a machine's memory; with --kernel")
    parser.add_argument("--kernel", metavar="NAME", help="whose memory the dump has")
    parser.add_argument(
        "--command", action="append", default=[], dest="asked", metavar="'WORDS'",
        help="print what a command says and leave (repeatable)",
    )  # fmt: skip
    parser.add_argument("--gdb", action="store_true", help="open gdb, not drgn")
    parser.add_argument("--from-gdb", action="store_true", help=argparse.SUPPRESS)  # gdb reads for us
    parser.set_defaults(action=_debug)


def _files(store: Store, elf: str, debug: str, what: str) -> tuple[Path, Path]:
    if not elf:
        raise UsageError(f"{what}: no kernel of the store runs there, so its structures are not known")
    if not debug:
        raise UsageError(f"{what}: its kernel has no debug file: import it with --debug kernel.debug")
    return store.blob(elf), store.blob(debug)


@contextlib.contextmanager
def _subject(options: argparse.Namespace, store: Store) -> Iterator[_Subject]:
    ways = [options.run is not None, options.hold is not None, options.core is not None or options.from_gdb]
    if sum(ways) != 1:
        raise UsageError("say what to look into: RUN TEST, --hold [NAME], or --core FILE --kernel NAME")
    if options.run is not None:
        if options.test is None:
            raise UsageError("which test? debug RUN TEST, a recording that `run --record` made")
        yield from _recorded(options, store)
    elif options.hold is not None:
        machine = held_machine(store, options.hold)
        elf, debug = _files(store, machine.elf, machine.debug, machine.target)
        if not options.asked and _opens_gdb(options):
            yield _Subject(PipeReader(), elf, debug, machine.target, machine.gdb)
            return
        with GdbStub(machine.gdb, paused=machine.paused) as stub:  # the machine stands still meanwhile
            yield _Subject(stub, elf, debug, machine.target)
    else:
        if options.kernel is None:
            raise UsageError("--core needs --kernel NAME: whose memory it is")
        kernel = store.get(Kernel, options.kernel)
        elf, debug = _files(store, kernel.elf, kernel.debug or "", f"kernel {kernel.name}")
        yield _Subject(PipeReader() if options.from_gdb else MemoryDump(options.core), elf, debug, kernel.version)


def _recorded(options: argparse.Namespace, store: Store) -> Iterator[_Subject]:
    recording = find_recording(options.run, options.test, store)
    target, size = target_of(recording, store)
    kernel = target.kernel if isinstance(target, DragonFlyTarget) else None
    elf, debug = _files(store, kernel.elf if kernel else "", (kernel.debug or "") if kernel else "", target.label)
    with Replay(recording, target, store, size) as replay:
        with progress_display("debug") as progress:
            progress("running to the end of the recording")
            replay.run()
        machine = replay.guest.machine
        yield _Subject(machine, elf, debug, f"{recording.test}\n{target.label}", machine.gdb_socket)


def _opens_gdb(options: argparse.Namespace) -> bool:
    return bool(options.gdb or find_spec("drgn") is None)


def _debug(options: argparse.Namespace) -> int:
    store = Store()
    if not options.asked and not sys.stdin.isatty():
        raise UsageError("this needs a terminal; in a script: --command dfly-ps")
    with _subject(options, store) as subject:
        if not options.asked and _opens_gdb(options):
            _open_gdb(subject, store)
            return ExitCode.PASSED
        layouts = layouts_of(subject.debug, store.cache, STRUCTURES)
        symbols = KernelSymbols(subject.elf)
        mark = "say " if options.from_gdb else ""
        if options.asked:
            try:
                look = Looking(subject.reader, symbols, layouts)
                for line in (line for asked in options.asked for line in obey(look, asked)):
                    sys.stdout.write(f"{mark}{visible(line)}\n")
            except HarnessError as error:
                if not options.from_gdb:
                    raise
                sys.stdout.write(f"say {error}\n")
            return ExitCode.PASSED
        program = drgn_program(subject.reader, subject.debug)
        interact(program, Looking(subject.reader, symbols, layouts), subject.title)
    return ExitCode.PASSED


def _open_gdb(subject: _Subject, store: Store) -> None:
    """Open gdb at a machine, with our commands."""
    if subject.gdb is None:
        raise UsageError("gdb reads no dump: pip install 'dfly-harness[debug]', or --command dfly-ps")
    if shutil.which("gdb") is None:
        raise UsageError("neither drgn nor gdb is here: pip install 'dfly-harness[debug]', or --command dfly-ps")
    kernel = next((each.name for each in store.all(Kernel) if each.debug == subject.debug.name), "")
    with tempfile.TemporaryDirectory(prefix="dfly-debug-") as folder:
        code = "import sys; from harness.start import main; sys.exit(main())"
        ours = write_script(Path(folder), [sys.executable, "-c", code, "debug", "--from-gdb", "--kernel", kernel])
        argv = ["gdb", "-q", str(subject.debug), "-ex", f"target remote {subject.gdb}", "-x", str(ours)]
        make_console().print(shlex.join(argv), markup=False, soft_wrap=True)
        subprocess.run(argv, check=False)
