"""Archives from elsewhere stay in their folder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from harness.unpack import unpack


def packed(*members: tuple[str, bytes, str]) -> tarfile.TarFile:
    """Return an archive of MEMBERS: name, type, and where a link leads or what a file holds."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o755
            if kind == tarfile.REGTYPE:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content.encode()))
            else:
                member.linkname = content
                archive.addfile(member)
    buffer.seek(0)
    return tarfile.open(fileobj=buffer)


def test_files_folders_and_links_are_unpacked(tmp_path: Path) -> None:
    with packed(
        ("sys", tarfile.DIRTYPE, ""), ("sys/a.c", tarfile.REGTYPE, "int a;"), ("b.c", tarfile.SYMTYPE, "sys/a.c")
    ) as archive:
        unpack(archive, tmp_path / "tree")
    assert (tmp_path / "tree/b.c").read_text() == "int a;"


@pytest.mark.parametrize(
    "members",
    [
        [("../outside", tarfile.REGTYPE, "x")],
        [("out", tarfile.SYMTYPE, ".."), ("out/outside", tarfile.REGTYPE, "x")],
        [("inside", tarfile.LNKTYPE, "../secret")],
    ],
    ids=["by its name", "through a link", "as a second name"],
)
def test_nothing_leaves_the_folder(tmp_path: Path, members: list[tuple[str, bytes, str]]) -> None:
    (tmp_path / "secret").write_text("s")
    with packed(*members) as archive, pytest.raises(tarfile.TarError):
        unpack(archive, tmp_path / "tree")
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "tree/inside").exists()
