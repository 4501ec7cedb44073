# SPDX-License-Identifier: BSD-2-Clause
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


OUTWARD = [("out", tarfile.SYMTYPE, "../secret")]
PIPE = [("pipe", tarfile.FIFOTYPE, "")]


@pytest.mark.parametrize("filtered", [True, False], ids=["this Python", "a Python without filters"])
@pytest.mark.parametrize("members", [OUTWARD, PIPE], ids=["a link that leads out", "a pipe"])
def test_only_an_archive_that_may_holds_more_than_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: list[tuple[str, bytes, str]], *, filtered: bool
) -> None:
    if not filtered and hasattr(tarfile, "data_filter"):
        monkeypatch.setattr(tarfile, "data_filter", tarfile.fully_trusted_filter)
    with packed(*members) as archive, pytest.raises(tarfile.TarError):
        unpack(archive, tmp_path / "strict")
    assert not list((tmp_path / "strict").iterdir() if (tmp_path / "strict").exists() else [])
    with packed(*members) as archive:
        unpack(archive, tmp_path / "tree", any_kind=True)
    assert [each.name for each in (tmp_path / "tree").iterdir()] == [members[0][0]]


@pytest.mark.parametrize("any_kind", [True, False])
@pytest.mark.parametrize(
    "members",
    [
        [("../outside", tarfile.REGTYPE, "x")],
        [("out", tarfile.SYMTYPE, ".."), ("out/outside", tarfile.REGTYPE, "x")],
        [("inside", tarfile.LNKTYPE, "../secret")],
    ],
    ids=["by its name", "through a link", "as a second name"],
)
def test_nothing_leaves_the_folder(tmp_path: Path, members: list[tuple[str, bytes, str]], *, any_kind: bool) -> None:
    (tmp_path / "secret").write_text("s")
    with packed(*members) as archive, pytest.raises(tarfile.TarError):
        unpack(archive, tmp_path / "tree", any_kind=any_kind)
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "tree/inside").exists()
