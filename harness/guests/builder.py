# SPDX-License-Identifier: BSD-2-Clause
"""Building kernels where they are at home: in a DragonFly guest, with the compiler of its own release.

Sources and objects live on a disk of their own beside the sealed base image, one per base revision: the first build of
a revision takes its time, a patch on it only what it touches.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shlex
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import HarnessError
from harness.guests.bootcheck import boot
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import Guest, MachineSize
from harness.guests.ssh import Completed
from harness.images.base import BaseImage
from harness.kernels.artefact import Kernel, pack_modules
from harness.kernels.build import BUILD_DEADLINE, Built, FailedBuild, Job, require_means, source_error
from harness.kernels.source import GitError, SourceTree
from harness.machine.description import Accelerator, Disk, DiskModel, MachineDescription
from harness.machine.qemu import qemu_img
from harness.store import Store
from harness.unpack import unpack

_DISK_SIZE = "24G"  # sparse: sources and objects of a kernel with modules take 2 to 4 GiB
_ROOM = 4 << 30
_MEMORY = 2048
_MAX_CPUS = 8
_FILE_DEADLINE = 1800.0
_MKFS_DEADLINE = 600.0


Watch = Callable[[], None]


class Shell(Protocol):
    """What the driver needs of a guest: commands and files.  An SSH connection is one."""

    def run(self, command: str, *, deadline: float = 60.0, watch: Watch | None = None) -> Completed:
        """Run COMMAND in the user's shell; WATCH is called now and then meanwhile and may raise."""

    def upload(self, content: bytes | Path, remote: str, *, mode: int = 0o644) -> None:
        """Write a file."""

    def download(self, remote: str) -> bytes:
        """Read a file."""


class BuildDriver:
    """Builds one job through SHELL on the builder disk DEVICE, mounted at ROOT.

    With FRESH the disk is empty and gets a file system.  With MODULES the kernel's modules are built as well.  WATCH
    raises when the guest is no longer well, and is asked all the time while make(1) runs.
    """

    def __init__(
        self,
        shell: Shell,
        device: str,
        *,
        fresh: bool,
        cpus: int = 1,
        modules: bool = False,
        root: str = "/build",
        watch: Watch = lambda: None,
    ) -> None:
        self._shell = shell
        self._watch = watch
        self._device = device
        self._fresh = fresh
        self._cpus = cpus
        self._modules = modules
        self._root = root

    def build(self, job: Job) -> Built:
        """Bring the sources, make the kernel, fetch it; raises FailedBuild when it does not build."""
        self._require_compiler()
        job.progress("mounting the builder disk")
        self._mount()
        try:
            self._bring_sources(job)
            self._make(job)
            built = self._fetch(job)
        except FailedBuild:
            self._write_back()
            raise
        self._write_back()
        return built

    def _write_back(self) -> None:
        """Make the builder disk whole; where a build does not end in order, nobody keeps it."""
        self._must(f"sync; umount {self._root}", "write back the builder disk", deadline=_MKFS_DEADLINE)

    def _must(self, command: str, purpose: str, *, deadline: float = 60.0) -> str:
        done = self._shell.run(command, deadline=deadline)
        if done.status != 0:
            said = (done.errors or done.output).strip().rpartition("\n")[2]
            raise HarnessError(f"the builder guest could not {purpose}: {said or f'status {done.status}'}")
        return done.output

    def _require_compiler(self) -> None:
        for program in ("cc", "make"):
            done = self._shell.run(f"command -v {program}")
            if done.status != 0:
                raise HarnessError(
                    f"the builder image has no {program}: choose another with --builder-image, or build on this host"
                    " with --command 'CMD {source} {output}'"
                )

    def _mount(self) -> None:
        device, root = f"/dev/{self._device}", self._root
        if self._fresh:
            # -v: the whole disk, without slices and labels.
            self._must(f"newfs -v {device}", f"make a file system on {device}", deadline=_MKFS_DEADLINE)
        self._must(
            f"mkdir -p {root} && {{ mount {device} {root} || {{ fsck -y {device} && mount {device} {root}; }}; }}",
            f"mount {device}",
            deadline=_MKFS_DEADLINE,
        )

    def _bring_sources(self, job: Job) -> None:
        marker = f"{self._root}/tree"
        present = self._shell.run(f"cat {marker}").output.strip()
        if present == job.source.tree:
            return
        # An interrupted transfer leaves no marker, and the next one begins anew.
        self._must(f"rm -f {marker}", "prepare the sources")
        changed: dict[str, bool] | None = None
        with contextlib.suppress(GitError):
            changed = job.source.changed_since(present) if present else None
        archive = job.folder / "sources.tar.gz"
        if changed is None:
            job.progress("bringing the sources to the builder")
            job.source.archive(archive)
            # The old tree goes even where removing it takes a while: a file that is no longer there must not be built.
            self._must(f"rm -rf {self._root}/src {self._root}/usable-*", "remove the old sources",
                       deadline=_FILE_DEADLINE)  # fmt: skip
        else:
            job.progress(f"bringing {len(changed)} changed files to the builder")
            self._archive_of(job, [path for path, there in changed.items() if there], archive)
        self._unpack(archive, [path for path, there in (changed or {}).items() if not there])
        self._shell.upload(f"{job.source.tree}\n".encode(), marker)

    @staticmethod
    def _archive_of(job: Job, paths: list[str], archive: Path) -> None:
        if paths:
            job.source.archive(archive, paths)
        else:
            with tarfile.open(archive, "w:gz"):
                pass

    def _unpack(self, archive: Path, gone: list[str]) -> None:
        root = self._root
        self._shell.upload(archive, f"{root}/sources.tar.gz")
        self._shell.upload("".join(f"{path}\0" for path in gone).encode(), f"{root}/gone")
        # Compressed: an emulated machine unpacks faster than it decrypts.  -m: make(1) compares the guest's own times.
        self._must(
            f"mkdir -p {root}/src && cd {root}/src && tar -xmpf ../sources.tar.gz && xargs -0 rm -f < ../gone"
            f" && rm -f ../sources.tar.gz ../gone",
            "unpack the sources",
            deadline=_FILE_DEADLINE,
        )

    def _make(self, job: Job) -> None:
        usable = f"{self._root}/usable-{shlex.quote(job.config)}"  # says that the objects there are may be built upon
        if self._shell.run(f"test -f {usable}").status == 0:
            job.progress("building what has changed")
            status = self._run_make(job, "quickkernel")
            if status == 0:
                return
            require_means(job.log, status)
            if source_error(job.log.read_text(errors="replace")) is not None:
                raise FailedBuild(1, "quickkernel failed")
        # Without a compiler's word against the sources it may be the object tree that is at fault.
        job.progress("building the kernel from scratch")
        self._must(f"rm -f {usable}", "prepare the build")
        status = self._run_make(job, "nativekernel")
        if status != 0:
            require_means(job.log, status)
        if status == 0 or source_error(job.log.read_text(errors="replace")) is not None:
            # Objects compiled before one that does not compile are as good as any.
            self._must(f"touch {usable}", "finish the build")
        if status != 0:
            raise FailedBuild(status, f"nativekernel ended with status {status}")

    def _run_make(self, job: Job, target: str) -> int:
        root, log = self._root, f"{self._root}/build.log"
        words = [
            f"-j{self._cpus}",
            target,
            f"KERNCONF={shlex.quote(job.config)}",
            *([] if self._modules else ["NO_MODULES=yes"]),
        ]
        # The sources on a release's CD come without share/mk: the system's own is used then.
        command = (
            f"cd {root}/src && mk= && if test -d share/mk; then mk='-m {root}/src/share/mk'; fi;"
            f" MAKEOBJDIRPREFIX={root}/obj make $mk -f Makefile.inc1 {' '.join(words)} > {log} 2>&1 < /dev/null"
        )
        done = self._shell.run(command, deadline=BUILD_DEADLINE, watch=self._watch)
        job.log.write_bytes(self._shell.download(log))
        return done.status

    def _fetch(self, job: Job) -> Built:
        job.progress("fetching the kernel")
        objects = f"{self._root}/obj{self._root}/src/sys/{shlex.quote(job.config)}"
        kernel = job.folder / "kernel"
        name = self._must(
            f"cd {objects} && ls kernel.stripped kernel.debug kernel 2>/dev/null | tail -1", "find the kernel"
        ).strip()
        if not name:
            raise FailedBuild(0, f"make ended with status 0, and there is no kernel in {objects}")
        kernel.write_bytes(self._shell.download(f"{objects}/{name}"))
        debug: Path | None = None
        if name != "kernel.debug" and self._shell.run(f"test -f {objects}/kernel.debug").status == 0:
            job.progress("fetching its debug information")
            debug = job.folder / "kernel.debug"
            debug.write_bytes(self._shell.download(f"{objects}/kernel.debug"))
        return Built(kernel, debug, self._fetch_modules(objects, job.folder) if self._modules else None)

    def _fetch_modules(self, objects: str, folder: Path) -> Path | None:
        packed = f"{self._root}/modules.tar"
        self._must(
            f"rm -rf {self._root}/ko && mkdir {self._root}/ko && cd {objects}"
            f" && find . -name '*.ko' -type f -exec cp {{}} {self._root}/ko/ ';' && cd {self._root}/ko"
            f" && tar -cf {packed} .",
            "collect the modules",
            deadline=_FILE_DEADLINE,
        )
        modules = folder / "modules"
        modules.mkdir()
        with tarfile.open(fileobj=io.BytesIO(self._shell.download(packed))) as archive:
            unpack(archive, modules)
        return pack_modules(modules, folder / "modules.tar") if any(modules.glob("*.ko")) else None


@dataclass(frozen=True)
class _BuilderTarget(DragonFlyTarget):
    """The base image with the builder disk beside its own."""

    disk: Path | None = None

    def machine(self, size: MachineSize, accelerator: Accelerator) -> MachineDescription:
        """Return the target's machine with one more disk, which is written to."""
        description = super().machine(size, accelerator)
        assert self.disk is not None
        return description.with_disks([*description.disks, Disk(self.disk, writable=True)])


class GuestBuilder:
    """Builds in a machine of IMAGE, booted from its own disk, or with KERNEL where the image has no boot loader."""

    def __init__(
        self,
        store: Store,
        image: BaseImage,
        *,
        kernel: Kernel | None = None,
        modules: bool = False,
        cpus: int = 0,
        accelerator: Accelerator | None = None,
    ) -> None:
        self._store = store
        self._image = image
        self._kernel = kernel
        self._modules = modules
        self._accelerator = accelerator
        self._cpus = cpus or min(_MAX_CPUS, os.cpu_count() or 1)

    @property
    def identity(self) -> str:
        """The sealed image holds the compiler and make(1): its digest names them."""
        return f"guest {self._image.disk[:32]}{' with modules' if self._modules else ''}"

    def disk_key(self, source: SourceTree) -> str:
        """Name the builder disk: whatever patches are on SOURCE, builds of one base revision share their objects."""
        return hashlib.sha256(f"{self.identity} {source.base_tree}".encode()).hexdigest()[:32]

    def build(self, job: Job) -> Built:
        """Build in the guest; raises what Guest.boot() raises, and FailedBuild."""
        key = self.disk_key(job.source)
        with self._store.lock(f"builder-{key}", deadline=BUILD_DEADLINE), self._disk(key) as (disk, fresh):
            target = _BuilderTarget(self._image, self._kernel, self._store, {}, disk=disk)
            device = "vbd1" if DiskModel(self._image.disk_model) is DiskModel.VIRTIO else "vbd0"
            with Guest(target, self._store, MachineSize(_MEMORY, self._cpus, accelerator=self._accelerator)) as guest:
                boot(guest, job.progress)
                driver = BuildDriver(
                    guest.ssh, device, fresh=fresh, cpus=self._cpus, modules=self._modules, watch=guest.check
                )
                return driver.build(job)

    @contextlib.contextmanager
    def _disk(self, key: str) -> Iterator[tuple[Path, bool]]:
        """Give an overlay of the builder disk, which is taken over only when the build came to an orderly end."""
        folder = self._store.folder("cache", "builders")
        disk, work, done = (folder / f"{key}{suffix}.qcow2" for suffix in ("", ".work", ".done"))
        if done.exists():  # interrupted while being taken over; doing that again does no harm
            self._take_over(done)
        fresh = not disk.exists()
        self._store.require_space(_ROOM, "the builder disk")
        work.unlink(missing_ok=True)
        if fresh:
            qemu_img("create", "-q", "-f", "qcow2", str(work), _DISK_SIZE)
        else:
            qemu_img("create", "-q", "-f", "qcow2", "-b", str(disk), "-F", "qcow2", str(work))
        orderly = False
        try:
            yield work, fresh
            orderly = True
        except FailedBuild:
            orderly = True
            raise
        finally:
            if not orderly:
                work.unlink(missing_ok=True)
            elif fresh:
                work.replace(disk)
            else:
                work.replace(done)
                self._take_over(done)

    @staticmethod
    def _take_over(overlay: Path) -> None:
        qemu_img("commit", "-q", "-d", "-f", "qcow2", str(overlay))
        overlay.unlink()
