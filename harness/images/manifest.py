# SPDX-License-Identifier: BSD-2-Clause
"""Manifests: what is known about a release before anything of it has been fetched.

The ones that come with the harness are `images/RELEASE.toml`; a user's own file works the same.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.config import share
from harness.errors import UsageError
from harness.machine.description import DiskModel

_DIGEST_LENGTH = {"md5": 32, "sha256": 64}
_SUFFIXES = (".iso", ".iso.bz2")
_NICS = {"virtio": "virtio-net-pci,ctrl_vq=off", "e1000": "e1000"}
_FILESYSTEMS = ("ufs", "hammer2")
_KEYS = frozenset(
    "release released rolling disks nics filesystems console_speed pfi_rc_actions memory mirrors media"
    " kernel_version".split()
)
_MIRRORS = "mirrors.toml"
#: One edition of a rolling release: its name and the date of the CD.
_EDITION = re.compile(r"(?P<release>.+?)-(?P<edition>\d{4}-\d\d-\d\d(\.\d{4})?)")


@dataclass(frozen=True)
class Checksum:
    """A digest somebody has published, and who."""

    algorithm: str
    digest: str
    stated_by: str

    def new(self) -> hashlib._Hash:
        """Return a fresh computation of this kind of digest."""
        return hashlib.new(self.algorithm, usedforsecurity=False)


@dataclass(frozen=True)
class Medium:
    """A file that can be fetched; several media of a release hold the same installation CD.

    `size` is exact and in bytes, `about` is a rough one; both None where nobody has said.
    """

    file: str
    urls: tuple[str, ...]
    checksums: tuple[Checksum, ...] = ()
    size: int | None = None
    about: int | None = None

    @property
    def compressed(self) -> bool:
        """Whether the CD has to be unpacked from it."""
        return self.file.endswith(".bz2")


@dataclass(frozen=True)
class Manifest:
    """A release: where its CD is, and what the machine it is installed on must be like.

    `memory` is in MiB, `console_speed` in bits per second.  `kernel_version` must occur in the installed system's
    `kern.version`.  A `rolling` release is one whose file is replaced by a newer one under the same name every now and
    then: each CD of it is an edition, named by its date; `edition` is empty for the newest.
    """

    release: str
    media: tuple[Medium, ...]
    disk: DiskModel = DiskModel.VIRTIO
    nic: str = _NICS["virtio"]
    filesystems: tuple[str, ...] = ("ufs",)
    console_speed: int = 115200
    pfi_rc_actions: str = "netif dhcp_client sshd"
    memory: int = 2048
    kernel_version: str = ""
    released: str = ""
    rolling: bool = False
    edition: str = ""

    def named(self, edition: str) -> str:
        """Return what the CD of EDITION is called in the store."""
        return f"{self.release}-{edition}" if self.rolling else self.release


def known_releases() -> list[str]:
    """Return the releases whose manifests come with the harness: numbered ones, newest first, then rolling ones."""
    folder = share() / "images"
    numbered = [file.stem for file in folder.glob("[0-9]*.toml")]
    rolling = [file.stem for file in folder.glob("[!0-9]*.toml") if file.name != _MIRRORS]
    return sorted(numbered, key=lambda name: [int(part) for part in name.split(".")], reverse=True) + sorted(rolling)


def load_manifest(name: str) -> Manifest:
    """Return the manifest of release NAME, or the one in the file NAME when it ends in `.toml`.

    `RELEASE-DATE` is one edition of a rolling release.  Raises UsageError when there is none, or with the file, the
    key and what is wrong with it.
    """
    own = name.endswith(".toml")
    if not own and (dated := _EDITION.fullmatch(name)) and dated["release"] in known_releases():
        manifest = load_manifest(dated["release"])
        if manifest.rolling:
            return replace(manifest, edition=dated["edition"])
    file = Path(name) if own else share() / "images" / f"{name}.toml"
    if not own and name not in known_releases():
        raise UsageError(
            f"no release {name!r} is known (there: {', '.join(known_releases())}); for another one give a manifest of"
            " your own: FILE.toml"
        )
    try:
        data = tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise UsageError(f"manifest {file} does not exist") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"manifest {file} cannot be read: {error}") from None
    return _Reader(file, data).manifest()


class _Reader:
    """Turns TOML into a Manifest; every complaint names the file and the key."""

    def __init__(self, file: Path, data: dict[str, Any]) -> None:
        self._file = file
        self._data = data

    def _refuse(self, complaint: str) -> UsageError:
        return UsageError(f"manifest {self._file}: {complaint}")

    def _value(self, table: dict[str, Any], key: str, kind: type, default: Any = None) -> Any:
        value = table.get(key, default)
        if value is None and key not in table:
            if default is None and kind is str:
                raise self._refuse(f"{key} is missing")
            return None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self._refuse(f"{key} must be a {kind.__name__}, not {value!r}")
        return value

    def _words(self, table: dict[str, Any], key: str, allowed: tuple[str, ...], default: str) -> tuple[str, ...]:
        words = table.get(key, [default])
        if not isinstance(words, list) or not words or not set(words) <= set(allowed):
            raise self._refuse(f"{key} must be a list of {', '.join(allowed)}")
        return tuple(words)

    def manifest(self) -> Manifest:
        data = self._data
        if unknown := sorted(set(data) - _KEYS):
            raise self._refuse(f"{unknown[0]} means nothing (known: {', '.join(sorted(_KEYS))})")
        release = self._value(data, "release", str)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,60}", release):
            raise self._refuse(f"release {release!r}: letters, digits, '.', '_', '+' and '-' only")
        media = data.get("media")
        if not isinstance(media, list) or not media:
            raise self._refuse("at least one [[media]] table is needed")
        rolling = data.get("rolling", False)
        if not isinstance(rolling, bool):
            raise self._refuse(f"rolling must be true or false, not {rolling!r}")
        mirrors = data.get("mirrors")
        if mirrors is None:
            known = tomllib.loads((share() / "images" / _MIRRORS).read_text())
            mirrors = known["snapshots" if rolling else "releases"]
        return Manifest(
            release=release,
            media=tuple(self._medium(table, mirrors) for table in media),
            disk=DiskModel(self._words(data, "disks", tuple(DiskModel), DiskModel.VIRTIO)[0]),
            nic=_NICS[self._words(data, "nics", tuple(_NICS), "virtio")[0]],
            filesystems=self._words(data, "filesystems", _FILESYSTEMS, "ufs"),
            console_speed=self._value(data, "console_speed", int, 115200),
            pfi_rc_actions=self._value(data, "pfi_rc_actions", str, "netif dhcp_client sshd"),
            memory=self._value(data, "memory", int, 2048),
            kernel_version=self._value(data, "kernel_version", str, release),
            released=self._value(data, "released", str, ""),
            rolling=rolling,
        )

    def _medium(self, table: Any, mirrors: list[str]) -> Medium:
        if not isinstance(table, dict):
            raise self._refuse("media must be tables")
        file = self._value(table, "file", str)
        if "/" in file or not file.endswith(_SUFFIXES):
            raise self._refuse(f"file {file!r} must be the name of an {' or '.join(_SUFFIXES)} file")
        urls = table.get("urls") or [base.rstrip("/") + "/" + file for base in mirrors]
        for url in urls:
            if not isinstance(url, str) or not url.startswith(("http://", "https://")):
                raise self._refuse(f"{url!r} is no http or https URL")
        about = self._value(table, "about_mb", int)
        return Medium(
            file=file,
            urls=tuple(urls),
            checksums=tuple(self._checksum(entry) for entry in table.get("checksums", [])),
            size=self._value(table, "size", int),
            about=None if about is None else about * 10**6,
        )

    def _checksum(self, entry: Any) -> Checksum:
        kinds = [key for key in _DIGEST_LENGTH if isinstance(entry, dict) and key in entry]
        if len(kinds) != 1:
            raise self._refuse(f"a checksum must have one of {', '.join(_DIGEST_LENGTH)}")
        digest = self._value(entry, kinds[0], str).lower()
        if not re.fullmatch(f"[0-9a-f]{{{_DIGEST_LENGTH[kinds[0]]}}}", digest):
            raise self._refuse(f"{digest!r} is no {kinds[0]} digest")
        return Checksum(kinds[0], digest, self._value(entry, "stated_by", str, "this manifest"))
