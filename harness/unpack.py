"""Archives unpacked where they belong and nowhere else, also by a Python without tarfile's filters (3.11.2)."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path


def unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Extract ARCHIVE below FOLDER.

    Raises tarfile.TarError where a member leads out of FOLDER, by its name or through a link unpacked before, OSError
    where there is no room.
    """
    root = folder.resolve()
    archive.extraction_filter = getattr(tarfile, "tar_filter", None)  # as good, and what newer Pythons insist on
    archive.extractall(root, members=_inside(archive, root))  # noqa: S202  (that is what _inside() is for)


def _inside(archive: tarfile.TarFile, root: Path) -> Iterator[tarfile.TarInfo]:
    # One after the other, while they are extracted: only then is it known where the links before lead.
    for member in archive:
        for name in (member.name, *([member.linkname] if member.islnk() else [])):
            if not (root / name).resolve().is_relative_to(root):
                raise tarfile.TarError(f"{member.name} leads out of the archive")
        yield member
