# SPDX-License-Identifier: BSD-2-Clause
"""Kernel sources: a directory, a revision of a repository or a source archive, each as a git tree of the store's own.

A tree is named by its content (git's tree hash), so that two ways to the same sources are one.  Patches are applied to
such trees without a checkout, and only what is built is ever written out.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from harness.errors import HarnessError, UsageError
from harness.files import write_whole
from harness.store import Store, digest_of
from harness.toolchain import run_tool
from harness.unpack import unpack

#: What makes a folder a DragonFly source tree, and what a replacement file given as a patch replaces.
KERN_PROC = "sys/kern/kern_proc.c"

_ARCHIVES = (".tar", ".tar.bz2", ".tbz", ".tar.gz", ".tgz", ".tar.xz", ".txz")
# Sources are bytes: no attribute of theirs, and no setting of the user's, may change what is stored or written.
_ATTRIBUTES = "* -text -filter -ident -export-subst -export-ignore -working-tree-encoding\n"
_TREE = "040000"
_UNREADABLE = re.compile(r"unable to read sha1 file of (.+) \([0-9a-f]+\)$", re.MULTILINE)


class GitError(HarnessError):
    """A git command failed; `said` is its standard error."""

    def __init__(self, command: str, said: str) -> None:
        self.said = said
        super().__init__(f"git {command} failed: {said.strip().partition(chr(10))[0] or 'it gives no reason'}")


class MissingContentError(UsageError):
    """A repository does not have all files of a revision; `paths` are those that git complained of."""

    def __init__(self, origin: str, said: str) -> None:
        self.paths = tuple(dict.fromkeys(_UNREADABLE.findall(said)))
        which = f"the contents of {self.paths[0]}" if self.paths else "the contents of some files"
        others = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        super().__init__(f"{origin} lacks {which}{others} (a partial clone?): git fetch --refetch gets them")


class SourceStore:
    """The bare repository in the store that holds every tree and what patches make of it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.folder = store.folder("cache", "sources")
        self._git_dir = self.folder / "objects.git"

    def git(
        self,
        *arguments: str,
        index: Path | None = None,
        work_tree: Path | None = None,
        objects: Sequence[Path] = (),
        given: bytes = b"",
    ) -> bytes:
        """Run git on the repository and return its output; raises GitError when it fails."""
        self._prepare()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environment |= {
            "GIT_DIR": str(self._git_dir),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "LC_ALL": "C",
        }
        if index is not None:
            environment["GIT_INDEX_FILE"] = str(index)
        if work_tree is not None:
            environment["GIT_WORK_TREE"] = str(work_tree)
        if objects:
            environment["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = os.pathsep.join(map(str, objects))
        # Never collected in the middle of a build: nothing refers to these trees.
        argv = ["git", "-c", "gc.auto=0", "-c", "core.quotePath=false", "-c", "core.compression=1", *arguments]
        try:
            done = run_tool(argv, env=environment, input=given, cwd=work_tree)
        except FileNotFoundError:
            raise HarnessError("git is not installed: dfly-harness doctor --fix installs it") from None
        if done.returncode != 0:
            raise GitError(arguments[0], done.stderr.decode(errors="replace"))
        return bytes(done.stdout)

    def _prepare(self) -> None:
        if (self._git_dir / "info" / "attributes").exists():
            return
        with self.store.lock("sources"):
            if (self._git_dir / "info" / "attributes").exists():
                return
            run_tool(["git", "init", "-q", "--bare", str(self._git_dir)]).check_returncode()
            (self._git_dir / "info").mkdir(exist_ok=True)
            write_whole(self._git_dir / "info" / "attributes", _ATTRIBUTES)

    @contextmanager
    def scratch_index(self, tree: str, objects: Sequence[Path]) -> Iterator[Path]:
        """Give a private index filled with TREE."""
        with self.store.scratch("index") as folder:
            index = folder / "index"
            self.git("read-tree", tree, index=index, objects=objects)
            yield index

    # Ways in

    def from_directory(self, folder: Path) -> str:
        """Return the tree of what is in FOLDER now, less this store; quick when little has changed since."""
        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
        with self.store.lock(f"source-{name}"):
            index = self.folder / f"{name}.index"
            # Left behind by a command that was killed: we hold the lock, nobody else uses it.
            index.with_name(f"{index.name}.lock").unlink(missing_ok=True)
            root, home = folder.resolve(), self.store.home.resolve()
            ours = [f":(exclude,literal){home.relative_to(root)}"] if home.is_relative_to(root) else []
            self.git("add", "--all", "--force", "--", ".", *ours, index=index, work_tree=root)
            return self.git("write-tree", index=index).decode().strip()

    def from_archive(self, file: Path) -> str:
        """Return the tree of the sources in FILE, such as the src-sys.tar.bz2 on a release's CD."""
        digest = digest_of(file)
        known = self.folder / f"{digest}.tree"
        if known.exists():
            return known.read_text().strip()
        with self.store.lock(f"source-{digest[:32]}"), self.store.scratch("source") as folder:
            if known.exists():
                return known.read_text().strip()
            try:
                with tarfile.open(file) as archive:
                    unpack(archive, folder / "tree", any_kind=True)
            except (tarfile.TarError, OSError, EOFError) as error:
                raise UsageError(f"{file} is no archive of sources: {error}") from None
            root = _root_below(folder / "tree")
            if root is None:
                raise UsageError(f"{file} holds no DragonFly sources (no {KERN_PROC})")
            index = folder / "index"
            self.git("add", "--all", "--force", ".", index=index, work_tree=root)
            tree = self.git("write-tree", index=index).decode().strip()
            part = folder / "tree.part"
            part.write_text(f"{tree}\n")
            part.replace(known)
            return tree


def _root_below(folder: Path) -> Path | None:
    candidates = [folder, *(child for child in sorted(folder.iterdir()) if child.is_dir())] if folder.is_dir() else []
    return next((root for root in candidates if (root / KERN_PROC).is_file()), None)


@dataclass(frozen=True)
class SourceTree:
    """Sources as a git tree: `tree` is its hash, `origin` where it came from, `patches` what was done to it since."""

    sources: SourceStore = field(repr=False)
    tree: str
    origin: str
    base: str = ""
    patches: tuple[str, ...] = ()
    objects: tuple[Path, ...] = ()

    @property
    def base_tree(self) -> str:
        """The hash of the tree before any patch."""
        return self.base or self.tree

    def read(self, path: str) -> bytes | None:
        """Return the content of the file PATH, or None if there is none."""
        try:
            return self.sources.git("cat-file", "blob", f"{self.tree}:{path}", objects=self.objects)
        except GitError:
            return None

    def has(self, path: str) -> bool:
        """Tell whether there is a file PATH."""
        return self.read(path) is not None

    def changed_since(self, tree: str) -> dict[str, bool]:
        """Return the paths in which this tree differs from TREE, and whether each is (still) there."""
        shown = self.sources.git("diff-tree", "-r", "--no-renames", "--name-status", "-z", tree, self.tree,
                                 objects=self.objects)  # fmt: skip
        words = shown.decode(errors="surrogateescape").split("\0")
        return {path: status != "D" for status, path in zip(words[::2], words[1::2], strict=False) if path}

    def write_to(self, folder: Path) -> None:
        """Write the files into FOLDER, which must be empty."""
        folder.mkdir(parents=True, exist_ok=True)
        with self.sources.scratch_index(self.tree, self.objects) as index:
            try:
                self.sources.git(
                    "checkout-index", "--all", "--force", index=index, work_tree=folder.resolve(), objects=self.objects
                )
            except GitError as error:
                if "unable to read" not in error.said:
                    raise
                raise MissingContentError(self.origin, error.said) from None

    def archive(self, file: Path, paths: Sequence[str] = ()) -> None:
        """Write the files, or only those at PATHS, to FILE as a tar archive, compressed by gzip."""
        self.sources.git("archive", "--format=tar.gz", "-1", f"--output={file.absolute()}", self.tree, *paths,
                         objects=self.objects)  # fmt: skip

    def with_file(self, path: str, content: bytes, what: str) -> SourceTree:
        """Return the same sources with CONTENT as the file PATH, which is WHAT was done to them."""
        with self.sources.scratch_index(self.tree, self.objects) as index:
            blob = self.sources.git("hash-object", "-w", "--no-filters", "--stdin", given=content).decode().strip()
            self.sources.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", index=index,
                             objects=self.objects)  # fmt: skip
            tree = self.sources.git("write-tree", index=index, objects=self.objects).decode().strip()
        return self.with_tree(tree, what)

    def with_tree(self, tree: str, patch: str) -> SourceTree:
        """Return what PATCH made of it: TREE."""
        return replace(self, tree=tree, base=self.base_tree, patches=(*self.patches, patch))


def open_source(store: Store, where: Path, revision: str | None = None) -> SourceTree:
    """Return the sources at WHERE: a source directory, a git repository with a REVISION, or a source archive.

    Raises UsageError when there are no DragonFly sources there or the repository has no such revision.
    """
    sources = SourceStore(store)
    if not where.exists():
        raise UsageError(f"source {where} does not exist")
    if revision is not None:
        tree, objects, commit = _resolve(where, revision)
        found = SourceTree(sources, tree, f"{where.resolve()} at {revision} ({commit[:12]})", objects=(objects,))
        if not found.has(KERN_PROC):
            raise UsageError(f"{where} at {revision} holds no DragonFly sources (no {KERN_PROC})")
        return found
    if where.is_file():
        if not where.name.endswith(_ARCHIVES):
            raise UsageError(f"source {where} is neither a folder nor an archive ({', '.join(_ARCHIVES)})")
        return SourceTree(sources, sources.from_archive(where), str(where.resolve()))
    if not (where / KERN_PROC).is_file():
        if (where / "HEAD").is_file() and (where / "objects").is_dir():
            raise UsageError(f"{where} is a bare repository: say which revision (--rev)")
        parent = next((folder for folder in where.resolve().parents if (folder / KERN_PROC).is_file()), None)
        hint = f": did you mean {parent}?" if parent is not None else ""
        raise UsageError(f"{where} holds no DragonFly sources (no {KERN_PROC}){hint}")
    return SourceTree(sources, sources.from_directory(where), str(where.resolve()))


def _resolve(repository: Path, revision: str) -> tuple[str, Path, str]:
    """Return tree, object directory and commit of REVISION in the user's own REPOSITORY."""

    def git(*arguments: str) -> str:
        # Which repositories may be read is the user's setting: git's own environment applies.
        done = run_tool(["git", "-C", str(repository), *arguments], text=True)
        if done.returncode != 0:
            raise GitError(arguments[0], done.stderr)
        return str(done.stdout).strip()

    if not repository.is_dir():
        raise UsageError(f"--rev needs a git repository, and {repository} is a file")
    try:
        objects = (repository / git("rev-parse", "--git-path", "objects")).resolve()
    except GitError as error:
        raise UsageError(f"{repository} is no git repository: {error.said.strip().partition(chr(10))[0]}") from None
    try:
        commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        tree = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{tree}}")
    except GitError:
        raise UsageError(f"{repository} has no revision {revision!r}") from None
    top = PurePosixPath(git("rev-parse", "--show-prefix") or ".")
    if str(top) != ".":
        raise UsageError(f"{repository} lies inside a repository: give its top folder")
    return tree, objects, commit
