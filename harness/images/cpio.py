# SPDX-License-Identifier: BSD-2-Clause
"""Writes cpio archives of the "newc" format, which Linux unpacks as its initial root file system.

No host file is needed for an entry, so owners, modes and device nodes can be anything without being root.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import PurePosixPath

_BLOCK = 512  # bytes; archives are padded to it, as cpio(1) does


@dataclass(frozen=True)
class _Entry:
    mode: int  # file type and permissions, as st_mode
    owner: int
    group: int
    content: bytes
    device: tuple[int, int]


class CpioArchive:
    """A tree of files in memory; `to_bytes()` is a newc archive of it.

    Paths are absolute, directories above an entry come into being with it (root's, mode 755), and the same tree
    always gives the same bytes: entries are sorted, times are 0.  Raises ValueError for a path added twice and for one
    below something that is no directory.
    """

    def __init__(self) -> None:
        self._entries: dict[PurePosixPath, _Entry] = {}

    def add_directory(self, path: str, *, mode: int = 0o755, owner: int = 0) -> None:
        """Add a directory with permissions MODE, of user and group OWNER."""
        self._add(path, stat.S_IFDIR | mode, owner=owner)

    def add_file(self, path: str, content: bytes, *, mode: int = 0o644, owner: int = 0) -> None:
        """Add a regular file with permissions MODE, of user and group OWNER."""
        self._add(path, stat.S_IFREG | mode, owner=owner, content=content)

    def add_symlink(self, path: str, target: str) -> None:
        """Add a symbolic link to TARGET."""
        self._add(path, stat.S_IFLNK | 0o777, content=target.encode())

    def add_character_device(self, path: str, major: int, minor: int, *, mode: int = 0o600) -> None:
        """Add a character device node, numbered as in Linux, with permissions MODE."""
        self._add(path, stat.S_IFCHR | mode, device=(major, minor))

    def to_bytes(self) -> bytes:
        """Return the archive, padded to whole blocks of 512 bytes."""
        archive = bytearray()
        for inode, (path, entry) in enumerate(sorted(self._entries.items()), start=1):
            archive += _record(inode, str(path.relative_to("/")), entry)
        archive += _record(0, "TRAILER!!!", _Entry(0, 0, 0, b"", (0, 0)))
        return bytes(archive) + bytes(-len(archive) % _BLOCK)

    def _add(
        self, path: str, mode: int, *, owner: int = 0, content: bytes = b"", device: tuple[int, int] = (0, 0)
    ) -> None:
        where = PurePosixPath(path)
        if not where.is_absolute() or ".." in where.parts or where.name == "":
            raise ValueError(f"{path}: not the absolute path of something below the root")
        if where in self._entries:
            raise ValueError(f"{path}: added twice")
        for above in list(where.parents)[-2::-1]:
            known = self._entries.setdefault(above, _Entry(stat.S_IFDIR | 0o755, 0, 0, b"", (0, 0)))
            if not stat.S_ISDIR(known.mode):
                raise ValueError(f"{path}: {above} is no directory")
        self._entries[where] = _Entry(mode, owner, owner, content, device)


def _record(inode: int, name: str, entry: _Entry) -> bytes:
    """Return one header with its name and content, each padded to a multiple of four bytes."""
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        inode,
        entry.mode,
        entry.owner,
        entry.group,
        links,
        0,  # modification time
        len(entry.content),
        0,  # major and minor number of the device that holds the file
        0,
        *entry.device,
        len(encoded),
        0,  # checksum: unused in this variant
    )
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return head + bytes(-len(head) % 4) + entry.content + bytes(-len(entry.content) % 4)
