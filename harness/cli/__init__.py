# SPDX-License-Identifier: BSD-2-Clause
"""The dfly-harness command."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from harness.cli.commands import MODULES, SUMMARIES
from harness.config import store_home
from harness.errors import ExitCode, HarnessError, SignalledError

_LOADING = "<frozen importlib"  # code that loads modules
_AGAIN = 0.05  # s until a signal that comes there is sent once more


class _Version(argparse.Action):
    """Prints the version, which takes long to find out, when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from harness import __version__

        sys.stdout.write(f"dfly-harness {__version__}\n")
        parser.exit()


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of COMMAND and its like, or of all commands where none is named.

    Of what is no command, an option or a mistake, it knows what commands there are, and nothing of them.
    """
    parser = argparse.ArgumentParser(
        prog="dfly-harness",
        description="Boots real DragonFly BSD kernels under QEMU and holds kern_proc.c to its word.",
        epilog="exit status: 0 passed, 1 a test failed, 2 usage, 3 the harness or the host failed, 130 Ctrl-C",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show program's version number and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    if command is not None and command not in SUMMARIES:
        for name, summary in SUMMARIES.items():
            commands.add_parser(name, help=summary)
        return parser
    for module in [name for name, brought in MODULES.items() if command is None or command in brought]:
        importlib.import_module(f"harness.cli.{module}").add_commands(commands)
    return parser


def keep_traceback(error: BaseException) -> str:
    """Write down the traceback of ERROR, in the store if that can be written; return where, in words."""
    text = "".join(traceback.format_exception(error))
    for folder in (store_home() / "tracebacks", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            number, name = tempfile.mkstemp(prefix="dfly-harness-", suffix=".txt", dir=folder)
            with open(number, "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except OSError:  # a full disk may be what it is about
            continue
        return f"in {name}"
    return f"nowhere, no disk takes it: {' '.join(text.split())}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; every failure a user can cause is one line on standard error."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = build_parser(words[0] if words else "")
    options, rest = parser.parse_known_args(words)
    action: Callable[[argparse.Namespace], int] | None = getattr(options, "action", None)
    if action is None:  # an option before the command, of which there are no others
        parser.error(f"unrecognized arguments: {words[0]}")
    if rest and not getattr(options, "takes_rest", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest

    def end(number: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code.co_filename.startswith(_LOADING):
            # An exception there may be dropped, and a lock of Python's that other threads wait for never given back.
            again = threading.Timer(_AGAIN, os.kill, [os.getpid(), number])
            again.daemon = True
            again.start()
            return
        # Unwinds so that machines are stopped in order; pytest would hold anything else against the test.
        raise KeyboardInterrupt if number == signal.SIGINT else SignalledError(number)

    # The terminal that goes away ends a command as well, unless that is ignored (nohup).
    previous = {
        number: signal.signal(number, end)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }

    def say(text: str, style: str = "bold red") -> None:
        from harness.report.terminal import make_console  # which --help does without

        make_console().print(f"dfly-harness: {text}", style=style, markup=False, soft_wrap=True)

    try:
        return action(options)
    except HarnessError as error:
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, SignalledError) else int(signal.SIGINT)
        word = "interrupted" if number == signal.SIGINT else "terminated"
        say(f"{word}; all machines are stopped", "bold")
        return 128 + number
    except BrokenPipeError:
        sys.stderr.close()
        return ExitCode.HARNESS_FAILED
    except OSError as error:
        say(str(error))
        return ExitCode.HARNESS_FAILED
    except Exception as error:
        said = " ".join(str(error).split())
        say(
            f"unexpected {type(error).__name__}{': ' if said else ''}{said};"
            f" this says nothing about a kernel, the traceback is {keep_traceback(error)}"
        )
        return ExitCode.HARNESS_FAILED
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
