# SPDX-License-Identifier: BSD-2-Clause
"""The git side: which commits are in question, what they contain, and what undoing one would give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.bisect.history import History
from harness.errors import HarnessError, UsageError
from harness.kernels.source import GitError, SourceStore, SourceTree
from harness.store import Store
from harness.toolchain import run_tool

_PARAM_H = "sys/sys/param.h"
_FILES_SHOWN = 50
_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git's name for it; git itself keeps no empty folders


@dataclass(frozen=True)
class Commit:
    """A commit as people know it."""

    hash: str
    author: str
    date: str
    subject: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """The commits in question: HISTORY, and the pairs that make the same kernel (None stands for the good end)."""

    good: tuple[str, ...]
    bad: str
    history: History
    alike: tuple[tuple[str, str | None], ...]
    #: Those of `good` that nobody called good: where branches parted, to be tested first.
    bases: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Entry:
    """What a folder has: a file, a link or another folder, as MODE says."""

    mode: str
    kind: str
    digest: str

    def line(self, name: str) -> str:
        """Return it under NAME as `git mktree` reads it."""
        return f"{self.mode} {self.kind} {self.digest}\t{name}"


def _folder(digest: str) -> _Entry:
    return _Entry("040000", "tree", digest)


def _modes_of(tree: bytes, width: int) -> Iterator[tuple[str, str]]:
    """Yield name and mode of each entry of TREE, an object of git's whose hashes have WIDTH bytes."""
    while tree:
        about, _, rest = tree.partition(b"\0")
        mode, _, name = about.partition(b" ")
        yield name.decode(errors="surrogateescape"), mode.decode()
        tree = rest[width:]


class Repository:
    """The user's git repository at FOLDER; it is only read.

    PATHS limit the commits in question, as in git bisect; NEEDS are the paths that a kernel is built from: commits that
    leave these alone make the same kernel, and only these are given to the builder.  Without NEEDS that is everything.
    What is below EXCLUDE is not among them.  A commit that has none of it, such as one of another project's whose
    branch was merged, makes no kernel.  With FIRST_PARENT no other parent of a merge is followed.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        paths: Sequence[str] = (),
        needs: Sequence[str] = (),
        exclude: Sequence[str] = (),
        *,
        first_parent: bool = False,
    ) -> None:
        if not folder.is_dir():
            raise UsageError(f"{folder} is no git repository")
        self.folder = folder
        self.paths = tuple(paths)
        self.needs = tuple(needs)
        self.exclude = tuple(PurePosixPath(path) for path in exclude)
        self._first_parent = first_parent
        self._pruned: dict[tuple[str, tuple[PurePosixPath, ...]], str] = {}
        self._sources = SourceStore(store)
        try:
            self._objects = (folder / self._git("rev-parse", "--git-path", "objects").strip()).resolve()
        except GitError as error:
            first = error.said.strip().partition("\n")[0]
            raise UsageError(f"{folder} is no git repository: {first}") from None

    def _git(self, *arguments: str, given: str | None = None) -> str:
        # Which repositories may be read is the user's setting: git's own environment applies.
        argv = ["git", "-C", str(self.folder), "-c", "core.quotePath=false", *arguments]
        try:
            done = run_tool(argv, input=given.encode() if given else None)
        except FileNotFoundError:
            raise HarnessError("git is not installed: dfly-harness doctor --fix installs it") from None
        if done.returncode != 0:
            raise GitError(arguments[0], done.stderr.decode(errors="replace"))
        return bytes(done.stdout).decode(errors="replace")

    def resolve(self, revision: str) -> str:
        """Return the hash of the commit REVISION; raises UsageError when there is none."""
        try:
            return self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").strip()
        except GitError:
            raise UsageError(f"{self.folder} has no revision {revision!r}") from None

    def is_ancestor(self, old: str, new: str) -> bool:
        """Tell whether OLD is NEW or an ancestor of it."""
        try:
            self._git("merge-base", "--is-ancestor", old, new)
        except GitError as error:
            if error.said.strip():
                raise
            return False
        return True

    def range(self, good: Iterable[str], bad: str) -> Range:
        """Return the commits that are in BAD and in none of GOOD; raises UsageError when there are none."""
        goods, end = tuple(self.resolve(each) for each in good), self.resolve(bad)
        goods, bases = self._before(goods, end)
        listed = self._git(
            "rev-list", "--topo-order", "--reverse", "--parents", *(["--first-parent"] if self._first_parent else []),
            end, "--not", *goods, "--", *self.paths,
        ).splitlines()  # fmt: skip
        if not listed:
            of = f" that touches {', '.join(self.paths)}" if self.paths else ""
            raise UsageError(f"there is no commit{of} between {goods[0][:12]} and {end[:12]}")
        self._check_needed(end)
        self._check_excluded((*goods, end))
        parents = {words[0]: words[1:] for words in (line.split() for line in listed)}
        history = History(list(parents), parents)
        alike = self._alike(history, goods) if self.needs or self.exclude else ()
        return Range(goods, end, history, alike, bases)

    def _before(self, goods: Sequence[str], end: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return GOODS with those on other branches replaced by where these left END's, and the latter by themselves.

        As git bisect does it for a tag of a release branch.
        """
        found: list[str] = []
        bases: list[str] = []
        for each in goods:
            if self.is_ancestor(each, end):
                found.append(each)
                continue
            try:
                parted = self._git("merge-base", "--all", each, end).split()
            except GitError as error:
                if error.said.strip():
                    raise
                parted = []
            if not parted or end in parted:
                raise UsageError(
                    f"{each[:12]} (good) is no ancestor of {end[:12]} (bad): bisecting needs a line between them"
                )
            bases += parted
        bases = [base for base in dict.fromkeys(bases) if base not in found]
        return (*dict.fromkeys(found), *bases), tuple(bases)

    def _alike(self, history: History, good: Sequence[str]) -> tuple[tuple[str, str | None], ...]:
        """Return the pairs of commit and parent in which nothing differs that a kernel is built from."""
        trees = self.trees([*history.commits, *good])
        found: list[tuple[str, str | None]] = []
        for commit in history.commits:
            near = history.parents[commit]
            if len(near) == 1 and trees[near[0]] == trees[commit]:
                found.append((commit, near[0]))
            elif not near and any(trees[each] == trees[commit] for each in good):
                found.append((commit, None))
        return tuple(found)

    def parents(self, commit: str) -> tuple[str, ...]:
        """Return the parents of COMMIT, as they are in the repository."""
        found = tuple(self._git("rev-list", "--parents", "-1", commit).split()[1:])
        return found[:1] if self._first_parent else found

    # Contents

    def trees(self, commits: Sequence[str]) -> dict[str, str]:
        """Return for each commit the hash of the tree that its kernel is built from."""
        return dict(zip(commits, self._reduced([f"{commit}^{{tree}}" for commit in commits]), strict=True))

    def tree(self, commit: str) -> SourceTree:
        """Return what the kernel of COMMIT is built from."""
        return self.source(self.trees([commit])[commit], commit)

    def source(self, tree: str, commit: str, what: str = "") -> SourceTree:
        """Return TREE, known from trees(), as sources of COMMIT."""
        origin = f"{self.folder.resolve()} at {commit[:12]}{what}"
        return SourceTree(self._sources, tree, origin, objects=(self._objects,))

    def _objects_named(self, names: Sequence[str]) -> list[tuple[str, str] | None]:
        """Return kind and hash of each of the objects NAMES, None for one that is not there."""
        given = "".join(f"{name}\n" for name in names).encode()
        answers = self._sources.git("cat-file", "--batch-check=%(objecttype) %(objectname)", objects=(self._objects,),
                                    given=given).decode(errors="replace").splitlines()  # fmt: skip
        words = [answer.split() for answer in answers]
        return [(each[0], each[1]) if each[0] in {"tree", "blob"} else None for each in words]

    def _check_needed(self, commit: str) -> None:
        if self.needs and not any(self._objects_named([f"{commit}:{path}" for path in self.needs])):
            raise UsageError(f"there is none of {', '.join(self.needs)} in {commit[:12]}")

    def _check_excluded(self, commits: Sequence[str]) -> None:
        for path in self.exclude:
            if not any(self._objects_named([f"{commit}:{path}" for commit in commits])):
                raise UsageError(f"there is no {path} to exclude in {commits[-1][:12]}")

    def _reduced(self, trees: Sequence[str]) -> list[str]:
        """Return the hashes of TREES, each without what a kernel does not need."""
        return [self._without(tree, self.exclude) for tree in self._needed(trees)]

    def _without(self, tree: str, paths: tuple[PurePosixPath, ...]) -> str:
        """Return the hash of TREE without what is at PATHS."""
        if not paths or tree == _EMPTY_TREE:  # such as a commit of a branch that somebody else's code came by
            return tree
        if (known := self._pruned.get((tree, paths))) is not None:
            return known
        objects, left = (self._objects,), []
        listed = self._sources.git("ls-tree", "-z", tree, objects=objects).decode(errors="surrogateescape")
        for entry in listed.removesuffix("\0").split("\0"):
            about, _, name = entry.partition("\t")
            below = [path.relative_to(name) for path in paths if path.parts[:1] == (name,)]
            if PurePosixPath() in below:
                continue
            if below and " tree " in about:
                mode, kind, digest = about.split()
                if (rest := self._without(digest, tuple(below))) == _EMPTY_TREE:
                    continue
                entry = f"{mode} {kind} {rest}\t{name}"
            left.append(entry)
        given = "".join(f"{entry}\0" for entry in left).encode(errors="surrogateescape")
        made = self._sources.git("mktree", "-z", "--missing", objects=objects, given=given).decode().strip()
        self._pruned[tree, paths] = made
        return made

    def _needed(self, trees: Sequence[str]) -> list[str]:
        """Return the hashes of TREES, each reduced to what is needed: nothing, in one that has none of it."""
        places = [PurePosixPath(path) for path in self.needs]
        # What lies in a folder that is needed comes with it.
        places = [path for path in dict.fromkeys(places) if not any(above in places for above in path.parents)]
        if not places or PurePosixPath() in places:
            found = self._objects_named(trees)
            if None in found:
                raise HarnessError(f"{self.folder} lacks the tree of a commit (a shallow clone?)")
            return [each[1] for each in found if each is not None]
        hashes = [name.removesuffix("^{tree}") for name in trees]
        # For each tree what is in each of its folders, the deepest being made first.
        folders: list[dict[PurePosixPath, dict[str, _Entry]]] = []
        for entries in self._entries(hashes, places):
            content: dict[PurePosixPath, dict[str, _Entry]] = {PurePosixPath(): {}}
            for path, entry in entries.items():
                content.setdefault(path.parent, {})[path.name] = entry
                for above in path.parent.parents:
                    content.setdefault(above, {})
            folders.append(content)
        tops = [_EMPTY_TREE] * len(folders)
        for folder in sorted({each for content in folders for each in content}, key=lambda each: -len(each.parts)):
            chosen = [number for number, content in enumerate(folders) if content.get(folder)]
            made = self._folders_made([folders[number][folder] for number in chosen])
            for number, digest in zip(chosen, made, strict=True):
                if folder.parts:
                    folders[number].setdefault(folder.parent, {})[folder.name] = _folder(digest)
                else:
                    tops[number] = digest
        return tops

    def _folders_made(self, contents: Sequence[Mapping[str, _Entry]]) -> list[str]:
        """Return the hashes of folders with CONTENTS, which are made."""
        if not contents:
            return []
        given = "\0\0".join("\0".join(entry.line(name) for name, entry in sorted(each.items())) for each in contents)
        return self._sources.git("mktree", "-z", "--missing", "--batch", objects=(self._objects,),
                                 given=f"{given}\0".encode(errors="surrogateescape")).decode().split()  # fmt: skip

    def _entries(self, trees: Sequence[str], places: Sequence[PurePosixPath]) -> Iterator[dict[PurePosixPath, _Entry]]:
        """Yield for each of TREES what it has at PLACES."""
        found = iter(self._objects_named([f"{tree}:{path}" for tree in trees for path in places]))
        objects = [{path: entry for path in places if (entry := next(found)) is not None} for _ in trees]
        files = [f"{tree}:{path.parent}" if path.parent.parts else f"{tree}^{{tree}}"
                 for tree, each in zip(trees, objects, strict=True)
                 for path, (kind, _) in each.items() if kind == "blob"]  # fmt: skip
        modes = iter(self._modes(files))
        for each in objects:
            yield {
                path: _folder(digest) if kind == "tree" else _Entry(next(modes)[path.name], kind, digest)
                for path, (kind, digest) in each.items()
            }

    def _modes(self, folders: Sequence[str]) -> list[dict[str, str]]:
        """Return for each of FOLDERS the modes of what it has, by name: whether it may be executed, or is a link."""
        if not folders:
            return []
        hashes = [each[1] for each in self._objects_named(folders) if each is not None]
        wanted = list(dict.fromkeys(hashes))
        raw = self._sources.git("cat-file", "--batch", objects=(self._objects,), given="\n".join(wanted).encode())
        known: dict[str, dict[str, str]] = {}
        for digest in wanted:
            about, _, rest = raw.partition(b"\n")
            size = int(about.split()[2])
            known[digest] = dict(_modes_of(rest[:size], len(digest) // 2))
            raw = rest[size + 1 :]
        return [known[digest] for digest in hashes]

    def reverted(self, culprit: str, tip: str) -> SourceTree | None:
        """Return TIP without what CULPRIT changed, or None where that does not revert cleanly.

        As `git revert` does it, in the store's own repository: nothing of the user's is touched.
        """
        parents = self.parents(culprit)
        if len(parents) != 1:
            return None  # undoing a merge needs to know which side to keep: --first-parent says it
        git, objects = self._sources.git, (self._objects,)
        with self._sources.store.scratch("revert") as folder:
            index = folder / "index"
            tree = f"{tip}^{{tree}}"
            try:
                patch = git("diff-tree", "-p", "--binary", "--full-index", culprit, parents[0], objects=objects)
                git("read-tree", tree, index=index, objects=objects)
                git(
                    "apply", "--3way", "--cached", "--whitespace=nowarn", "-", index=index, objects=objects, given=patch
                )
                undone = git("write-tree", "--missing-ok", index=index, objects=objects).decode().strip()
            except GitError:
                return None
        return self.source(self._reduced([undone])[0], tip, f" without {culprit[:12]}")

    def osreldate(self, commit: str) -> int:
        """Return __DragonFly_version of COMMIT, 0 where it has none."""
        try:
            text = self._git("cat-file", "blob", f"{commit}:{_PARAM_H}")
        except GitError:
            return 0
        for line in text.splitlines():
            words = line.split()
            if len(words) >= 3 and words[:2] == ["#define", "__DragonFly_version"]:
                return int(words[2]) if words[2].isdigit() else 0
        return 0

    def subjects(self, commits: Sequence[str]) -> dict[str, str]:
        """Return the subject of each of COMMITS."""
        shown = self._git("show", "-s", "--format=%H%x00%s", "--stdin", given="".join(f"{each}\n" for each in commits))
        return {words[0]: words[1] for line in shown.splitlines() if len(words := line.split("\0")) == 2}

    def about(self, commit: str) -> Commit:
        """Return author, date, subject and files of COMMIT."""
        author, date, subject = self._git("show", "-s", "--format=%an%x00%as%x00%s", commit).rstrip("\n").split("\0")
        names = self._git("diff-tree", "-r", "--root", "--no-commit-id", "--name-only", "-m", "--first-parent", commit)
        return Commit(commit, author, date, subject, tuple(dict.fromkeys(names.splitlines()))[:_FILES_SHOWN])
