# SPDX-License-Identifier: BSD-2-Clause
"""Patches: diffs with git's semantics, or a whole kern_proc.c, applied to a tree without touching any file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.kernels.source import KERN_PROC, GitError, SourceTree
from harness.store import digest_of

_HUNK = re.compile(rb"^@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@", re.MULTILINE)
_DIFF = re.compile(rb"^(?:diff --git |@@ -\d+|GIT binary patch|Index: )", re.MULTILINE)
_FAILED = re.compile(r"patch failed: (.+):(\d+)")
# Functions by which a file is known to be a kern_proc.c, of any era.
_KERN_PROC_FUNCTIONS = (b"\npfind(", b"\nprocinit(", b"\nenterpgrp(")
# Where the names in a diff may start: as git writes them, from the top, and from folders below it.
_PLACES = ((1, ""), (0, ""), (1, "sys"), (0, "sys"), (1, "sys/kern"), (0, "sys/kern"))
_SHOWN = 60


class PatchError(UsageError):
    """A patch does not apply; nothing was built."""


@dataclass(frozen=True)
class _Hunk:
    path: str
    number: int
    start: int
    old: tuple[bytes, ...]


def apply_patches(source: SourceTree, files: Sequence[Path]) -> SourceTree:
    """Return SOURCE with the patches in FILES applied one after the other; a file may also be a whole kern_proc.c.

    Raises PatchError that names the first hunk that does not fit and why, UsageError when a file is no patch.
    """
    for file in files:
        source = _apply(source, file)
    return source


def _apply(source: SourceTree, file: Path) -> SourceTree:
    if not file.is_file():
        raise UsageError(f"patch {file} does not exist")
    content = file.read_bytes()
    name = f"{file.name} {digest_of(file)[:12]}"
    sources = source.sources
    with sources.scratch_index(source.tree, source.objects) as index:
        if _DIFF.search(content):
            arguments = _apply_arguments(source, content)
            try:
                sources.git(*arguments, "--check", "-", index=index, objects=source.objects, given=content)
                sources.git(*arguments, "-", index=index, objects=source.objects, given=content)
            except GitError as error:
                raise PatchError(f"{file} does not apply: {_reason(source, content, error.said)}") from None
        elif all(function in content for function in _KERN_PROC_FUNCTIONS):
            blob = sources.git("hash-object", "-w", "--no-filters", "--stdin", given=content).decode().strip()
            sources.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{KERN_PROC}", index=index,
                        objects=source.objects)  # fmt: skip
        else:
            raise UsageError(f"{file} is neither a diff nor a kern_proc.c")
        tree = sources.git("write-tree", index=index, objects=source.objects).decode().strip()
    if tree == source.tree:
        raise PatchError(f"{file} changes nothing: the sources have it already, or it is empty")
    return source.with_tree(tree, name)


def _old_names(content: bytes) -> list[str]:
    lines = [line for line in content.split(b"\n") if line.startswith((b"--- ", b"+++ "))]
    names = [line[4:].split(b"\t")[0].strip().decode(errors="replace") for line in lines]
    return [name for name in names if name != "/dev/null"]


def _place(source: SourceTree, content: bytes) -> tuple[int, str]:
    names = _old_names(content)
    for strip, folder in _PLACES:
        for name in names:
            parts = name.split("/")[strip:]
            if parts and source.has("/".join([folder, *parts] if folder else parts)):
                return strip, folder
    return 1, ""


def _apply_arguments(source: SourceTree, content: bytes) -> list[str]:
    strip, folder = _place(source, content)
    return ["apply", "--cached", f"-p{strip}", *([f"--directory={folder}"] if folder else [])]


def _hunks(content: bytes) -> Iterator[_Hunk]:
    path, number = "", 0
    lines = content.split(b"\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if line.startswith(b"--- ") and at < len(lines) and lines[at].startswith(b"+++ "):
            path = lines[at][4:].split(b"\t")[0].strip().decode(errors="replace")
            at += 1
        elif (match := _HUNK.match(line)) is not None:
            number += 1
            left = int(match[2] or 1)
            old: list[bytes] = []
            while left > len(old) and at < len(lines) and lines[at][:1] in {b" ", b"-", b"+", b"\\", b""}:
                if lines[at][:1] in {b" ", b"-", b""}:
                    old.append(lines[at][1:])
                at += 1
            yield _Hunk(path, number, int(match[1]), tuple(old))


def _reason(source: SourceTree, content: bytes, said: str) -> str:
    """Return which hunk does not fit and why, from git's complaint and a look at the file."""
    complaint = said.strip().removeprefix("error: ").partition("\n")[0]
    failed = _FAILED.search(said)
    if failed is None:
        return complaint
    path, line = failed[1], int(failed[2])
    hunks = list(_hunks(content))
    matching = [hunk for hunk in hunks if hunk.start == line and path.endswith(hunk.path.rpartition("/")[2])]
    if not matching:
        return complaint
    hunk = matching[0]
    return f"hunk {hunk.number} of {len(hunks)} ({path} line {line}): {_mismatch(source.read(path), hunk)}"


def _mismatch(content: bytes | None, hunk: _Hunk) -> str:
    if content is None:
        return "there is no such file"
    lines = content.split(b"\n")
    if any(line.endswith(b"\r") for line in hunk.old) and b"\r" not in content:
        return "the patch has DOS line ends, the file has not"
    if not hunk.old:
        return "it does not fit there"
    start = _best_match(lines, hunk)
    for offset, expected in enumerate(hunk.old):
        number = start + offset
        found = lines[number] if number < len(lines) else None
        if found == expected:
            continue
        if found is None:
            return f"the patch expects {_quoted(expected)}, and the file ends before"
        if found.split() == expected.split():
            return f"line {number + 1} differs in white space: {_quoted(found)}"
        return f"line {number + 1} is {_quoted(found)}, the patch expects {_quoted(expected)}"
    return "it does not fit there"


def _best_match(lines: list[bytes], hunk: _Hunk) -> int:
    """Return where most of the hunk's old lines are found, preferring where the patch says."""

    def score(start: int) -> tuple[int, int]:
        pairs = zip(hunk.old, lines[start : start + len(hunk.old)], strict=False)
        return sum(old == new for old, new in pairs), -abs(start - (hunk.start - 1))

    return max(range(len(lines)), key=score)


def _quoted(line: bytes) -> str:
    text = " ".join(line.decode(errors="replace").split())
    return f"`{text[:_SHOWN]}{'…' if len(text) > _SHOWN else ''}`"
