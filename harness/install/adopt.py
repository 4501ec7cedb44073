# SPDX-License-Identifier: BSD-2-Clause
"""Images made elsewhere: logged into with what their maker left, given our key, proved, sealed."""

from __future__ import annotations

import contextlib
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness import __version__
from harness.config import share
from harness.errors import HarnessError, UsageError
from harness.guests.dragonfly import dragonfly_machine
from harness.guests.guest import MachineSize, Progress
from harness.guests.ssh import SshAccess, SshConnection
from harness.images.base import BaseImage, import_image, inspect_disk, require_free_name
from harness.images.keys import store_key
from harness.install.prove import BOOT_DEADLINE, Findings, Launch, examine, launcher, prove, shut_down
from harness.install.stages import Stages
from harness.kernels.artefact import Kernel
from harness.machine.accel import choose_accelerator
from harness.machine.description import Accelerator, Disk, DiskModel, MachineDescription
from harness.machine.qemu import qemu_img, qemu_version
from harness.store import Store

_SCRIPT = "adopt.sh"
_REMOTE = "/tmp/dfly-harness-adopt.sh"  # noqa: S108 (in the guest, which is ours alone)
_SCRIPT_DEADLINE = 300.0
# What a Vagrant box calls its disk: libvirt's, VirtualBox's and VMware's, Parallels' are not supported.
_BOX_DISKS = ("box.img", ".vmdk", ".qcow2", ".vdi")
_TO_CONVERT = ("vmdk", "vdi", "vpc", "vhdx")


@dataclass(frozen=True)
class Foreign:
    """A disk from elsewhere, and how its maker gets in: with a key or with a password.

    KERNEL boots it directly; without one its own loader does.  `root` is for the former.
    """

    name: str
    disk: Path
    user: str = "root"
    ssh_key: Path | None = None
    password: str | None = None
    disk_model: DiskModel = DiskModel.VIRTIO
    nic: str = ""
    root: str = ""
    kernel: Kernel | None = None
    memory: int = 1024
    cpus: int = 1
    accelerator: Accelerator | None = None


def unpack_box(box: Path, into: Path, store: Store) -> Path:
    """Take the disk out of a Vagrant box (a tar archive); raises UsageError when it holds none, or several."""
    with tarfile.open(box) as archive:
        disks = [member for member in archive if member.isfile() and member.name.endswith(_BOX_DISKS)]
        if len(disks) != 1:
            found = ", ".join(member.name for member in disks) or "none"
            raise UsageError(f"{box} is no Vagrant box with one disk (disks in it: {found})")
        store.require_space(disks[0].size, f"the disk in {box.name}")
        target = into / f"box{Path(disks[0].name).suffix}"
        source = archive.extractfile(disks[0])
        assert source is not None
        # Only the content is taken: neither names nor modes of the archive reach this host.
        with source, target.open("wb") as stream:
            while chunk := source.read(1 << 20):
                stream.write(chunk)
    return target


def is_box(file: Path) -> bool:
    """Tell whether FILE is a tar archive with something in it, compressed or not."""
    try:
        with tarfile.open(file) as archive:
            return archive.next() is not None  # a disk that begins with zeros passes for an empty archive
    except (OSError, EOFError, tarfile.TarError):
        return False


def adopt_image(
    foreign: Foreign,
    store: Store,
    progress: Progress = lambda _: None,
    *,
    launch: Launch | None = None,
    boot_deadline: float = BOOT_DEADLINE,
) -> BaseImage:
    """Boot a foreign disk, put our key in, turn passwords off, prove it with a second boot, seal it.

    The given file is not written to.  Raises StageError naming the stage when something is missing in it.
    """
    require_free_name(store, foreign.name)
    if foreign.ssh_key is None and foreign.password is None:
        raise UsageError("say how to log in: --ssh-key FILE or --password")
    with store.scratch("adopt") as folder:
        adoption = _Adoption(foreign, store, Stages(progress), launch or launcher(store), folder)
        adoption.prepare()
        return adoption.run(boot_deadline)


class _Adoption:
    """One adoption in its own scratch folder."""

    def __init__(self, foreign: Foreign, store: Store, stages: Stages, launch: Launch, folder: Path) -> None:
        self._foreign = foreign
        self._store = store
        self._stages = stages
        self._launch = launch
        self._folder = folder
        self._key = store_key(store)
        self._disk = Disk(folder / "disk.qcow2", model=foreign.disk_model, writable=True)
        self._format = ""

    def prepare(self) -> None:
        """Make a copy of the disk that may be written to."""
        with self._stages.stage("unpack"):
            source = self._foreign.disk
            if is_box(source):
                source = unpack_box(source, self._folder, self._store)
            if not source.is_file():
                raise UsageError(f"disk {source} does not exist")
            if source.suffix.lstrip(".") in _TO_CONVERT:
                converted = self._folder / "converted.qcow2"
                self._store.require_space(source.stat().st_size, f"image {self._foreign.name}")
                qemu_img("convert", "-O", "qcow2", str(source), str(converted))
                source = converted
            content = inspect_disk(source, self._store)
            self._format = content.content
            # An overlay costs nothing; sealing flattens it.
            options = ["-b", str(source.resolve()), "-F", content.format.value]
            qemu_img("create", "-q", "-f", "qcow2", *options, str(self._disk.file))

    def _machine(self) -> MachineDescription:
        foreign = self._foreign
        return dragonfly_machine(
            self._disk,
            self._store,
            MachineSize(foreign.memory, foreign.cpus),
            foreign.accelerator or choose_accelerator(self._store).accelerator,
            kernel=foreign.kernel,
            root=foreign.root or "ufs:vbd0",
            environment={},
            nic=foreign.nic,
        )

    def run(self, boot_deadline: float) -> BaseImage:
        """Do it."""
        foreign = self._foreign
        access = SshAccess(foreign.user, foreign.ssh_key or Path(), password=foreign.password)
        if foreign.ssh_key is not None:
            access = SshAccess(foreign.user, foreign.ssh_key)
        with self._launch(self._machine()) as running, contextlib.ExitStack() as stack:
            ssh = stack.enter_context(contextlib.closing(SshConnection(running.host_port(22), access)))
            with self._stages.stage("log in", running.console):
                ssh.connect(boot_deadline, running.check)
            with self._stages.stage("adopt", running.console):
                found = examine(ssh)
                self._put_key_in(ssh, found)
            shut_down(running, ssh, self._stages, as_root="" if found.uid == 0 else "sudo -n ")
        proof = prove(
            self._machine(),
            SshAccess("root", self._key.file),
            self._stages,
            self._launch,
            lambda _: None,
            boot_deadline=boot_deadline,
        )
        with self._stages.stage("seal"):
            return self._seal(proof.findings, proof.host_key)

    def _put_key_in(self, ssh: SshConnection, found: Findings) -> None:
        script = (share() / "images" / "install" / _SCRIPT).read_bytes()
        ssh.upload(script, _REMOTE, mode=0o755)
        become = "" if found.uid == 0 else "sudo -n "
        done = ssh.run(f"{become}/bin/sh {_REMOTE} '{self._key.public}'", deadline=_SCRIPT_DEADLINE)
        if done.status != 0:
            said = (done.errors or done.output).strip().rpartition("\n")[2]
            hint = "" if found.uid == 0 else f" (user {self._foreign.user} is not root and needs sudo without password)"
            raise HarnessError(f"our key could not be put in: {said or f'status {done.status}'}{hint}")

    def _seal(self, found: Findings, host_key: str) -> BaseImage:
        foreign = self._foreign
        recipe = {
            "harness": __version__,
            "adopted_from": foreign.disk.name,
            "kernel": found.version,
            "osreldate": found.osreldate,
            "compiler": found.compiler,
            "qemu": qemu_version(),
        }
        if foreign.kernel is not None:  # the versions above are those of a kernel that is not on the disk
            recipe["direct_boot"] = foreign.kernel.name
        flat = self._folder / "flat.qcow2"
        qemu_img("convert", "-f", "qcow2", "-O", "qcow2", str(self._disk.file), str(flat))
        wanted = BaseImage(
            foreign.name,
            disk="",
            ssh_key="",
            root=foreign.root or found.root or "ufs:vbd0",
            filesystem=self._format,
            source=str(foreign.disk.resolve()),
            imported=datetime.now(UTC).isoformat(timespec="seconds"),
            host_key=host_key,
            disk_model=foreign.disk_model.value,
            nic=foreign.nic,
            recipe=recipe,
        )
        return import_image(self._store, wanted, flat, self._key.file, compress=True)
