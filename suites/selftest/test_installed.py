# SPDX-License-Identifier: BSD-2-Clause
"""Installed kernels: what is done to /boot, for real in a folder of this host, and the way back when one fails."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_builder import LocalShell
from testkernel import build_kernel as build_test_kernel

from harness.errors import DeadlineError, ExitCode, HarnessError, UsageError
from harness.guests.guest import MachineSize
from harness.guests.installed import InstalledTarget, InstallFailedError, KernelInstallation, KernelInstaller
from harness.guests.targets import TargetChoice, resolve_target
from harness.images.base import BaseImage
from harness.kernels.artefact import Kernel, import_kernel
from harness.machine.description import Accelerator
from harness.store import Store

# chflags of a system where root, too, has to clear schg: a file with a mark beside it cannot be changed.
_CHFLAGS = """
echo "chflags $*" >> {log}
if test "$1" = -R; then shift; fi
flag=$1; shift
for file; do
    case $flag in
    schg) touch "$file.schg";;
    noschg) find "$file" -name '*.schg' -exec rm -f {{}} +;;
    esac
done
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def kernel_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_test_kernel(tmp_path_factory.getbasetemp() / "testkernel")


@pytest.fixture
def shell(tmp_path: Path, kernel_file: Path) -> LocalShell:
    made = LocalShell(tmp_path / "guest", kernel_file)
    chflags = made.folder / "bin/chflags"
    chflags.write_text("#!/bin/sh\n" + _CHFLAGS.format(log=made.log))
    chflags.chmod(0o755)
    boot = made.folder / "boot"
    for name, text in (("kernel/kernel", "old"), ("kernel/a.ko", "old"), ("kernel/gone.ko", "old")):
        (boot / name).parent.mkdir(parents=True, exist_ok=True)
        (boot / name).write_text(text)
    (boot / "kernel/kernel.schg").touch()
    return made


class TestInstaller:
    """The commands themselves."""

    def installer(self, shell: LocalShell) -> KernelInstaller:
        return KernelInstaller(shell, str(shell.folder / "boot"))

    def content(self, shell: LocalShell) -> dict[str, str]:
        boot = shell.folder / "boot"
        return {str(file.relative_to(boot)): file.read_text() for file in boot.rglob("*") if file.is_file()}

    def test_the_old_kernel_is_kept_and_the_new_one_is_protected(self, shell: LocalShell, tmp_path: Path) -> None:
        (tmp_path / "new").write_text("new")
        (shell.folder / "boot/kernel.old").mkdir()
        (shell.folder / "boot/kernel.old/kernel").write_text("older")
        self.installer(shell).install(tmp_path / "new")
        assert self.content(shell) == {
            "kernel/kernel": "new", "kernel/kernel.schg": "", "kernel/a.ko": "old", "kernel/gone.ko": "old",
            "kernel.old/kernel": "old", "kernel.old/a.ko": "old", "kernel.old/gone.ko": "old",
        }  # fmt: skip
        assert (shell.folder / "boot/kernel/kernel").stat().st_mode & 0o777 == 0o555

    def test_modules_go_along_and_the_old_ones_go(self, shell: LocalShell, tmp_path: Path) -> None:
        (tmp_path / "new").write_text("new")
        (tmp_path / "a.ko").write_text("new")
        subprocess.run(["tar", "-cf", "m.tar", "a.ko"], cwd=tmp_path, check=True)
        self.installer(shell).install(tmp_path / "new", tmp_path / "m.tar")
        content = self.content(shell)
        assert {name for name in content if name.startswith("kernel/")} == {
            "kernel/kernel", "kernel/kernel.schg", "kernel/a.ko"
        }  # fmt: skip
        assert content["kernel/a.ko"] == "new"
        assert content["kernel.old/gone.ko"] == "old"

    def test_a_guest_without_an_installed_kernel(self, shell: LocalShell, tmp_path: Path) -> None:
        subprocess.run(["rm", "-r", str(shell.folder / "boot/kernel")], check=True)
        with pytest.raises(HarnessError, match="find the kernel its loader boots"):
            self.installer(shell).install(tmp_path / "new")

    def test_a_step_that_fails_stops_before_anything_is_replaced(self, shell: LocalShell, tmp_path: Path) -> None:
        (shell.folder / "bin/cp").write_text("#!/bin/sh\necho no space left >&2\nexit 1\n")
        (shell.folder / "bin/cp").chmod(0o755)
        with pytest.raises(HarnessError, match=r"keep the old kernel as kernel\.old: no space left"):
            self.installer(shell).install(tmp_path / "new")
        assert (shell.folder / "boot/kernel/kernel").read_text() == "old"


class FakeMachine:
    """A machine that is off as soon as it was told."""

    def __init__(self, shell: LocalShell) -> None:
        self._shell = shell

    def await_end(self, deadline: float) -> None:
        if "shutdown -p now" not in self._shell.log.read_text():
            raise DeadlineError("the machine to switch itself off", deadline)


class FakeConsole:
    """What a guest said."""

    def tail(self) -> tuple[str, ...]:
        return ("Uptime: 1m",)


class FakeGuest:
    """Comes up, or does not, as told by OUTCOME."""

    accelerator = Accelerator.TCG

    def __init__(self, target: InstalledTarget, shell: LocalShell, outcome: HarnessError | None) -> None:
        self.target = target
        self.ssh = shell
        self.machine = FakeMachine(shell)
        self.console = FakeConsole()
        self.identity = "DragonFly old"
        self._outcome = outcome

    def boot(self, progress: Any, *, deadline: float) -> None:
        del progress, deadline
        if self._outcome is not None:
            raise self._outcome


class TestInstallation:
    """The sequence: install, prove, take over, or roll back."""

    @pytest.fixture
    def image(self, store: Store, tmp_path: Path) -> BaseImage:
        disk = tmp_path / "disk.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1M"], check=True)
        key = tmp_path / "key"
        key.write_text("k")
        image = BaseImage("base", disk=store.add_blob(disk), ssh_key=store.add_blob(key))
        store.put(image)
        return image

    @pytest.fixture
    def kernel(self, store: Store, kernel_file: Path) -> Kernel:
        return import_kernel(store, "new", kernel_file)

    @pytest.fixture
    def installation(
        self, store: Store, image: BaseImage, kernel: Kernel, shell: LocalShell, monkeypatch: pytest.MonkeyPatch
    ) -> tuple[Callable[[HarnessError | None], KernelInstallation], list[InstalledTarget]]:
        started: list[InstalledTarget] = []
        boot = str(shell.folder / "boot")
        monkeypatch.setattr("harness.guests.installed.KernelInstaller", lambda ssh: KernelInstaller(ssh, boot))
        (shell.folder / "bin/shutdown").write_text(f"#!/bin/sh\necho shutdown $* >> {shell.log}\n")
        (shell.folder / "bin/shutdown").chmod(0o755)

        def make(outcome: HarnessError | None) -> KernelInstallation:
            @contextmanager
            def start(target: InstalledTarget) -> Iterator[Any]:
                started.append(target)
                yield FakeGuest(target, shell, outcome if target.kernel is not None else None)

            return KernelInstallation(store, image, kernel, MachineSize(), start=start)

        return make, started

    def test_a_guest_that_does_not_power_off_makes_no_image(
        self,
        store: Store,
        shell: LocalShell,
        installation: tuple[Callable[[HarnessError | None], KernelInstallation], list[InstalledTarget]],
    ) -> None:
        make, _ = installation
        (shell.folder / "bin/shutdown").write_text("#!/bin/sh\nexit 1\n")
        with pytest.raises(DeadlineError, match=r"the guest to power off(.|\n)*Uptime: 1m"):
            make(None).make("base+new")
        assert [image.name for image in store.all(BaseImage)] == ["base"]

    def test_a_kernel_that_comes_up_makes_an_image_booted_by_its_loader(
        self,
        store: Store,
        kernel: Kernel,
        shell: LocalShell,
        installation: tuple[Callable[[HarnessError | None], KernelInstallation], list[InstalledTarget]],
    ) -> None:
        make, started = installation
        made = make(None).make("base+new")
        assert [(target.kernel, target.writable) for target in started] == [(None, True), (kernel, False)]
        assert started[0].disk == started[1].disk
        assert "shutdown -p now" in shell.log.read_text()
        assert (shell.folder / "boot/kernel/kernel").read_bytes() == store.blob(kernel.elf).read_bytes()
        target = resolve_target(TargetChoice("base+new", "installed"), store)
        assert isinstance(target, InstalledTarget)
        assert target.kernel == kernel
        assert target.machine(MachineSize(), Accelerator.TCG).boot is None
        assert target.label.endswith("installed, by its loader")
        assert made.installed_kernel == "new"
        direct = resolve_target(TargetChoice("base+new", "new"), store)
        assert direct.key != target.key
        assert direct.machine(MachineSize(), Accelerator.TCG).boot is not None
        with pytest.raises(UsageError, match="'base\\+new' exists already"):
            make(None).make("base+new")

    def test_a_kernel_that_does_not_come_up_is_rolled_back(
        self,
        store: Store,
        image: BaseImage,
        installation: tuple[Callable[[HarnessError | None], KernelInstallation], list[InstalledTarget]],
    ) -> None:
        make, started = installation
        with pytest.raises(InstallFailedError) as caught:
            make(DeadlineError("SSH to answer", 5)).make("base+new")
        assert "waited 5 s for SSH to answer" in str(caught.value)
        assert "rolled back, the image boots DragonFly old as before" in str(caught.value)
        assert caught.value.exit_code == ExitCode.TEST_FAILED
        assert (started[-1].kernel, started[-1].disk) == (None, None)  # the sealed disk itself
        assert [one.name for one in store.all(BaseImage)] == [image.name]
        assert not list((store.home / "run").iterdir())

    def test_an_environment_cannot_be_given_to_a_loader(self, store: Store, image: BaseImage, kernel: Kernel) -> None:
        target = InstalledTarget(image, kernel, store, {"boot_verbose": "YES"})
        with pytest.raises(UsageError, match="--kenv goes with a direct boot"):
            target.machine(MachineSize(), Accelerator.TCG)
