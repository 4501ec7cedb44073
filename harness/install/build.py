# SPDX-License-Identifier: BSD-2-Clause
"""From an installation CD to a base image, with nobody at the keyboard."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from harness import __version__
from harness.errors import DeadlineError, HarnessError, UsageError
from harness.guests.dragonfly import dragonfly_machine
from harness.guests.guest import MachineSize, Progress
from harness.guests.ssh import SshAccess
from harness.images.base import BaseImage, import_image, require_free_name
from harness.images.keys import StoreKey, store_key
from harness.images.manifest import Manifest
from harness.images.media import InstallationMedium
from harness.images.pfi import DISK_NAMES, UnattendedInstall, install_script, write_cd
from harness.install.dialogue import Deadlines, FalseStartError, InstallDialogue
from harness.install.prove import BOOT_DEADLINE, Findings, Launch, Proof, launcher, prove
from harness.install.stages import StageError, Stages
from harness.machine.accel import choose_accelerator
from harness.machine.description import Accelerator, Disk, MachineDescription
from harness.machine.qemu import qemu_img, qemu_version
from harness.store import Store

_POWER_OFF = 120.0
_STARTS = 3
# What the installed system takes on the host, as a multiple of the CD: once as it is written, once sealed.
_ROOM = 4


@dataclass(frozen=True)
class BuildOptions:
    """What to build: `disk_size` in MiB; `memory` in MiB, None for what the manifest says.

    `accelerator` None stands for the fastest.
    """

    name: str
    filesystem: str = "ufs"
    disk_size: int = 16384
    memory: int | None = None
    cpus: int = 1
    accelerator: Accelerator | None = None


def build_image(
    manifest: Manifest,
    medium: InstallationMedium,
    store: Store,
    options: BuildOptions,
    progress: Progress = lambda _: None,
    *,
    launch: Launch | None = None,
    deadlines: Deadlines | None = None,
    boot_deadline: float = BOOT_DEADLINE,
) -> BaseImage:
    """Install the CD of MEDIUM onto an empty disk, prove that it works, seal it and return its record.

    Raises StageError with the stage's name and the last 40 console lines when something goes wrong; nothing is left
    behind then, nor when this process is killed.
    """
    if options.filesystem not in manifest.filesystems:
        raise UsageError(
            f"DragonFly {manifest.release} cannot be installed on {options.filesystem}: it knows"
            f" {', '.join(manifest.filesystems)}"
        )
    require_free_name(store, options.name)
    with _only_builder(store, options.name), store.scratch("build") as folder:
        store.sweep()
        require_free_name(store, options.name)
        iso = store.blob(medium.iso)
        store.require_space(_ROOM * iso.stat().st_size, f"image {options.name}")
        builder = _Builder(manifest, iso, store, options, Stages(progress), launch or launcher(store), folder)
        builder.install(deadlines)
        return builder.seal(medium, builder.prove(boot_deadline))


@contextlib.contextmanager
def _only_builder(store: Store, name: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(store.lock(f"build-{name}", deadline=0))
        except DeadlineError:
            raise HarnessError(f"another command is building image {name!r} at this moment") from None
        yield


class _Builder:
    """One build in its own scratch folder."""

    def __init__(
        self,
        manifest: Manifest,
        iso: Path,
        store: Store,
        options: BuildOptions,
        stages: Stages,
        launch: Launch,
        folder: Path,
    ) -> None:
        self._manifest = manifest
        self._iso = iso
        self._store = store
        self._options = options
        self._stages = stages
        self._launch = launch
        self._disk = Disk(folder / "disk.qcow2", model=manifest.disk, writable=True)
        self._cd = folder / "pfi.iso"
        self._key: StoreKey = store_key(store)
        self._installation = UnattendedInstall(DISK_NAMES[manifest.disk], options.filesystem, self._key.public)
        self._size = MachineSize(options.memory or manifest.memory, options.cpus)
        self._accelerator: Accelerator = options.accelerator or choose_accelerator(store).accelerator

    def _machine(self) -> MachineDescription:
        return dragonfly_machine(
            self._disk,
            self._store,
            self._size,
            self._accelerator,
            kernel=None,
            root="",
            environment={},
            nic=self._manifest.nic,
        )

    def install(self, deadlines: Deadlines | None) -> None:
        write_cd(self._installation, self._cd)
        # Without a network card nothing can be wrong with the network, and none is needed.
        description = replace(self._machine(), nic=None, cdroms=(self._iso, self._cd))
        for attempt in range(1, _STARTS + 1):
            self._disk.file.unlink(missing_ok=True)
            qemu_img("create", "-q", "-f", "qcow2", str(self._disk.file), f"{self._options.disk_size}M")
            try:
                with self._launch(description) as running:
                    InstallDialogue(running.console, running.check, self._stages, deadlines).run()
                    running.await_end(_POWER_OFF)
            except StageError as error:
                if not isinstance(error.__cause__, FalseStartError) or attempt == _STARTS:
                    raise
                self._stages.step(f"{error.reason}; starting the machine again")
            else:
                return

    def prove(self, boot_deadline: float) -> Proof:
        access = SshAccess("root", self._key.file)
        return prove(self._machine(), access, self._stages, self._launch, self._check, boot_deadline=boot_deadline)

    def _check(self, found: Findings) -> None:
        if self._manifest.kernel_version not in found.version:
            raise HarnessError(f"not {self._manifest.kernel_version!r} but {found.version!r} was installed")
        if found.root and found.root != self._installation.root:
            raise HarnessError(f"it runs from {found.root}, not from its own disk ({self._installation.root})")
        if not found.compiler:
            raise HarnessError("it has no C compiler (/usr/bin/cc)")

    def seal(self, medium: InstallationMedium, proved: Proof) -> BaseImage:
        with self._stages.stage("seal"):
            recipe = {
                "harness": __version__,
                "release": self._manifest.release,
                "medium": medium.file,
                "medium_sha256": medium.fetched_sha256,
                "medium_verified": medium.verified,
                "install_script_sha256": hashlib.sha256(install_script()).hexdigest(),
                "filesystem": self._options.filesystem,
                "disk_mib": self._options.disk_size,
                "qemu": qemu_version(),
                "accelerator": self._accelerator.value,
                "kernel": proved.findings.version,
                "osreldate": proved.findings.osreldate,
                "compiler": proved.findings.compiler,
            }
            wanted = BaseImage(
                self._options.name,
                disk="",
                ssh_key="",
                root=self._installation.root,
                filesystem={"ufs": "UFS", "hammer2": "HAMMER2"}[self._options.filesystem],
                source=f"{medium.file} ({medium.source})",
                imported=datetime.now(UTC).isoformat(timespec="seconds"),
                host_key=proved.host_key,
                disk_model=self._manifest.disk.value,
                nic=self._manifest.nic,
                recipe=recipe,
            )
            return import_image(self._store, wanted, self._disk.file, self._key.file, compress=True)
