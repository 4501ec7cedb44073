"""Kernels in the store: what they are and how one enters it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness.errors import UsageError
from harness.machine.elf import identify_kernel
from harness.store import Record, Store


@dataclass(frozen=True)
class Kernel(Record):
    """A DragonFly kernel: its ELF file, what it says it is, and where it came from."""

    KIND: ClassVar[str] = "kernel"
    PLURAL: ClassVar[str] = "kernels"

    elf: str
    version: str
    osreldate: int | None = None
    build_id: str | None = None
    debug: str | None = None
    source: str = ""
    imported: str = ""

    def blobs(self) -> dict[str, str]:
        """Return the blobs of the kernel and of its debug file."""
        return {"elf": self.elf} | ({"debug": self.debug} if self.debug else {})


def import_kernel(store: Store, name: str, file: Path, *, debug: Path | None = None, imported: str = "") -> Kernel:
    """Take the kernel in FILE (and its DEBUG file) into the store under NAME.

    Raises UsageError when FILE is no DragonFly x86_64 kernel, when DEBUG belongs to another kernel, or when the name is
    taken.
    """
    if any(known.name == name for known in store.all(Kernel)):
        raise UsageError(
            f"kernel {name!r} exists already: choose another name, or remove it first"
            f" (dfly-harness kernel remove {name})"
        )
    identity = identify_kernel(file)
    if debug is not None and identify_kernel(debug).text_digest != identity.text_digest:
        raise UsageError(f"{debug} is not the debug file of {file}: their code differs")
    with store.adding():
        record = Kernel(
            name=name,
            elf=store.add_blob(file),
            version=identity.version,
            osreldate=identity.osreldate,
            build_id=identity.build_id,
            debug=store.add_blob(debug) if debug is not None else None,
            source=str(file.resolve()),
            imported=imported,
        )
        store.put(record)
    return record
