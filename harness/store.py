# SPDX-License-Identifier: BSD-2-Clause
"""The store: base images, kernels and what is derived from them, in one folder that can be copied with rsync.

Content lives once, read-only, under `blobs/` by its SHA-256; names are small JSON records that refer to it.  Everything
is written to a scratch name and renamed into place under a lock, so that two commands at once never harm each other and
an interrupted one leaves nothing that looks finished.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from filelock import FileLock, Timeout

from harness.config import store_home
from harness.errors import DeadlineError, HarnessError, UsageError
from harness.files import write_whole

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_LOCK_DEADLINE = 600.0
_LOCK_POLL = 0.05
# The folders whose records keep blobs alive.
_KINDS = frozenset({"builds", "images", "kernels", "media"})
# Left free on the file system when something large is written, in bytes.
_HEADROOM = 64 << 20


@dataclass(frozen=True)
class Entry:
    """A named entry of the store; subclasses add what they know and list their blobs."""

    KIND: ClassVar[str]
    PLURAL: ClassVar[str]
    #: Names that mean something else where one of these is named.
    TAKEN: ClassVar[frozenset[str]] = frozenset()

    name: str

    def blobs(self) -> dict[str, str]:
        """Return the SHA-256 of every blob this record needs, by role."""
        return {}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Rebuild the record; unknown fields, written by a newer version, are ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


_R = TypeVar("_R", bound=Entry)


def _say_nothing() -> None:
    """Wait without a word."""


_CHUNK = 1 << 20


def digest_of(file: Path) -> str:
    """Return the SHA-256 of FILE's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _copy(file: Path, to: Path) -> str:
    """Copy FILE's content and return the SHA-256 of what was written."""
    digest = hashlib.sha256()
    with file.open("rb") as source, to.open("wb") as target:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
    return digest.hexdigest()


def _size_of(folder: Path) -> int:
    return sum(512 * file.stat().st_blocks for file in folder.iterdir() if file.is_file())  # files may have holes


class Store:
    """The folder itself; see the module's description."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = store_home() if home is None else home
        try:
            self.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HarnessError(
                f"the store {self.home} cannot be made ({error.strerror}): set DFLY_HARNESS_HOME to a writable folder"
            ) from error

    def folder(self, *parts: str) -> Path:
        """Return a folder of the store, made if need be."""
        path = self.home.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def cache(self) -> Path:
        """Derived things that can be made again: compiled programs, probe results, the control guest."""
        return self.folder("cache")

    @contextlib.contextmanager
    def lock(
        self, name: str = "store", *, deadline: float = _LOCK_DEADLINE, when_taken: Callable[[], None] = _say_nothing
    ) -> Iterator[None]:
        """Hold the lock called NAME; WHEN_TAKEN is called before another command is waited for.

        Raises DeadlineError when another command holds it for DEADLINE seconds.
        """
        lock = FileLock(self.folder("locks") / f"{name}.lock")
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                when_taken()
                lock.acquire(timeout=deadline)
        except Timeout:
            raise DeadlineError(f"another dfly-harness command to release the lock {name!r}", deadline) from None
        try:
            yield
        finally:
            lock.release()

    def require_space(self, size: int, purpose: str, *, headroom: int = _HEADROOM) -> None:
        """Raise HarnessError unless SIZE bytes and HEADROOM more are free where the store lives."""
        free = shutil.disk_usage(self.home).free
        if free < size + headroom:
            raise HarnessError(
                f"no room for {purpose}: {(size + headroom) >> 20} MiB needed in {self.home}, {free >> 20} MiB free;"
                " free some space or set DFLY_HARNESS_HOME to a larger disk"
            )

    # scratch folders

    @contextlib.contextmanager
    def scratch(self, purpose: str) -> Iterator[Path]:
        """Give a private folder that is gone afterwards, and swept up later should this process be killed."""
        folder = Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=self.folder("run")))
        owner = None
        try:
            # The lock tells a folder in use from one whose owner died: the kernel drops it with the process.  Nobody
            # may see the file without it.
            owner = os.open(folder / ".owner.new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(owner, fcntl.LOCK_EX)
            (folder / ".owner.new").rename(folder / ".owner")
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if owner is not None:
                os.close(owner)

    def sweep(self) -> int:
        """Remove scratch folders whose owners are dead; return how many."""
        swept = 0
        for folder in self.folder("run").iterdir():
            try:
                owner = os.open(folder / ".owner", os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                continue  # just being made, or just being removed
            try:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            else:
                shutil.rmtree(folder, ignore_errors=True)
                swept += 1
            finally:
                os.close(owner)
        return swept

    # blobs

    def add_blob(self, file: Path, *, move: bool = False, mode: int = 0o444) -> str:
        """Take FILE's content into the store and return its SHA-256; MOVE when FILE may be consumed.

        Somebody may write to FILE meanwhile: the digest is that of what is kept.
        """
        blobs = self.folder("blobs")
        if (blobs / (known := digest_of(file))).exists():
            return known
        if not move:
            self.require_space(file.stat().st_size, file.name)
        with self.scratch("blob") as folder:
            part = folder / "content"
            if move:
                shutil.move(file, part)
                digest = digest_of(part)
            else:
                digest = _copy(file, part)
            part.chmod(mode)
            part.replace(blobs / digest)
        return digest

    def blob(self, digest: str) -> Path:
        """Return the file that holds a blob; raises HarnessError when it is missing."""
        path = self.home / "blobs" / digest
        if not path.is_file():
            raise HarnessError(f"the store lost blob {digest[:12]}: import it again")
        return path

    @contextlib.contextmanager
    def adding(self) -> Iterator[None]:
        """Keep prune() away between add_blob() and the record that refers to the blob; any number may add at once."""
        with self._in_use("blobs", fcntl.LOCK_SH, "a prune of the store to end"):
            yield

    @contextlib.contextmanager
    def downloading(self) -> Iterator[None]:
        """Keep prune() away from half downloads; any number may download at once."""
        with self._in_use("downloads", fcntl.LOCK_SH, "a prune of the store to end"):
            yield

    @contextlib.contextmanager
    def _in_use(self, what: str, mode: int, awaited: str, deadline: float = _LOCK_DEADLINE) -> Iterator[None]:
        use = os.open(self.folder("locks") / f"{what}.use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            end = time.monotonic() + deadline
            while True:
                try:
                    fcntl.flock(use, mode | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > end:
                        raise DeadlineError(awaited, deadline) from None
                    time.sleep(_LOCK_POLL)
            yield
        finally:
            os.close(use)

    def prune(self, *, thorough: bool = False, qemu: str | None = None, state_format: str | None = None) -> int:
        """Remove blobs no record refers to, and folders of dead processes; return the bytes freed.

        Warm states, and recordings that begin in one, go when a blob they need is gone, or they are of another QEMU
        than version QEMU or of another format than STATE_FORMAT.  THOROUGH also removes half downloads, refused files
        and damaged warm states.  What another command works on stays.
        """
        with self._in_use("blobs", fcntl.LOCK_EX, "other dfly-harness commands to end their imports"), self.lock():
            self.sweep()
            used: set[str] = set()
            for record in self.home.glob("*/*.json"):
                if record.parent.name in _KINDS:
                    # A damaged record may need any blob.
                    try:
                        used.update(json.loads(record.read_text()).get("_blobs", {}).values())
                    except (ValueError, AttributeError):
                        raise HarnessError(f"{record} is damaged: nothing is pruned before it is removed") from None
            freed = self._prune_states(
                used, {"qemu": qemu, "format": state_format}, set(self.damaged_snapshots()) if thorough else set()
            )
            if thorough:
                freed += self._prune_downloads()
            for blob in self.folder("blobs").iterdir():
                if blob.name not in used:
                    freed += blob.stat().st_size
                    blob.unlink()
            return freed

    def _prune_states(self, used: set[str], wanted: Mapping[str, str | None], damaged: set[str]) -> int:
        freed = 0
        for folder in [*self.folder("snapshots").iterdir(), *self.folder("recordings").iterdir()]:
            try:
                about = json.loads((folder / "warm.json").read_text())
                needed = set(about.get("needs", ()))
                stale = any(value is not None and about.get(name) != value for name, value in wanted.items())
            except (OSError, ValueError, AttributeError):
                needed, stale = {"damaged"}, True
            if needed <= used and not stale and folder.name not in damaged:
                continue
            with contextlib.suppress(DeadlineError), self.lock(f"snapshot-{folder.name}", deadline=0):
                freed += _size_of(folder)
                shutil.rmtree(folder, ignore_errors=True)
        return freed

    def _prune_downloads(self) -> int:
        freed = 0
        folder = self.folder("downloads")
        with contextlib.suppress(DeadlineError), self._in_use("downloads", fcntl.LOCK_EX, "downloads to end", 0):
            for file in [*folder.glob("*.part"), *folder.glob("*.given"), *folder.glob("refused/*")]:
                freed += file.stat().st_size
                file.unlink()
        return freed

    def damaged_blobs(self) -> list[str]:
        """Recompute every digest and return the blobs whose content is not what their name says."""
        return [blob.name for blob in sorted(self.folder("blobs").iterdir()) if digest_of(blob) != blob.name]

    def damaged_snapshots(self) -> list[str]:
        """Return the warm states whose files are not what was saved."""
        damaged = []
        for folder in sorted(self.folder("snapshots").iterdir()):
            try:
                about = json.loads((folder / "warm.json").read_text())
                sound = all(digest_of(folder / name) == digest for name, digest in about["digests"].items())
            except (OSError, ValueError, KeyError, AttributeError):
                sound = False
            if not sound:
                damaged.append(folder.name)
        return damaged

    # records

    def _path(self, kind: type[Entry], name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no name for {kind.KIND}s: letters, digits, '.', '_', '+' and '-' only")
        return self.folder(kind.PLURAL) / f"{name}.json"

    def put(self, record: Entry, *, replace: bool = False) -> None:
        """Write RECORD; raises UsageError when the name is taken and REPLACE is not set."""
        path = self._path(type(record), record.name)
        if record.name in type(record).TAKEN:
            raise UsageError(
                f"{record.name!r} means something else where a {record.KIND} is named: choose another name"
            )
        with self.lock():
            if path.exists() and not replace:
                raise UsageError(
                    f"{record.KIND} {record.name!r} exists already: choose another name, or remove it first"
                    f" (dfly-harness {record.KIND} remove {record.name})"
                )
            write_whole(path, json.dumps({**asdict(record), "_blobs": record.blobs()}, indent=2) + "\n")

    def get(self, kind: type[_R], name: str) -> _R:
        """Return the record called NAME; raises UsageError naming the ones there are."""
        path = self._path(kind, name)
        if not path.exists():
            known = ", ".join(record.name for record in self.all(kind)) or "none yet"
            raise UsageError(f"no {kind.KIND} {name!r} in the store (there: {known})")
        return self._load(kind, path)

    def _load(self, kind: type[_R], path: Path) -> _R:
        try:
            return kind.from_json(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise HarnessError(f"{path} is damaged ({error}): remove it and import the {kind.KIND} again") from error

    def all(self, kind: type[_R]) -> list[_R]:
        """Return all records of a kind, by name."""
        return [self._load(kind, path) for path in sorted(self.folder(kind.PLURAL).glob("*.json"))]

    def remove(self, kind: type[Entry], name: str) -> None:
        """Remove a record; its blobs go with the next prune unless another record needs them."""
        self.get(kind, name)
        with self.lock():
            self._path(kind, name).unlink(missing_ok=True)
