# SPDX-License-Identifier: BSD-2-Clause
"""Kernels in the store: what they are and how one enters it."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness.errors import UsageError
from harness.machine.elf import identify_kernel
from harness.store import Entry, Store


@dataclass(frozen=True)
class Kernel(Entry):
    """A DragonFly kernel: its ELF file, what it says it is, and where it came from.

    `modules` is a tar archive of the *.ko files built with it.
    """

    KIND: ClassVar[str] = "kernel"
    PLURAL: ClassVar[str] = "kernels"
    TAKEN: ClassVar[frozenset[str]] = frozenset({"installed", "control", "oracle"})

    elf: str
    version: str
    osreldate: int | None = None
    build_id: str | None = None
    debug: str | None = None
    modules: str | None = None
    source: str = ""
    imported: str = ""

    def blobs(self) -> dict[str, str]:
        """Return the blobs of the kernel, of its debug file and of its modules."""
        given = {"elf": self.elf, "debug": self.debug, "modules": self.modules}
        return {role: digest for role, digest in given.items() if digest}


def require_free_name(store: Store, name: str) -> None:
    """Raise UsageError when there is a kernel called NAME already."""
    if any(known.name == name for known in store.all(Kernel)):
        raise UsageError(
            f"kernel {name!r} exists already: choose another name, or remove it first"
            f" (dfly-harness kernel remove {name})"
        )


def pack_modules(folder: Path, archive: Path) -> Path:
    """Write the kernel modules in FOLDER to ARCHIVE, the same bytes for the same modules, and return it.

    Raises UsageError when there are none.
    """
    modules = sorted(folder.glob("*.ko")) if folder.is_dir() else []
    if not modules:
        raise UsageError(f"{folder} holds no kernel modules (*.ko)")
    with tarfile.open(archive, "w") as tar:
        for module in modules:
            about = tar.gettarinfo(module, arcname=module.name)
            about.mtime, about.mode, about.uid, about.gid, about.uname, about.gname = 0, 0o555, 0, 0, "", ""
            with module.open("rb") as content:
                tar.addfile(about, content)
    return archive


def import_kernel(
    store: Store,
    name: str,
    file: Path,
    *,
    debug: Path | None = None,
    modules: Path | None = None,
    imported: str = "",
) -> Kernel:
    """Take the kernel in FILE (with its DEBUG file, and the *.ko files in the folder MODULES) into the store as NAME.

    Raises UsageError when FILE is no DragonFly x86_64 kernel, when DEBUG belongs to another kernel, when there are no
    modules, or when the name is taken.
    """
    require_free_name(store, name)
    identity = identify_kernel(file)
    if debug is not None and identify_kernel(debug).text_digest != identity.text_digest:
        raise UsageError(f"{debug} is not the debug file of {file}: their code differs")
    with store.adding(), store.scratch("modules") as folder:
        record = Kernel(
            name=name,
            elf=store.add_blob(file),
            version=identity.version,
            osreldate=identity.osreldate,
            build_id=identity.build_id,
            debug=store.add_blob(debug) if debug is not None else None,
            modules=store.add_blob(pack_modules(modules, folder / "modules.tar")) if modules is not None else None,
            source=str(file.resolve()),
            imported=imported,
        )
        store.put(record)
    return record
