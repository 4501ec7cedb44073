# SPDX-License-Identifier: BSD-2-Clause
"""Files that are written whole or not at all."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import secrets
import select
import sys
from pathlib import Path

_PIPE_SECONDS = 1.0  # until somebody opens a pipe to write to it

#: What `--json -` means: the record is printed, and what is for people goes to standard error.
STANDARD_OUTPUT = Path("-")


def write_whole(file: Path, content: str | bytes, *, durable: bool = False, mode: int = 0o666) -> None:
    """Write CONTENT to FILE, text as UTF-8: whoever reads FILE meanwhile, or after a crash, finds the old or the new.

    With DURABLE it is on the disk afterwards.  MODE is that of a new file, less the umask.  What is no regular file,
    such as a pipe, is written to as it is.  Raises OSError; nothing half is left then.
    """
    data = content.encode() if isinstance(content, str) else content
    if file == STANDARD_OUTPUT:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    if file.exists() and not file.is_file():
        with file.open("wb") as stream:
            stream.write(data)
        return
    target = file.resolve()  # a link stays one
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        part.replace(target)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def output_file(text: str) -> Path:
    """Return the file TEXT, given on a command line; raises argparse.ArgumentTypeError for one nobody can write.

    Better told now than after hours of work.
    """
    file = Path(text)
    folder = file.absolute().parent
    if file.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder: name a file in it")
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{text} cannot be written: there is no folder {folder}")
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written: permission denied")
    return file


def record_file(text: str) -> Path:
    """Return the file TEXT as output_file() does, STANDARD_OUTPUT for `-`."""
    return STANDARD_OUTPUT if text == str(STANDARD_OUTPUT) else output_file(text)


def read_file(file: Path) -> str:
    """Return the text of FILE; raises OSError for a pipe that nobody writes to, which would be waited for.

    A shell's `<(command)` has a writer from the beginning on, however long that takes.
    """
    if not file.is_fifo():
        return file.read_text()
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as stream:
        select.select([stream], [], [], _PIPE_SECONDS)
        begun = stream.read(1)  # nothing: nobody is there; None: somebody is, and has not written yet
        os.set_blocking(stream.fileno(), True)
        if begun == b"":
            raise OSError(errno.EPIPE, "nobody writes to this pipe")
        return ((begun or b"") + stream.readall()).decode()


def input_file(text: str) -> Path:
    """Return the file TEXT, given on a command line; raises argparse.ArgumentTypeError for what is there but no file.

    A pipe would be waited for, and what is kept of a file has to be read more than once.
    """
    file = Path(text)
    if file.exists() and not file.is_file():
        raise argparse.ArgumentTypeError(f"{text} is {'a folder' if file.is_dir() else 'no regular file'}")
    return file
