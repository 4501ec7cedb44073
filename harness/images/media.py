"""Installation media in the store: fetched or copied in, verified, unpacked."""

from __future__ import annotations

import bz2
import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar
from urllib.parse import urljoin

from harness.errors import HarnessError, UsageError
from harness.images.download import Mirror, OfflineError, Transfer, download, fetch_text, find_mirrors
from harness.images.manifest import Checksum, Manifest, Medium
from harness.store import Record, Store

_DAY = 86400.0
_CHUNK = 1 << 20
# What an unpacked CD takes, as a multiple of its bzip2 file, until it is there.
_UNPACKED = 3.5
# The volume descriptor of ISO 9660 follows 16 unused sectors.
_ISO_SIGNATURE = (16 * 2048 + 1, b"CD001")


@dataclass(frozen=True)
class InstallationMedium(Record):
    """The installation CD of a release; `iso` is its blob, `verified` says by whose word it is what it should be."""

    KIND: ClassVar[str] = "medium"
    PLURAL: ClassVar[str] = "media"

    iso: str
    file: str = ""
    source: str = ""
    fetched_sha256: str = ""
    verified: str = ""
    fetched: str = ""

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
            part = self._file.with_suffix(".part")
            part.write_text(json.dumps(pins, indent=2) + "\n")
            part.replace(self._file)


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
    Two commands that want the same CD fetch it once.  Raises OfflineError at once when there is no network, naming
    the file to bring; HarnessError when the file is not what it should be (it is kept aside) or there is no room.
    """
    if (known := _known(manifest, store)) is not None:
        return known
    with store.downloading(), store.lock(f"download-{manifest.release}", deadline=_DAY):
        if (known := _known(manifest, store)) is not None:
            return known
        return _Fetch(manifest, store, transfer, say).run(given)


def _known(manifest: Manifest, store: Store) -> InstallationMedium | None:
    for record in store.all(InstallationMedium):
        if record.name == manifest.release and (store.home / "blobs" / record.iso).is_file():
            return record
    return None


class _Fetch:
    """One fetch, under the lock of its release."""

    def __init__(self, manifest: Manifest, store: Store, transfer: Transfer, say: Callable[[str], None]) -> None:
        self._manifest = manifest
        self._store = store
        self._transfer = transfer
        self._say = say
        self._pins = _Pins(store)

    def run(self, given: Path | None) -> InstallationMedium:
        if given is not None:
            medium, file, source = *self._bring(given), str(given.resolve())
        else:
            medium, file, source = self._download()
        sha256, verified, witness = self._verify(medium, file, source)
        with self._store.adding():
            try:
                iso = self._unpack(medium, file)
            except _NoCdError as error:
                raise HarnessError(f"{error}; the file is kept as {self._set_aside(medium, file)}") from None
            if not verified:
                verified = self._pin(medium, sha256, source, witness)
            record = InstallationMedium(
                name=self._manifest.release,
                iso=iso,
                file=medium.file,
                source=source,
                fetched_sha256=sha256,
                verified=verified,
                fetched=_now(),
            )
            self._store.put(record, replace=True)
        file.unlink(missing_ok=True)
        return record

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

    def _download(self) -> tuple[Medium, Path, str]:
        medium = choose_medium(self._manifest)
        part = self._store.folder("downloads") / f"{medium.file}.part"
        try:
            mirrors = find_mirrors(medium.urls)
        except OfflineError as error:
            raise OfflineError(
                f"{error}: bring {medium.file} here by other means (from {medium.urls[0]}) and run"
                f" dfly-harness image fetch {self._manifest.release} --from {medium.file}"
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
        expected = size or mirrors[0].size or medium.about or 0
        have = part.stat().st_size if part.exists() else 0
        self._store.require_space(max(0, expected - have), medium.file)
        used = download(mirrors, part, size=size, transfer=self._transfer)
        return medium, part, used.url

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
        if medium.checksums:
            return (
                sha256,
                "; ".join(f"{checksum.algorithm} stated by {checksum.stated_by}" for checksum in medium.checksums),
                "",
            )
        pinned = self._pins.known(medium.file)
        if pinned is not None:
            if pinned != sha256:
                pin = Checksum("sha256", pinned, "the copy seen first, pinned in this store")
                self._refuse(medium, file, pin, sha256)
            return sha256, "sha256 pinned when first seen in this store", ""
        listed = self._listed(medium, source)
        if listed is not None and listed[1] != md5.hexdigest():
            self._refuse(medium, file, Checksum("md5", listed[1], listed[0]), md5.hexdigest())
        return sha256, "", f"md5 as in {listed[0]}; " if listed else ""

    def _pin(self, medium: Medium, sha256: str, source: str, witness: str) -> str:
        self._pins.add(medium.file, sha256, source)
        self._say(
            f"no published checksum of {medium.file} is known: {witness}pinned on first use to sha256 {sha256}; compare"
            " it with a source you trust"
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

    def _unpack(self, medium: Medium, file: Path) -> str:
        if not medium.compressed:
            self._check_iso(file)
            return self._store.add_blob(file, move=True)
        self._store.require_space(int(file.stat().st_size * _UNPACKED), f"the unpacked {medium.file}")
        with self._store.scratch("unpack") as folder:
            iso = folder / "iso"
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
            self._check_iso(iso)
            return self._store.add_blob(iso, move=True)

    def _check_iso(self, iso: Path) -> None:
        offset, signature = _ISO_SIGNATURE
        with iso.open("rb") as stream:
            stream.seek(offset)
            if stream.read(len(signature)) != signature:
                raise _NoCdError(f"what was fetched for {self._manifest.release} is no CD (no ISO 9660 descriptor)")
