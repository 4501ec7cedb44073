# SPDX-License-Identifier: BSD-2-Clause
"""Files and folders into a guest and out of it."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.guests.ssh import SshConnection

if TYPE_CHECKING:
    import paramiko

#: Where in a guest a file lies that was put there without a path.
PLACE = "/tmp"  # noqa: S108  (in the guest, which is ours alone)


@dataclass(frozen=True)
class Put:
    """A FILE of this host, or a folder, that is to lie at PATH in every guest."""

    file: Path
    path: str

    @classmethod
    def parse(cls, text: str) -> Put:
        """Read FILE[:PATH]; raises ValueError where there is no such file.

        The path begins at the last colon, unless a file is called so; without one the file goes to /tmp.
        """
        file, colon, path = text.rpartition(":")
        if not colon or Path(text).exists():
            file, path = text, ""
        if not Path(file).exists():
            raise ValueError(f"there is no file {file}: write FILE[:PATH]")
        if not (Path(file).is_file() or Path(file).is_dir()):
            raise ValueError(f"{file} is neither a file nor a folder")  # a pipe would be waited for
        return cls(Path(file).absolute(), path or posixpath.join(PLACE, Path(file).name))

    def __str__(self) -> str:
        return f"{self.file}:{self.path}"


def put_all(connection: SshConnection, puts: Iterable[Put]) -> None:
    """Let all PUTS lie in the guest; folders above are made.  Raises what copy_in() raises."""
    for put in puts:
        with connection.sftp(f"writing {put.path}") as session:
            _make_folder(session, posixpath.dirname(put.path))
            _send(session, put.file, put.path)


def copy_in(connection: SshConnection, files: Sequence[Path], remote: str) -> None:
    """Copy FILES, folders with all that is in them, to REMOTE, which begins at the user's home unless at `/`.

    As cp(1) does: into a folder under their own names, and one file under the name REMOTE.  Raises UsageError for files
    that are not there, and what SshConnection.sftp() raises.
    """
    if missing := [file for file in files if not file.exists()]:
        raise UsageError(f"there is no file {missing[0]}")
    with connection.sftp(f"writing {remote or 'files'}") as session:
        place = remote or "."
        into = not remote or remote.endswith("/") or _is_folder(session, place)
        if len(files) > 1 and not into:
            raise UsageError(f"{remote} is no folder in the guest: several files need one, which ends with /")
        if into:
            _make_folder(session, place.rstrip("/") or "/")
        for file in files:
            _send(session, file, posixpath.join(place, file.resolve().name) if into else place)


def copy_out(connection: SshConnection, remotes: Sequence[str], place: Path) -> None:
    """Copy REMOTES, files or folders of the guest, to PLACE, as copy_in() does the other way."""
    into = place.is_dir()
    if len(remotes) > 1 and not into:
        raise UsageError(f"{place} is no folder: several files need one")
    for remote in remotes:
        name = posixpath.basename(remote.rstrip("/"))
        if into and name in {"", ".", ".."}:
            raise UsageError(f"{remote or 'an empty path'} in the guest has no name to be copied under")
        with connection.sftp(f"reading {remote}") as session:
            _fetch(session, remote, place / name if into else place)


def _is_folder(session: paramiko.SFTPClient, path: str) -> bool:
    try:
        return stat.S_ISDIR(session.stat(path).st_mode or 0)
    except FileNotFoundError:
        return False


def _make_folder(session: paramiko.SFTPClient, path: str) -> None:
    """Make the folder PATH and those above it, as far as they are missing."""
    if path and not _is_folder(session, path):
        _make_folder(session, posixpath.dirname(path))
        session.mkdir(path, 0o755)


def _send(session: paramiko.SFTPClient, file: Path, remote: str) -> None:
    if file.is_dir():
        _make_folder(session, remote)
        for each in sorted(file.iterdir()):
            _send(session, each, posixpath.join(remote, each.name))
        return
    if not file.is_file():
        raise UsageError(f"{file} is neither a file nor a folder")
    try:
        stream = file.open("rb")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    with stream:
        session.putfo(stream, remote, confirm=True)
    session.chmod(remote, stat.S_IMODE(file.stat().st_mode))


def _fetch(session: paramiko.SFTPClient, remote: str, file: Path) -> None:
    if _is_folder(session, remote):
        file.mkdir(exist_ok=True)
        for name in sorted(session.listdir(remote)):
            if "/" in name or name in {".", ".."}:
                raise UsageError(f"the guest names a file {name!r}")
            _fetch(session, posixpath.join(remote, name), file / name)
        return
    with session.open(remote, "rb") as theirs:
        theirs.prefetch()
        try:
            ours = file.open("wb")
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror}") from None
        with ours:
            while chunk := theirs.read(1 << 20):
                ours.write(chunk)
