# SPDX-License-Identifier: BSD-2-Clause
"""Debian and Ubuntu packages as raw material: looked up and fetched by apt, unpacked by dpkg-deb, never installed.

Nothing here needs root: `apt-get download` only reads the host's package lists.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import DeadlineError, HarnessError

_ARCHITECTURE = "amd64"
_LOOKUP_SECONDS = 120.0
_DOWNLOAD_SECONDS = 900.0
_UNPACK_SECONDS = 120.0


@dataclass(frozen=True)
class Wish:
    """A package to have: the first of ALTERNATIVES that apt knows, with those dependencies whose names match FOLLOW."""

    alternatives: tuple[str, ...]
    follow: str | None = None


@dataclass(frozen=True)
class Package:
    """One version of a package, as apt would install it today."""

    name: str
    version: str
    sha256: str
    size: int  # bytes, of the package file
    depends: tuple[tuple[str, ...], ...]  # each dependency as its alternatives, versions left out

    @property
    def specification(self) -> str:
        """Return the name and version as apt-get takes them."""
        return f"{self.name}:{_ARCHITECTURE}={self.version}"


def resolve_packages(wishes: Sequence[Wish]) -> tuple[Package, ...]:
    """Return the packages that fulfil WISHES, sorted by name; needs apt's package lists but no network.

    Raises HarnessError when there is no apt, it has no package lists, or it knows none of a wish's alternatives.
    """
    for tool in ("apt-cache", "apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise HarnessError(
                f"{tool} not found: a guest is put together from packages on Debian or Ubuntu hosts only"
            )
    known = _lookup([name for wish in wishes for name in wish.alternatives])
    chosen: dict[str, Package] = {}
    open_ends: list[tuple[Package, str]] = []
    for wish in wishes:
        package = next((known[name] for name in wish.alternatives if name in known), None)
        if package is None:
            raise HarnessError(_unknown(wish.alternatives))
        chosen[package.name] = package
        if wish.follow is not None:
            open_ends.append((package, wish.follow))
    while open_ends:
        candidates = [(names, follow) for package, follow in open_ends for names in _followed(package, follow)]
        known |= _lookup([name for names, _ in candidates for name in names if name not in known])
        open_ends = []
        for names, follow in candidates:
            found = next((known[name] for name in names if name in known), None)
            if found is None:
                raise HarnessError(_unknown(names))
            if found.name not in chosen:
                chosen[found.name] = found
                open_ends.append((found, follow))
    return tuple(sorted(chosen.values(), key=lambda package: package.name))


def fetch_packages(packages: Sequence[Package], into: Path, progress: Callable[[str], None]) -> tuple[Path, ...]:
    """Download the files of PACKAGES into the existing directory INTO and return their paths; apt checks their hashes.

    Raises HarnessError when that fails and DeadlineError when it takes more than 900 s.
    """
    progress(f"fetching {len(packages)} packages ({sum(package.size for package in packages) / 1e6:.0f} MB)")
    specifications = [package.specification for package in packages]
    # Without the sandbox setting apt, run by root, complains that its own user cannot write here.
    options = ["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=20"]
    done = _run(["apt-get", *options, "-qq", "download", *specifications], _DOWNLOAD_SECONDS, where=into)
    files = tuple(sorted(into.glob("*.deb")))
    if done.returncode != 0 or len(files) != len(packages):
        reason = next((line for line in done.stderr.splitlines() if line.startswith("E: ")), "E: files missing")
        raise HarnessError(
            f"apt-get download failed ({reason[3:]}): check the network; "
            "if the package lists are old, run `apt-get update` as root"
        )
    return files


def unpack_packages(files: Sequence[Path], into: Path) -> None:
    """Unpack the package FILES over each other into the directory INTO, which is made."""
    into.mkdir(parents=True, exist_ok=True)
    for file in files:
        done = _run(["dpkg-deb", "--extract", str(file), str(into)], _UNPACK_SECONDS)
        if done.returncode != 0:
            raise HarnessError(f"dpkg-deb could not unpack {file.name}: {done.stderr.strip()}")


def parse_stanzas(text: str) -> dict[str, Package]:
    """Return the packages that TEXT, as `apt-cache show` prints it, describes; the first of a name counts.

    A stanza without a file hash is an installed package that no archive offers any more, and is left out.
    """
    packages: dict[str, Package] = {}
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): *(.*)$", stanza, flags=re.MULTILINE))
        if not {"Package", "Version", "SHA256", "Size"} <= fields.keys():
            continue
        clauses = [fields.get("Pre-Depends", ""), fields.get("Depends", "")]
        depends = tuple(
            tuple(re.split(r"[\s:(]", choice.strip(), maxsplit=1)[0] for choice in clause.split("|"))
            for clause in ",".join(clauses).split(",")
            if clause.strip()
        )
        package = Package(fields["Package"], fields["Version"], fields["SHA256"], int(fields["Size"]), depends)
        packages.setdefault(package.name, package)
    return packages


def _followed(package: Package, follow: str) -> list[tuple[str, ...]]:
    """Return PACKAGE's dependencies with an alternative that matches FOLLOW, reduced to such alternatives."""
    matching = (tuple(name for name in names if re.fullmatch(follow, name)) for names in package.depends)
    return [names for names in matching if names]


def _lookup(names: Sequence[str]) -> dict[str, Package]:
    """Return what apt knows of NAMES; unknown ones are not in the answer."""
    if not names:
        return {}
    qualified = [f"{name}:{_ARCHITECTURE}" for name in dict.fromkeys(names)]
    # The exit status only says that some name is unknown.
    done = _run(["apt-cache", "show", "--no-all-versions", *qualified], _LOOKUP_SECONDS)
    return parse_stanzas(done.stdout)


def _unknown(names: Sequence[str]) -> str:
    """Return the one-line message for a package that apt does not know under any of NAMES."""
    lists = ["apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages"]
    what = " or ".join(names)
    if not _run(lists, _LOOKUP_SECONDS).stdout.strip():
        return f"apt has no package lists, so {what} cannot be found: run `apt-get update` as root"
    return (
        f"apt knows no package {what} for {_ARCHITECTURE}: run `apt-get update` as root, "
        "and see that its sources include Debian's main or Ubuntu's main and universe"
    )


def _run(argv: Sequence[str], seconds: float, *, where: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a package tool, whatever its exit status, for at most SECONDS."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(
            argv, cwd=where, env=environment, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise DeadlineError(" ".join(argv[:2]), seconds) from None
