# SPDX-License-Identifier: BSD-2-Clause
"""Base images: what they are and how one enters the store."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from harness.errors import HarnessError, UsageError
from harness.machine.description import Disk, DiskFormat, DiskModel
from harness.machine.qemu import qemu_img
from harness.store import Entry, Store

_PROBED = 128 << 10


@dataclass(frozen=True)
class BaseImage(Entry):
    """A sealed disk of one guest system, and how to get into it.

    `root` is what the kernel mounts as its root (`vfs.root.mountfrom`); `host_key` is pinned at the first boot;
    `disk_model` is how the disk must be attached; `recipe` tells how the harness made the image, if it did;
    `installed_kernel` names the kernel of the store that was installed on it, if one was.
    """

    KIND: ClassVar[str] = "image"
    PLURAL: ClassVar[str] = "images"

    disk: str
    ssh_key: str
    root: str = "ufs:vbd0"
    user: str = "root"
    filesystem: str = ""
    source: str = ""
    imported: str = ""
    host_key: str | None = None
    disk_model: str = DiskModel.VIRTIO.value
    nic: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    installed_kernel: str = ""

    def blobs(self) -> dict[str, str]:
        """Return the blobs of the disk and the key."""
        return {"disk": self.disk, "ssh_key": self.ssh_key}

    @property
    def own_version(self) -> tuple[str, int]:
        """What the kernel on the disk said of itself when the image was made: kern.version and kern.osreldate.

        Empty and 0 where another kernel, or none, was booted then.
        """
        if "direct_boot" in self.recipe:
            return "", 0
        return str(self.recipe.get("kernel") or ""), int(self.recipe.get("osreldate") or 0)


@dataclass(frozen=True)
class DiskContent:
    """What a disk image file turned out to be."""

    format: DiskFormat
    virtual_size: int
    content: str


# Where a file system or partition table announces itself: offset, bytes, name.  From the on-disk formats: UFS's
# superblock lies at 8 KiB (version 1) or 64 KiB (version 2) with its magic number 1,372 bytes in.
_SIGNATURES = (
    (8192 + 1372, (0x011954).to_bytes(4, "little"), "UFS1 file system"),
    (65536 + 1372, (0x19540119).to_bytes(4, "little"), "UFS2 file system"),
    (0, (0x48414D3205172011).to_bytes(8, "little"), "HAMMER2 file system"),
    (512, b"EFI PART", "GPT partitions"),
    (512, (0xC4464C59).to_bytes(4, "little"), "64-bit disklabel"),
    (510, b"\x55\xaa", "MBR partitions"),
)


def inspect_disk(file: Path, store: Store) -> DiskContent:
    """Find out what FILE holds; raises UsageError when it is missing or holds no file system or partition table."""
    if not file.is_file():
        raise UsageError(f"disk {file} does not exist")
    try:
        about = json.loads(qemu_img("info", "--output=json", "-U", str(file)))
    except HarnessError as error:
        raise UsageError(f"{file} is no disk image: {error}") from None
    if about["format"] not in {"raw", "qcow2"}:
        raise UsageError(
            f"{file} is a {about['format']} image: convert it first (qemu-img convert -O qcow2 {file} OUT)"
        )
    if "backing-filename" in about:
        raise UsageError(f"{file} is an overlay of {about['backing-filename']}: flatten it first (qemu-img convert)")
    with store.scratch("inspect") as folder:
        head = folder / "head"
        count = -(-_PROBED // 512)
        qemu_img("dd", "-U", "-f", about["format"], "-O", "raw", f"if={file}", f"of={head}", "bs=512", f"count={count}")
        start = head.read_bytes()
    for offset, magic, content in _SIGNATURES:
        if start[offset : offset + len(magic)] == magic:
            return DiskContent(DiskFormat(about["format"]), int(about["virtual-size"]), content)
    raise UsageError(f"{file} holds no file system or partition table that DragonFly could boot from: not a disk image")


def require_free_name(store: Store, name: str) -> None:
    """Raise UsageError when there is an image called NAME already."""
    if any(known.name == name for known in store.all(BaseImage)):
        raise UsageError(
            f"image {name!r} exists already: choose another name, or remove it first (dfly-harness image remove {name})"
        )


def import_image(store: Store, image: BaseImage, disk: Path, ssh_key: Path, *, compress: bool = False) -> BaseImage:
    """Seal DISK and SSH_KEY in the store as IMAGE (whose blobs are filled in) and return the record.

    The disk is converted to a qcow2 of its own, so the given file can be deleted; COMPRESS makes that smaller and
    slower to make.  Raises UsageError when the name is taken or the disk is none, HarnessError when there is no room.
    """
    content = inspect_disk(disk, store)
    require_free_name(store, image.name)
    store.require_space(disk.stat().st_size, f"image {image.name}")
    with store.scratch("import") as folder, store.adding():
        sealed = folder / "disk.qcow2"
        packed = ["-c"] if compress else []
        qemu_img("convert", *packed, "-f", content.format.value, "-O", "qcow2", str(disk), str(sealed))
        record = replace(
            image,
            disk=store.add_blob(sealed, move=True),
            ssh_key=store.add_blob(ssh_key, mode=0o400),
            filesystem=image.filesystem or content.content,
            source=image.source or str(disk.resolve()),
        )
        store.put(record)
    return record


def disk_of(image: BaseImage, store: Store) -> Disk:
    """Return the sealed disk of IMAGE; machines overlay it."""
    return Disk(store.blob(image.disk), model=DiskModel(image.disk_model))
