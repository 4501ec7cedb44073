# SPDX-License-Identifier: BSD-2-Clause
"""The second CD: the live system's rc.d/pfi finds it by its pfi.conf and runs the script that the file names."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import pycdlib

from harness.config import share
from harness.errors import UsageError
from harness.machine.description import DiskModel

_SCRIPT = "install.sh"
_REGULAR = 0o100000
_LABEL = "DFLY_HARNESS"

#: What the first disk is called in the guest.  NATA numbers IDE disks; all others belong to CAM.
DISK_NAMES = {DiskModel.VIRTIO: "vbd0", DiskModel.IDE: "ad0", DiskModel.AHCI: "da0", DiskModel.SCSI: "da0"}


@dataclass(frozen=True)
class UnattendedInstall:
    """What the script on the CD is to do: onto which DISK (`vbd0`), with which FILESYSTEM, letting in which key."""

    disk: str
    filesystem: str
    authorized_key: str

    @property
    def root(self) -> str:
        """What the installed kernel mounts as its root."""
        return f"ufs:{self.disk}s1a" if self.filesystem == "ufs" else f"hammer2:{self.disk}s1d@ROOT"


def install_script() -> bytes:
    """Return the script that installs the live system."""
    return (share() / "images" / "install" / _SCRIPT).read_bytes()


def cd_files(installation: UnattendedInstall) -> dict[str, tuple[int, bytes]]:
    """Return the files of the CD with their modes.

    Raises UsageError for settings that a shell would not read back as they are.
    """
    for value in (installation.disk, installation.filesystem):
        if not re.fullmatch(r"[a-z0-9]+", value):
            raise UsageError(f"{value!r} is no name of a disk or file system")
    key = installation.authorized_key.strip()
    if not re.fullmatch(r"[ -~]+", key) or not key.startswith(("ssh-", "ecdsa-")):
        raise UsageError("the SSH key for the installed system must be one line of a public key")
    # Nothing is asked of PFI but to run the script: it needs no network and no password, and it ends the machine.
    pfi = f'pfi_script="{_SCRIPT}"\npfi_frontend="none"\n'
    settings = f"disk={installation.disk}\nfilesystem={installation.filesystem}\n"
    return {
        "pfi.conf": (0o444, pfi.encode()),
        _SCRIPT: (0o555, install_script()),
        "settings": (0o444, settings.encode()),
        "authorized_keys": (0o444, f"{key}\n".encode()),
    }


def write_cd(installation: UnattendedInstall, file: Path) -> None:
    """Write the CD to FILE, as ISO 9660 with Rock Ridge: PFI runs only what is executable."""
    disc = pycdlib.PyCdlib()
    disc.new(interchange_level=3, rock_ridge="1.09", vol_ident=_LABEL)
    try:
        for name, (mode, content) in sorted(cd_files(installation).items()):
            plain = re.sub(r"[^A-Z0-9.]", "_", name.upper())
            plain = plain if "." in plain else f"{plain}."
            disc.add_fp(
                io.BytesIO(content), len(content), iso_path=f"/{plain};1", rr_name=name, file_mode=_REGULAR | mode
            )
        disc.write(str(file))
    finally:
        disc.close()
