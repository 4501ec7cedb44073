# SPDX-License-Identifier: BSD-2-Clause
"""What else a program or a kernel module needs, found in a tree of unpacked packages and nowhere on the host."""

from __future__ import annotations

import io
import lzma
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.later import Later

if TYPE_CHECKING:
    from elftools.common import exceptions
    from elftools.elf import dynamic, elffile, segments
else:  # the control guest is put together once
    exceptions, dynamic = Later("elftools.common.exceptions"), Later("elftools.elf.dynamic")
    elffile, segments = Later("elftools.elf.elffile"), Later("elftools.elf.segments")

_LIBRARY_FOLDERS = ("lib/x86_64-linux-gnu", "lib", "lib64")
_MAX_LINKS = 16  # symbolic links followed for one path
_ZSTD_SECONDS = 60.0


@dataclass(frozen=True)
class KernelModule:
    """A loadable kernel module: its name with underscores, and the module itself, decompressed."""

    name: str
    content: bytes


class PackageTree:
    """The directory into which packages were unpacked, looked at as the root of a system.

    Paths mean the same with and without /usr in front: distributions moved everything there, packages did so one
    by one.  Absolute symbolic links stay inside the tree.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, path: str) -> Path | None:
        """Return the regular file that PATH leads to, None if there is none."""
        relative = PurePosixPath(path.lstrip("/"))
        bare = relative.relative_to("usr") if relative.parts[:1] == ("usr",) else relative
        for variant in (bare, PurePosixPath("usr") / bare):
            if (found := self._follow(variant)) is not None:
                return found
        return None

    def require(self, path: str) -> Path:
        """Return the regular file that PATH leads to; raises HarnessError if no unpacked package has it."""
        found = self.find(path)
        if found is None:
            raise HarnessError(f"none of the unpacked packages holds /{path.lstrip('/')}")
        return found

    def glob(self, pattern: str) -> list[Path]:
        """Return the paths that match PATTERN, with or without /usr in front, sorted."""
        return sorted({*self._root.glob(pattern), *self._root.glob(f"usr/{pattern}")})

    def library_closure(self, programs: Sequence[Path]) -> dict[str, Path]:
        """Return what PROGRAMS need to start: guest path to file, for ELF interpreters and shared libraries.

        Raises HarnessError when a library is in none of the packages.
        """
        needed: dict[str, Path] = {}
        waiting = list(programs)
        while waiting:
            wanted_by = waiting.pop()
            interpreter, libraries = _needs(wanted_by)
            found = {interpreter: self.require(interpreter)} if interpreter else {}
            for library in libraries:
                if any(PurePosixPath(path).name == library for path in (*needed, *found)):
                    continue  # libraries name the interpreter, too
                file = next((file for folder in _LIBRARY_FOLDERS if (file := self.find(f"{folder}/{library}"))), None)
                if file is None:
                    raise HarnessError(f"{wanted_by.name} needs {library}, which none of the unpacked packages holds")
                found[f"/{_LIBRARY_FOLDERS[0]}/{library}"] = file
            waiting += [file for path, file in found.items() if path not in needed]
            needed |= found
        return needed

    def module_closure(self, names: Sequence[str], release: str) -> list[KernelModule]:
        """Return the modules NAMES of kernel RELEASE with all that they depend on, each after what it needs.

        Modules built into the kernel are left out.  Dependencies are read from the modules themselves: modules.dep is
        made at installation and not part of a package.  Raises HarnessError for a module that does not exist.
        """
        files: dict[str, Path] = {}
        built_in: set[str] = set()
        for folder in self.glob(f"lib/modules/{release}"):
            files |= {_module_name(file.name): file for file in sorted(folder.rglob("*.ko*"))}
            listed = folder / "modules.builtin"
            if listed.is_file():
                built_in |= {_module_name(PurePosixPath(line).name) for line in listed.read_text().splitlines()}
        ordered: dict[str, KernelModule] = {}

        def visit(name: str, wanted_by: str) -> None:
            if name in ordered or name in built_in:
                return
            if name not in files:
                raise HarnessError(f"Linux {release} has no module {name}, wanted by {wanted_by}")
            content = _decompressed(files[name])
            for dependency in _module_dependencies(files[name].name, content):
                visit(dependency, name)
            ordered[name] = KernelModule(name, content)

        for name in names:
            visit(_module_name(name), "the manifest")
        return list(ordered.values())

    def _follow(self, relative: PurePosixPath) -> Path | None:
        """Return the regular file at RELATIVE, following symbolic links as if the tree were the root."""
        pending = list(relative.parts)
        here = PurePosixPath()
        links = 0
        while pending:
            part = pending.pop(0)
            here = here.parent if part == ".." else here / part
            host = self._root / here
            if host.is_symlink():
                links += 1
                if links > _MAX_LINKS:
                    return None
                target = PurePosixPath(os.readlink(host))
                here = PurePosixPath() if target.is_absolute() else here.parent
                pending = [part for part in target.parts if part != "/"] + pending
        found = self._root / here
        return found if found.is_file() else None


def _needs(program: Path) -> tuple[str | None, list[str]]:
    """Return the ELF interpreter and the libraries that PROGRAM names."""
    interpreter = None
    libraries: list[str] = []
    try:
        with program.open("rb") as stream:
            elf = elffile.ELFFile(stream)
            for segment in elf.iter_segments():
                if isinstance(segment, segments.InterpSegment):
                    interpreter = segment.get_interp_name()
            for section in elf.iter_sections():
                if isinstance(section, dynamic.DynamicSection):
                    # pyelftools names an attribute after the tag, at run time.
                    libraries += [vars(tag)["needed"] for tag in section.iter_tags("DT_NEEDED")]
    except exceptions.ELFError as error:
        raise HarnessError(f"{program.name}: not a readable ELF program ({error})") from None
    return interpreter, libraries


def _module_name(name: str) -> str:
    """Return the kernel's name of a module, from that or the name of its file."""
    return name.partition(".ko")[0].replace("-", "_")


def _module_dependencies(name: str, content: bytes) -> list[str]:
    """Return the names of the modules that a module's .modinfo section says it depends on."""
    try:
        section = elffile.ELFFile(io.BytesIO(content)).get_section_by_name(".modinfo")
    except exceptions.ELFError as error:
        raise HarnessError(f"{name}: not a readable kernel module ({error})") from None
    records = section.data().split(b"\0") if section is not None else []
    lists = [record.removeprefix(b"depends=").decode() for record in records if record.startswith(b"depends=")]
    return [_module_name(name) for names in lists for name in names.split(",") if name]


def _decompressed(file: Path) -> bytes:
    """Return a module's content: init loads modules with a tool that may not decompress."""
    content = file.read_bytes()
    if file.suffix == ".xz":
        return lzma.decompress(content)
    if file.suffix == ".zst":
        zstd = shutil.which("zstd")
        if zstd is None:
            raise HarnessError(f"zstd not found, needed for {file.name}: install the package zstd")
        done = subprocess.run([zstd, "-dcq"], input=content, capture_output=True, check=False, timeout=_ZSTD_SECONDS)
        if done.returncode != 0:
            reason = done.stderr.decode(errors="replace").strip()
            raise HarnessError(f"{file.name}: zstd cannot decompress it ({reason})")
        return done.stdout
    return content
