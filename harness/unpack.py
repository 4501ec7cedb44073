# SPDX-License-Identifier: BSD-2-Clause
"""Archives unpacked where they belong and nowhere else, also by a Python without tarfile's filters (3.11.2)."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path


def unpack(archive: tarfile.TarFile, folder: Path, *, any_kind: bool = False) -> None:
    """Extract ARCHIVE below FOLDER.

    Raises tarfile.TarError where a member leads out of FOLDER, by its name or through a link unpacked before, and,
    unless members may be of ANY_KIND, where one is a device, a pipe or a link that leads out; OSError for want of room.
    """
    root = folder.resolve()
    # What newer Pythons have for it, and the newest insist on.
    archive.extraction_filter = getattr(tarfile, "tar_filter" if any_kind else "data_filter", None)
    members = _inside(archive, root, any_kind=any_kind)
    archive.extractall(root, members=members)  # noqa: S202  (that is what _inside() is for)


def _inside(archive: tarfile.TarFile, root: Path, *, any_kind: bool) -> Iterator[tarfile.TarInfo]:
    # One after the other, while they are extracted: only then is it known where the links before lead.
    for member in archive:
        ends = [root / member.name]
        if member.islnk():
            ends.append(root / member.linkname)
        elif member.issym() and not any_kind:
            ends.append(ends[0].parent / member.linkname)
        if not all(end.resolve().is_relative_to(root) for end in ends):
            raise tarfile.TarError(f"{member.name} leads out of the archive")
        if not any_kind and member.isdev():
            raise tarfile.TarError(f"{member.name} is neither a file nor a folder nor a link")
        yield member
