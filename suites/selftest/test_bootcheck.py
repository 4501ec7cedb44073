# SPDX-License-Identifier: BSD-2-Clause
"""Why a target does not boot is found out by more boots, before anything is said of its kernel."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from testkernel import build_kernel

from harness.errors import DeadlineError, GuestLostError, HarnessError, UsageError
from harness.guests import bootcheck
from harness.guests.bootcheck import BootFailedError, Culprit, boot, to_compare_with
from harness.guests.console import Console
from harness.guests.crash import CrashReport
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import BOOT_DEADLINE, Guest, KernelPanicError, MachineSize, Progress
from harness.guests.quirks import boot_quirks
from harness.images.base import BaseImage
from harness.kernels.artefact import Kernel, import_kernel
from harness.machine.description import Accelerator
from harness.plugin.diagnosis import start_trouble
from harness.processes.session import Warmth
from harness.results.verdict import Verdict
from harness.store import Store

KVM, TCG = Accelerator.KVM, Accelerator.TCG
LOST = GuestLostError("QEMU was killed by signal 9")
NO_SSH = DeadlineError("SSH to answer", 180, ["mountroot>"])
PANIC = KernelPanicError(CrashReport("panic: no init"))


@dataclass
class World:
    """Which kernels come up under which accelerator: `outcomes` says what is raised where one does not."""

    store: Store
    image: BaseImage
    outcomes: dict[tuple[str, Accelerator], HarnessError] = field(default_factory=dict)
    booted: list[tuple[str, Accelerator]] = field(default_factory=list)
    bad_images: set[str] = field(default_factory=set)

    def kernel(self, name: str, digest: str = "") -> Kernel:
        """Return the kernel called NAME; they differ by what their files are."""
        try:
            return self.store.get(Kernel, name)
        except UsageError:
            file = self.store.folder("files") / name
            file.write_bytes(build_kernel(self.store.cache).read_bytes() + (digest or name).encode())
            return import_kernel(self.store, name, file)

    def target(self, name: str) -> DragonFlyTarget:
        """Return the image with the kernel called NAME."""
        return DragonFlyTarget(self.image, self.kernel(name), self.store, {})

    def has_booted(self, name: str, image: BaseImage | None = None) -> None:
        """Leave a warm state of the kernel called NAME."""
        folder = self.store.folder("snapshots", f"{name}-{image.name if image else 'base'}")
        needs = [(image or self.image).disk, self.kernel(name).elf]
        (folder / "warm.json").write_text(json.dumps({"needs": needs}))

    def guest(self, name: str, accelerator: Accelerator) -> Guest:
        """Return a guest to boot."""
        return Guest(self.target(name), self.store, MachineSize(128, accelerator=accelerator))

    def failure(self, name: str, accelerator: Accelerator) -> BootFailedError:
        """Boot, and return what was found."""
        with pytest.raises(BootFailedError) as caught:
            boot(self.guest(name, accelerator))
        return caught.value


def make_image(store: Store, name: str) -> BaseImage:
    disk = store.folder("files") / f"{name}.raw"
    disk.write_bytes(name.encode())
    image = BaseImage(name, disk=store.add_blob(disk), ssh_key=store.add_blob(disk))
    store.put(image)
    return image


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    store = Store(tmp_path / "store")
    world = World(store, make_image(store, "base"))

    def scripted(
        self: Guest, progress: Progress = lambda _: None, *, deadline: float = 1.0, ahead: bool = False
    ) -> None:
        del progress, deadline, ahead
        assert isinstance(self.target, DragonFlyTarget)
        assert self.target.kernel is not None
        case = self.target.kernel.name, self.accelerator
        world.booted.append(case)
        if case in world.outcomes:
            raise world.outcomes[case]
        if self.target.image.name in world.bad_images:
            raise NO_SSH

    monkeypatch.setattr(Guest, "boot", scripted)
    return world


def test_what_boots_is_not_looked_into(world: World) -> None:
    world.has_booted("good")
    boot(world.guest("new", KVM))
    assert world.booted == [("new", KVM)]


def test_the_accelerator_is_at_fault(world: World) -> None:
    world.outcomes["new", KVM] = NO_SSH
    found = world.failure("new", KVM)
    assert found.culprit is Culprit.ACCELERATOR
    assert world.booted == [("new", KVM), ("new", TCG)]
    first, *tail = str(found).splitlines()
    assert "kernel new" in first
    assert "does not come up under kvm (waited 180 s for SSH to answer, in vain)" in first
    assert "under tcg it came up in 0 s: the accelerator is at fault, not the kernel (--accelerator tcg)" in first
    assert tail == ["    | mountroot>"]
    assert start_trouble(found).verdict is Verdict.HARNESS_ERROR


def test_a_qemu_that_does_not_start_is_the_accelerators_fault_too(world: World) -> None:
    world.outcomes["new", KVM] = HarnessError("QEMU did not start: failed to initialize kvm")
    assert world.failure("new", KVM).culprit is Culprit.ACCELERATOR


def test_the_kernel_is_at_fault(world: World) -> None:
    world.has_booted("good")
    world.outcomes |= {("new", KVM): LOST, ("new", TCG): NO_SSH}
    found = world.failure("new", KVM)
    assert found.culprit is Culprit.KERNEL
    assert world.booted == [("new", KVM), ("new", TCG), ("good", TCG)]
    assert "under kvm (QEMU was killed by signal 9), nor under tcg (waited 180 s for SSH to answer" in str(found)
    assert "kernel good" in str(found)
    assert "the kernel is at fault, not the host" in str(found)
    assert start_trouble(found).verdict is Verdict.BOOT_FAILURE


def test_under_tcg_it_is_not_tried_again(world: World) -> None:
    world.has_booted("good")
    world.outcomes["new", TCG] = NO_SSH
    assert world.failure("new", TCG).culprit is Culprit.KERNEL
    assert world.booted == [("new", TCG), ("good", TCG)]


def test_the_host_is_at_fault(world: World) -> None:
    world.has_booted("good")
    world.outcomes |= {("new", TCG): NO_SSH, ("good", TCG): LOST}
    found = world.failure("new", TCG)
    assert found.culprit is Culprit.HOST
    assert "kernel good" in str(found)
    assert "does not come up either (QEMU was killed by signal 9): the host is at fault (load " in str(found)
    assert start_trouble(found).verdict is Verdict.HARNESS_ERROR


def test_nothing_to_compare_with(world: World) -> None:
    world.has_booted("new")  # in other days: that is the one in question
    world.outcomes["new", TCG] = NO_SSH
    found = world.failure("new", TCG)
    assert found.culprit is Culprit.UNKNOWN
    assert "cannot be told apart" in str(found)
    assert start_trouble(found).verdict is Verdict.HARNESS_ERROR


def test_what_boots_on_another_image_clears_the_host_only(world: World) -> None:
    other = make_image(world.store, "other")
    world.has_booted("good", other)
    world.bad_images.add("base")
    found = world.failure("new", TCG)
    assert found.culprit is Culprit.UNKNOWN
    assert world.booted == [("new", TCG), ("good", TCG), ("good", TCG)]  # on the same image, and where it has booted
    assert "the kernel or its image is at fault, not the host" in str(found)
    assert start_trouble(found).verdict is Verdict.HARNESS_ERROR


def test_a_kernel_that_nobody_has_booted_yet_will_do_to_compare_with(world: World) -> None:
    """Of a fresh store nothing has booted: a kernel that comes up on the same image tells just as much."""
    world.kernel("stock")
    world.outcomes["new", TCG] = NO_SSH
    found = world.failure("new", TCG)
    assert found.culprit is Culprit.KERNEL
    assert world.booted == [("new", TCG), ("stock", TCG)]


def test_where_nothing_boots_no_kernel_is_blamed(world: World) -> None:
    for name in ("one", "two", "three"):
        world.kernel(name)
        world.outcomes[name, TCG] = PANIC
    world.outcomes["new", TCG] = PANIC
    found = world.failure("new", TCG)
    assert found.culprit is Culprit.UNKNOWN
    assert len(world.booted) == 1 + 2  # not every kernel of the store
    trouble = start_trouble(found)
    assert (trouble.verdict, trouble.verdict.exit_code) == (Verdict.HARNESS_ERROR, 3)


def test_a_panic_on_an_image_on_which_another_kernel_came_up_is_the_kernels(world: World) -> None:
    world.has_booted("good")
    world.outcomes |= {("new", KVM): NO_SSH, ("new", TCG): PANIC}
    found = world.failure("new", KVM)
    assert str(found).startswith("the guest's kernel panicked: panic: no init")
    assert ("good", TCG) not in world.booted  # it has come up before, on the very same image
    trouble = start_trouble(found)
    assert (trouble.verdict, trouble.cause, trouble.kernel_died) == (Verdict.BOOT_FAILURE, Verdict.PANIC, True)
    assert trouble.verdict.exit_code == 1


def test_a_panic_under_an_accelerator_alone_is_not_the_kernels(world: World) -> None:
    world.outcomes["new", KVM] = PANIC
    assert world.failure("new", KVM).culprit is Culprit.ACCELERATOR


def test_another_kernel_than_the_one_asked_for_is_said_at_once(world: World) -> None:
    world.has_booted("good")
    world.outcomes["new", TCG] = HarnessError("another kernel is running")
    with pytest.raises(HarnessError, match=r"^another kernel is running$"):
        boot(world.guest("new", TCG))
    assert world.booted == [("new", TCG)]


def test_how_long_a_boot_may_take_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(bootcheck.BOOT_VARIABLE, raising=False)
    assert bootcheck.boot_deadline() == BOOT_DEADLINE
    monkeypatch.setenv(bootcheck.BOOT_VARIABLE, "7.5")
    assert bootcheck.boot_deadline() == 7.5
    for nonsense in ("0", "-3", "soon", "nan"):
        monkeypatch.setenv(bootcheck.BOOT_VARIABLE, nonsense)
        with pytest.raises(UsageError, match="not a number of seconds"):
            bootcheck.boot_deadline()


def test_the_same_image_goes_first_and_damage_is_passed_by(world: World) -> None:
    other = make_image(world.store, "other")
    world.has_booted("good")
    world.has_booted("later", other)
    (world.store.folder("snapshots", "broken") / "warm.json").write_text("{")
    (world.store.folder("snapshots", "gone") / "warm.json").write_text('{"needs": ["a", "b"]}')
    (found,) = to_compare_with(world.target("new"), world.store)
    assert isinstance(found.target, DragonFlyTarget)
    assert found.target.kernel is not None
    assert (found.target.kernel.name, found.target.image.name) == ("good", "base")
    assert found.same_image
    assert found.has_booted


def test_who_waited_meanwhile_does_not_boot_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootcheck, "to_compare_with", lambda *_: [])
    world.outcomes["new", TCG] = NO_SSH
    size = MachineSize(128, accelerator=TCG)
    first, second = (Warmth(world.target("new"), world.store, size) for _ in range(2))
    errors: list[BaseException] = []

    def make(warmth: Warmth) -> None:
        try:
            warmth.snapshot()
        except BootFailedError as error:
            errors.append(error)

    with world.store.lock(f"snapshot-{first.key}"):
        threads = [threading.Thread(target=make, args=(warmth,)) for warmth in (first, second)]
        waiting = threading.Event()
        said: list[str] = []

        def note(line: str) -> None:
            said.append(line)
            if len(said) == len(threads):
                waiting.set()

        monkeypatch.setattr(Warmth, "snapshot", lambda self: Warmth._find_or_make(self, note))
        for thread in threads:
            thread.start()
        assert waiting.wait(20)
    for thread in threads:
        thread.join(20)
    assert world.booted == [("new", TCG)]
    assert [type(error) for error in errors] == [BootFailedError] * 2
    assert str(errors[0]) == str(errors[1])
    # Who comes later tries anew.
    with pytest.raises(BootFailedError):
        Warmth(world.target("new"), world.store, size).snapshot()
    assert len(world.booted) == 2


@pytest.mark.parametrize(
    ("osreldate", "accelerator", "wanted"),
    [(400704, KVM, True), (500901, KVM, True), (500902, KVM, False), (600518, KVM, False), (None, KVM, True),
     (400704, TCG, False)],
)  # fmt: skip
def test_old_kernels_keep_their_io_apic_under_kvm(
    world: World, osreldate: int | None, accelerator: Accelerator, wanted: bool
) -> None:
    target = world.target("old")
    assert target.kernel is not None
    target = replace(target, kernel=replace(target.kernel, osreldate=osreldate))
    boot_options = target.machine(MachineSize(128), accelerator).boot
    assert boot_options is not None
    assert ("hw.ioapic_enable=1" in boot_options.append) is wanted
    assert len(target.quirks(accelerator)) == len(list(boot_quirks(osreldate, accelerator))) == int(wanted)
    assert all("hw.ioapic_enable=1" in quirk for quirk in target.quirks(accelerator))


@pytest.mark.parametrize(
    ("root", "osreldate", "wanted"),
    [
        ("ufs:vbd0s0", 600515, "ufs:vbd0s0"),
        ("ufs:vbd0s0", 600516, "ufs:vbd0"),
        ("ufs:/dev/da0s0", 600517, "ufs:/dev/da0"),
        ("hammer2:vbd0s0@ROOT", 600517, "hammer2:vbd0@ROOT"),
        ("ufs:vbd0s0", 600518, "ufs:vbd0s0"),
        ("ufs:vbd0s0", None, "ufs:vbd0"),
        ("ufs:vbd0", 600517, "ufs:vbd0"),
        ("ufs:vbd0s1a", 600517, "ufs:vbd0s1a"),
        ("ufs:vbd0s0a", 600517, "ufs:vbd0s0a"),  # a disklabel, and none without its slice
    ],
)
def test_a_slice_that_is_all_of_its_disk_is_the_bare_disk_where_kernels_have_none(
    world: World, root: str, osreldate: int | None, wanted: str
) -> None:
    target = world.target("old")
    assert target.kernel is not None
    kernel, image = replace(target.kernel, osreldate=osreldate), replace(target.image, root=root)
    target = replace(target, kernel=kernel, image=image)
    boot_options = target.machine(MachineSize(128), TCG).boot
    assert boot_options is not None
    assert f"vfs.root.mountfrom={wanted}" in boot_options.append.split()
    assert any(f"vfs.root.mountfrom={wanted}" in quirk for quirk in target.quirks(TCG)) is (wanted != root)


@pytest.mark.parametrize(
    ("osreldate", "quick"), [(400704, False), (500106, False), (500107, True), (600518, True), (None, False)]
)
def test_kernels_wait_as_little_as_they_can(world: World, osreldate: int | None, quick: bool) -> None:
    target = world.target("new")
    assert target.kernel is not None
    target = replace(target, kernel=replace(target.kernel, osreldate=osreldate), environment={"psm0.disabled": "0"})
    boot_options = target.machine(MachineSize(128), TCG).boot
    assert boot_options is not None
    words = boot_options.append.split()
    assert {"vfs.root.wakedelay=-1", "kern.break_to_debugger=1"}.issubset(words)
    assert {"hw.tsc_cputimer_force=1", "hw.tsc_cputimer_enable=0"}.issubset(words) == quick
    assert [word for word in words if word.startswith("psm0.disabled")] == ["psm0.disabled=0"]  # the user's word counts


@pytest.mark.parametrize(
    ("said", "symbols", "leaps"),
    [
        ("CAM: Configuring 2 busses\nCAM: finished configuring all busses\n", True, [(0x1000, 500)]),
        ("CAM: finished configuring all busses\n", False, []),
        ("device ata1\nMounting root from ufs:vbd0\n", True, []),
        ("panic: no memory\ncpuid = 0\n", True, []),
    ],
)
def test_the_wait_for_usb_is_leaped_over_where_the_kernel_is_in_it(
    world: World, tmp_path: Path, said: str, symbols: bool, leaps: list[tuple[int, int]]
) -> None:
    made: list[tuple[int, int]] = []

    class Kernel:
        """Has the variables that matter, if its file has SYMBOLS."""

        def address(self, name: str) -> int:
            if not symbols:
                raise UsageError("no symbols")
            return {"ticks": 0x1000}[name]

        def word(self, name: str) -> int:
            return {"hz": 100}[name]

        def add(self, address: int, count: int) -> None:
            made.append((address, count))

    near, far = socket.socketpair()
    with near, far:
        console = Console(near, tmp_path / "console.log")
        far.sendall(said.encode())
        began = time.monotonic()
        world.target("new").hurry(cast(Guest, SimpleNamespace(console=console, kernel=Kernel())))
    assert made == leaps
    assert time.monotonic() - began < 10.0  # it does not wait for what will not come


def test_what_the_user_says_goes_before_a_quirk(world: World) -> None:
    target = replace(world.target("old"), environment={"hw.ioapic_enable": "0"})
    assert target.kernel is not None
    boot_options = replace(target, kernel=replace(target.kernel, osreldate=1)).machine(MachineSize(128), KVM).boot
    assert boot_options is not None
    assert "hw.ioapic_enable=0" in boot_options.append
    assert "hw.ioapic_enable=1" not in boot_options.append
