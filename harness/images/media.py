# SPDX-License-Identifier: BSD-2-Clause
"""Installation media in the store: fetched or copied in, verified, unpacked."""

from __future__ import annotations

import bz2
import contextlib
import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar
from urllib.parse import urljoin

from harness.errors import HarnessError, UsageError
from harness.files import write_whole
from harness.images.download import Mirror, OfflineError, Transfer, download, fetch_text, find_mirrors
from harness.images.manifest import Checksum, Manifest, Medium
from harness.store import Entry, Store

_DAY = 86400.0
_CHUNK = 1 << 20
# What an unpacked CD takes, as a multiple of its bzip2 file, until it is there.
_UNPACKED = 3.5
# The volume descriptor of ISO 9660 follows 16 unused sectors: a type, the signature, ... and when the volume was made.
_DESCRIPTOR = 16 * 2048
_ISO_SIGNATURE = (_DESCRIPTOR + 1, b"CD001")
_ISO_MADE = (_DESCRIPTOR + 813, 14)  # year to second, as digits


@dataclass(frozen=True)
class InstallationMedium(Entry):
    """The installation CD of a release; `iso` is its blob, `verified` says by whose word it is what it should be.

    `made` is when the CD was made, as it says itself; `modified` the date of its file, as a mirror stated it.
    """

    KIND: ClassVar[str] = "medium"
    PLURAL: ClassVar[str] = "media"

    iso: str
    file: str = ""
    source: str = ""
    fetched_sha256: str = ""
    verified: str = ""
    fetched: str = ""
    made: str = ""
    modified: str = ""

    def blobs(self) -> dict[str, str]:
        """Return the blob of the CD."""
        return {"iso": self.iso}


class _NoCdError(HarnessError):
    """A file is right by its digest, or nobody knows better, and holds no CD."""


class _Pins:
    """The digests of files for which nobody has published one, as they were when first seen."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._file = store.home / "pins.json"

    def _load(self) -> dict[str, dict[str, str]]:
        try:
            pins = json.loads(self._file.read_text())
        except FileNotFoundError:
            return {}
        except ValueError:
            raise HarnessError(
                f"{self._file} is damaged: restore it, or remove it to trust what is fetched next"
            ) from None
        return dict(pins)

    def known(self, file: str) -> str | None:
        """Return the SHA-256 pinned for FILE."""
        pin = self._load().get(file)
        return pin["sha256"] if pin else None

    def add(self, file: str, sha256: str, source: str) -> None:
        """Pin FILE to its digest."""
        with self._store.lock("pins"):
            pins = self._load()
            pins[file] = {"sha256": sha256, "source": source, "since": _now()}
            write_whole(self._file, json.dumps(pins, indent=2) + "\n")


def _made(iso: Path) -> str:
    """Return when the CD in ISO was made, as 14 digits, or nothing where it does not say."""
    offset, length = _ISO_MADE
    with iso.open("rb") as stream:
        stream.seek(offset)
        stated = stream.read(length)
    # A volume without a date has zeros there.
    return stated.decode() if stated.isdigit() and stated.strip(b"0") else ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def choose_medium(manifest: Manifest) -> Medium:
    """Return the file of MANIFEST to fetch: the first whose checksum is known, else the first."""
    return next((medium for medium in manifest.media if medium.checksums), manifest.media[0])


def fetch_medium(
    manifest: Manifest,
    store: Store,
    *,
    transfer: Transfer = lambda _have, _end: None,
    say: Callable[[str], None] = lambda _: None,
    given: Path | None = None,
) -> InstallationMedium:
    """Return the installation CD of MANIFEST from the store, fetching and verifying it first if it is not there.

    GIVEN is a copy that somebody brought: it is verified just the same.  SAY gets a line for what a person must know.
    Two commands that want the same CD fetch it once.  Of a rolling release the newest edition is fetched if the store
    does not have it yet.  Raises OfflineError at once when there is no network, naming the file to bring; HarnessError
    when the file is not what it should be (it is kept aside) or there is no room.
    """
    if (known := _known(manifest, store)) is not None:
        return known
    with store.downloading(), store.lock(f"download-{manifest.release}", deadline=_DAY):
        if (known := _known(manifest, store)) is not None:
            return known
        return _Fetch(manifest, store, transfer, say).run(given)


def _known(manifest: Manifest, store: Store) -> InstallationMedium | None:
    """Return the CD of MANIFEST if it is in the store; of a rolling release that is known for a given edition only."""
    if manifest.rolling and not manifest.edition:
        return None
    found = next((medium for medium in _present(store) if medium.name == manifest.named(manifest.edition)), None)
    if found is None and manifest.rolling:
        raise UsageError(
            f"{manifest.named(manifest.edition)} is not in the store, and mirrors keep the newest only:"
            f" dfly-harness image fetch {manifest.release}{_editions(manifest, store)}"
        )
    return found


def _present(store: Store) -> list[InstallationMedium]:
    return [medium for medium in store.all(InstallationMedium) if (store.home / "blobs" / medium.iso).is_file()]


def _editions(manifest: Manifest, store: Store) -> str:
    names = sorted(medium.name for medium in _present(store) if medium.name.startswith(manifest.named("")))
    return f" (in the store: {', '.join(names)})" if manifest.rolling and names else ""


class _Fetch:
    """One fetch, under the lock of its release."""

    def __init__(self, manifest: Manifest, store: Store, transfer: Transfer, say: Callable[[str], None]) -> None:
        self._manifest = manifest
        self._store = store
        self._transfer = transfer
        self._say = say
        self._pins = _Pins(store)

    def run(self, given: Path | None) -> InstallationMedium:
        modified = ""
        if given is not None:
            medium, file, source = *self._bring(given), str(given.resolve())
        else:
            medium, mirrors, modified = self._find()
            if (known := self._same(medium, modified)) is not None:
                return known
            file, source = self._download(medium, mirrors, modified)
        sha256, verified, witness = self._verify(medium, file, source)
        with self._store.adding():
            try:
                with self._opened(medium, file) as iso:
                    made = _made(iso)
                    name = self._name(made, sha256)
                    pinned = self._pin(medium, file, name, sha256, source, witness)
                    blob = self._store.add_blob(iso, move=True)
            except _NoCdError as error:
                raise HarnessError(f"{error}; the file is kept as {self._set_aside(medium, file)}") from None
            record = InstallationMedium(
                name=name,
                iso=blob,
                file=medium.file,
                source=source,
                fetched_sha256=sha256,
                verified="; ".join(filter(None, (verified, pinned))),
                fetched=_now(),
                made=made,
                modified=modified,
            )
            self._store.put(record, replace=True)
        file.unlink(missing_ok=True)
        return record

    def _same(self, medium: Medium, modified: str) -> InstallationMedium | None:
        """Return the CD in the store that the mirrors' file of the date MODIFIED is, if one is known to be."""
        prefix = self._manifest.named("")
        return next(
            (
                known
                for known in _present(self._store)
                if self._manifest.rolling and modified and known.name.startswith(prefix)
                and (known.file, known.modified) == (medium.file, modified)
            ),
            None,
        )  # fmt: skip

    def _name(self, made: str, sha256: str) -> str:
        """Return what the CD made at MADE is called: of a rolling release by its day, by its minute if need be."""
        manifest = self._manifest
        if not manifest.rolling:
            return manifest.release
        day = f"{made[:4]}-{made[4:6]}-{made[6:8]}" if made else f"{datetime.now(UTC):%Y-%m-%d}"
        name = manifest.named(day)
        for known in self._store.all(InstallationMedium):
            if known.name == name and known.fetched_sha256 != sha256 and known.made != made:
                return f"{name}.{made[8:12] or f'{datetime.now(UTC):%H%M}'}"
        return name

    def _bring(self, given: Path) -> tuple[Medium, Path]:
        """Copy a file that somebody brought to where a download would be."""
        if not given.is_file():
            raise UsageError(f"{given} does not exist")
        media = self._manifest.media
        medium = next((medium for medium in media if medium.file == given.name), None)
        if medium is None:
            medium = next((medium for medium in media if medium.compressed == given.name.endswith(".bz2")), None)
        if medium is None:
            raise UsageError(
                f"{given} is none of the files of {self._manifest.release}:"
                f" {', '.join(medium.file for medium in media)}"
            )
        self._store.require_space(given.stat().st_size, given.name)
        part = self._store.folder("downloads") / f"{medium.file}.given"
        shutil.copyfile(given, part)
        return medium, part

    def _find(self) -> tuple[Medium, list[Mirror], str]:
        """Return what to fetch, which mirrors have it, and the date of a rolling release's newest file."""
        medium = choose_medium(self._manifest)
        try:
            mirrors = find_mirrors(medium.urls)
        except OfflineError as error:
            raise OfflineError(
                f"{error}: bring {medium.file} here by other means (from {medium.urls[0]}) and run"
                f" dfly-harness image fetch {self._manifest.release} --from {medium.file}"
                f"{_editions(self._manifest, self._store)}"
            ) from None
        except HarnessError as error:
            raise HarnessError(f"{medium.file}: {error}") from None
        size = medium.size
        if size is not None:
            mirrors = [mirror for mirror in mirrors if mirror.size in {None, size}]
            if not mirrors:
                raise HarnessError(
                    f"every mirror has a {medium.file} of another size than the {size} bytes it should be"
                )
        dates = [mirror.modified for mirror in mirrors if mirror.modified]
        if not self._manifest.rolling or not dates:
            return medium, mirrors, ""
        newest = max(dates)  # a mirror that lags behind has another file under the same name
        return medium, [mirror for mirror in mirrors if mirror.modified == newest], newest.isoformat()

    def _download(self, medium: Medium, mirrors: list[Mirror], modified: str) -> tuple[Path, str]:
        # Named by its date where a file is replaced by others: the beginning of one is none of the next.
        part = self._store.folder("downloads") / f"{medium.file}{modified and '.'}{modified}.part"
        size = medium.size
        expected = size or mirrors[0].size or medium.about or 0
        have = part.stat().st_size if part.exists() else 0
        self._store.require_space(max(0, expected - have), medium.file)
        used = download(mirrors, part, size=size, transfer=self._transfer)
        return part, used.url

    def _verify(self, medium: Medium, file: Path, source: str) -> tuple[str, str, str]:
        """Return the file's SHA-256, by whose published word it is right, and which list of a mirror agrees.

        Nothing of the file has been looked into before.
        """
        digests = [checksum.new() for checksum in medium.checksums]
        ours, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                for digest in (*digests, ours, md5):
                    digest.update(chunk)
        for checksum, digest in zip(medium.checksums, digests, strict=True):
            if digest.hexdigest() != checksum.digest:
                self._refuse(medium, file, checksum, digest.hexdigest())
        sha256 = ours.hexdigest()
        listed = None
        if not any(checksum.algorithm == "sha256" for checksum in medium.checksums):
            listed = self._listed(medium, source)
        if listed is not None and listed[1] != md5.hexdigest():
            self._refuse(medium, file, Checksum("md5", listed[1], listed[0]), md5.hexdigest())
        stated = "; ".join(f"{checksum.algorithm} stated by {checksum.stated_by}" for checksum in medium.checksums)
        return sha256, stated, f"md5 as in {listed[0]}; " if listed else ""

    def _pin(self, medium: Medium, file: Path, name: str, sha256: str, source: str, witness: str) -> str:
        """Hold a file that no published SHA-256 vouches for to what it was when first seen; return what that says.

        MD5 keeps accidents out, not people: whoever makes a file can make two with one MD5.
        """
        if any(checksum.algorithm == "sha256" for checksum in medium.checksums):
            return ""
        key = f"{medium.file} of {name}" if self._manifest.rolling else medium.file
        pinned = self._pins.known(key)
        if pinned is not None:
            if pinned != sha256:
                pin = Checksum("sha256", pinned, "the copy seen first, pinned in this store")
                self._refuse(medium, file, pin, sha256)
            return "sha256 pinned when first seen in this store"
        self._pins.add(key, sha256, source)
        published = "no published checksum" if not medium.checksums else "no published checksum but MD5"
        self._say(
            f"{published} of {medium.file} is known: {witness}pinned on first use to sha256 {sha256}; compare it with a"
            " source you trust"
        )
        return f"{witness}sha256 pinned on first use"

    def _listed(self, medium: Medium, source: str) -> tuple[str, str] | None:
        """Return what md5.txt on a mirror says, preferably not on the one the file came from."""
        if not source.startswith("http"):
            return None
        others = [url for url in medium.urls if url != source]
        pattern = re.compile(rf"^MD5 \({re.escape(medium.file)}\) = ([0-9a-f]{{32}})$", re.MULTILINE)
        for mirror in (*(Mirror(url, None) for url in others[:2]), Mirror(source, None)):
            text = fetch_text(urljoin(mirror.url, "md5.txt"))
            if text and (found := pattern.search(text)):
                return f"md5.txt of {mirror.host}", found[1]
        return None

    def _set_aside(self, medium: Medium, file: Path) -> Path:
        aside = self._store.folder("downloads", "refused")
        number = 1
        while (kept := aside / f"{medium.file}.{number}").exists():
            number += 1
        file.replace(kept)
        return kept

    def _refuse(self, medium: Medium, file: Path, checksum: Checksum, found: str) -> None:
        kept = self._set_aside(medium, file)
        raise HarnessError(
            f"{medium.file} is not what it should be: {checksum.algorithm} {found}, but {checksum.digest} according to"
            f" {checksum.stated_by}; the file is kept as {kept}; run the same command again to fetch it anew"
        )

    @contextlib.contextmanager
    def _opened(self, medium: Medium, file: Path) -> Iterator[Path]:
        """Have the CD that is in FILE, unpacked where that is needed; raises _NoCdError when there is none."""
        if not medium.compressed:
            self._check_iso(file)
            yield file
            return
        self._store.require_space(int(file.stat().st_size * _UNPACKED), f"the unpacked {medium.file}")
        with self._store.scratch("unpack") as folder:
            iso = folder / "iso"
            self._unpack(medium, file, iso)
            self._check_iso(iso)
            yield iso

    def _unpack(self, medium: Medium, file: Path, iso: Path) -> None:
        size = file.stat().st_size
        try:
            with file.open("rb") as packed, bz2.open(packed) as stream, iso.open("wb") as unpacked:
                while chunk := stream.read(_CHUNK):
                    unpacked.write(chunk)
                    self._transfer(packed.tell(), size)
        except EOFError:
            raise _NoCdError(f"{medium.file} ends in the middle") from None
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise HarnessError(
                    f"the disk got full while {medium.file} was unpacked in {self._store.home}: free some space and"
                    " run the same command again; nothing has to be fetched anew"
                ) from None
            if error.errno is None:  # bz2's own complaint about the data
                raise _NoCdError(f"{medium.file} is no bzip2 file ({error})") from None
            raise

    def _check_iso(self, iso: Path) -> None:
        offset, signature = _ISO_SIGNATURE
        with iso.open("rb") as stream:
            stream.seek(offset)
            if stream.read(len(signature)) != signature:
                raise _NoCdError(f"what was fetched for {self._manifest.release} is no CD (no ISO 9660 descriptor)")
