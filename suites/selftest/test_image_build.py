# SPDX-License-Identifier: BSD-2-Clause
"""Building an image: every stage of the console dialogue, every way it can fail, and what is left afterwards.

The DragonFly side is a script that speaks the exact words and loses characters (scripted_dragonfly.py).
"""

from __future__ import annotations

import io
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pycdlib
import pytest
from own_store import make_store
from scripted_dragonfly import ERAS, STEPS, Script, ScriptedLaunch

from harness.errors import HarnessError, UsageError
from harness.images.base import BaseImage
from harness.images.keys import store_key
from harness.images.manifest import Manifest, Medium
from harness.images.media import InstallationMedium
from harness.images.pfi import DISK_NAMES, UnattendedInstall, install_script, write_cd
from harness.install.build import BuildOptions, build_image
from harness.install.dialogue import Deadlines
from harness.install.stages import StageError
from harness.machine.description import DiskModel
from harness.store import Store

# Where nothing gets lost nothing is typed twice, however slow the host is.
PATIENT = Deadlines(key=60, echo=60, quiet=0.15)
LOSSY = replace(PATIENT, key=0.6, echo=0.4)
# The one stage of each failure that is meant to wait in vain does so for a short time, and no other.
SHORT: dict[str, Deadlines] = {
    "silent": replace(PATIENT, menu=1),
    "boots alone": replace(PATIENT, key=0.15),
    "no echo": replace(PATIENT, echo=0.2),
    "hangs at the end": replace(PATIENT, power_off=1),
    **{f"{step} hangs": replace(PATIENT, **{step: 1}) for step in STEPS},
}


def a_manifest(era: str = "2025") -> Manifest:
    return Manifest(
        release="9.9.9",
        media=(Medium("x.iso", ("http://127.0.0.1:1/x.iso",)),),
        filesystems=("ufs", "hammer2"),
        console_speed=ERAS[era].speed,
        kernel_version=ERAS[era].version,
        memory=512,
    )


def a_medium(store: Store, folder: Path) -> InstallationMedium:
    iso = folder / "live.iso"
    iso.write_bytes(b"the CD")
    record = InstallationMedium("9.9.9", iso=store.add_blob(iso), file="x.iso", fetched_sha256="1" * 64, verified="v")
    store.put(record, replace=True)
    return record


class Bench:
    """A store with a medium, and builds of it on scripted machines."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self._folder = folder
        self.medium = a_medium(store, folder)
        self.said: list[str] = []

    def build(
        self,
        live: Script | list[Script] | None = None,
        installed: Script | None = None,
        *,
        era: str = "2025",
        deadlines: Deadlines = PATIENT,
        boot_deadline: float = 30.0,
        name: str = "base",
        filesystem: str = "ufs",
    ) -> tuple[BaseImage, ScriptedLaunch]:
        """Build an image on scripted machines."""
        scripts = live if isinstance(live, list) else [live or Script(era=ERAS[era])]
        launch = ScriptedLaunch(
            self._folder, store_key(self.store).public, scripts, [installed or Script(era=ERAS[era])]
        )
        image = build_image(
            a_manifest(era),
            self.medium,
            self.store,
            BuildOptions(name, filesystem=filesystem, disk_size=64),
            self.said.append,
            launch=launch,
            deadlines=deadlines,
            boot_deadline=boot_deadline,
        )
        return image, launch

    def assert_nothing_left(self) -> None:
        """Check that a failed build is as if it had not been."""
        assert self.store.all(BaseImage) == []
        assert list(self.store.folder("run").iterdir()) == []
        assert [blob.name for blob in self.store.folder("blobs").iterdir()] == [self.medium.iso]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path)


@pytest.fixture
def bench(store: Store, tmp_path: Path) -> Bench:
    return Bench(store, tmp_path)


class TestWhatWorks:
    """From power-on to a sealed image."""

    @pytest.mark.parametrize("era", ERAS)
    def test_an_image_is_built_sealed_and_recorded(self, bench: Bench, era: str) -> None:
        live = Script(era=ERAS[era])
        image, launch = bench.build(live, era=era)
        assert live.seen == ["set console=comconsole", "set boot_cdrom=YES", "boot"]
        assert bench.store.all(BaseImage) == [image]
        assert (image.root, image.user, image.disk_model) == ("ufs:vbd0s1a", "root", "virtio")
        assert image.host_key is not None
        assert image.host_key.startswith("ecdsa-sha2-nistp256 ")
        assert image.recipe["medium_sha256"] == "1" * 64
        assert ERAS[era].version in image.recipe["kernel"]
        assert image.recipe["compiler"] == "cc (GCC) 8.3.0"
        assert bench.store.blob(image.disk).read_bytes()[:4] == b"QFI\xfb"
        key = bench.store.blob(image.ssh_key)
        assert key.read_bytes() == store_key(bench.store).file.read_bytes()
        assert stat.S_IMODE(key.stat().st_mode) == 0o400
        assert list(bench.store.folder("run").iterdir()) == []
        assert any("shutdown -p now" in command for command in launch.systems[0].commands)

    def test_the_machines_are_what_an_install_needs(self, bench: Bench) -> None:
        _, launch = bench.build()
        installing, first_boot = launch.descriptions
        assert installing.nic is None
        assert installing.cdroms[0] == bench.store.blob(bench.medium.iso)
        assert installing.cdroms[1].name == "pfi.iso"
        assert installing.disks[0].writable
        assert first_boot.cdroms == ()
        assert first_boot.disks == installing.disks
        arguments = first_boot.arguments(monitor_fd=3, serial_fds=[4], gdb_socket="x")
        forwards = [argument for argument in arguments if "hostfwd" in argument]
        assert len(forwards) == 1
        assert "hostfwd=tcp:127.0.0.1:0-:22" in forwards[0]

    def test_stages_are_shown_in_order(self, bench: Bench) -> None:
        bench.build()
        assert bench.said == [
            "boot loader", "serial console", "root on the CD", "live kernel", "live system", "install: begin",
            *(f"install: {step}" for step in STEPS), "power off", "first boot", "check", "shut down", "seal",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("losing", "lose"),
        [
            ("the first three after the prompt", lambda number: number <= 3),
            ("every fifth", lambda number: number % 5 == 0),
            ("Enter", lambda number: number == 24),
            ("a burst", lambda number: 6 <= number <= 9),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_lost_characters_are_typed_again(self, bench: Bench, losing: str, lose: Callable[[int], bool]) -> None:
        live = Script(lose=lose)
        bench.build(live, deadlines=LOSSY)
        # An Enter that was only late is pressed twice: the loader reads an empty line.
        typed = [line for line in live.seen if line]
        assert typed[-3:] == ["set console=comconsole", "set boot_cdrom=YES", "boot"] or losing == "Enter"
        assert "boot" in live.seen

    def test_lost_menu_keys_are_pressed_again(self, bench: Bench) -> None:
        bench.build(Script(deaf_menu=3), deadlines=LOSSY)

    def test_a_command_that_was_not_understood_is_typed_again(self, bench: Bench) -> None:
        live = Script(fail="unknown once")
        with pytest.raises(HarnessError, match="not a disk image"):  # this play installs nothing
            bench.build(live)
        console, root = "set console=comconsole", "set boot_cdrom=YES"
        assert live.seen == [console, console, root, root, "boot"]

    def test_a_machine_that_booted_too_early_is_started_again(self, bench: Bench) -> None:
        _, launch = bench.build(
            [Script(fail="boots alone", countdown=1), Script()], deadlines=replace(PATIENT, key=0.2)
        )
        assert len(launch.descriptions) == 3
        assert any("starting the machine again" in step for step in bench.said)

    def test_a_machine_whose_live_system_overlooked_our_cd_is_started_again(self, bench: Bench) -> None:
        _, launch = bench.build([Script(fail="no pfi"), Script(fail="no pfi"), Script()])
        assert len(launch.descriptions) == 4
        assert sum("did not find our CD; starting the machine again" in step for step in bench.said) == 2

    def test_a_machine_that_cannot_switch_itself_off_is_given_its_key(self, bench: Bench) -> None:
        with pytest.raises(HarnessError, match="not a disk image"):  # this play installs nothing
            bench.build(Script(fail="halted"))
        assert "shut down" in bench.said

    def test_two_images_share_the_key_of_the_store(self, bench: Bench) -> None:
        one, _ = bench.build(name="one")
        two, _ = bench.build(name="two", filesystem="hammer2", installed=Script(root="hammer2:vbd0s1d@ROOT"))
        assert one.ssh_key == two.ssh_key
        assert two.root == "hammer2:vbd0s1d@ROOT"


LIVE_FAILURES = [
    ("silent", "boot loader", "the boot loader's menu"),
    ("boots alone", "boot loader", "did not stop at its prompt"),
    ("no echo", "serial console", "does not echo what is typed"),
    ("no kernel", "live kernel", r"could not start the kernel \(can't load 'kernel'\)"),
    ("kernel panic", "live kernel", r'could not start the kernel \(panic: assertion "fdp != NULL"'),
    ("no root", "live system", r"found no root file system on the CD \(Root mount failed: 6\)"),
    ("single user", "live system", "asks for a single user shell"),
    ("no pfi", "live system", "rc.d/pfi did not find our CD"),
    ("mute script", "install: begin", "ended without a word"),
    *((f"{step} fails", f"install: {step}", f"failed at {step}: 'tool' ended with status 1") for step in STEPS),
    *((f"{step} hangs", f"install: {step}", "waited 1 s for the install script's next step") for step in STEPS),
    *((f"{step} dies", f"install: {step}", "(QEMU ended|the console closed)") for step in STEPS),
    ("copy panics", "install: copy", "the live kernel panicked"),
    ("hangs at the end", "power off", "the machine to switch itself off"),
    ("panics at the end", "power off", "panicked while it was shutting down"),
]
INSTALLED_FAILURES = [
    ("boot hangs", "first boot", "waited 2 s for SSH to answer"),
    ("boot panics", "first boot", "waited 2 s for SSH to answer"),
    ("password login", "check", "still offers to log in with password"),
    ("no cc", "check", "it has no C compiler"),
    ("other version", "check", "not 'v6.4.2-RELEASE' but 'DragonFly v1.0.0-RELEASE"),
    ("other root", "check", r"it runs from cd9660:cd0, not from its own disk \(ufs:vbd0s1a\)"),
    ("not root", "check", "user root is not root there"),
    ("not DragonFly", "check", "this is no DragonFly system"),
]


class TestWhatFails:
    """Each failure names its stage, shows the console, and leaves nothing."""

    @pytest.mark.parametrize(("fail", "stage", "reason"), LIVE_FAILURES, ids=[entry[0] for entry in LIVE_FAILURES])
    def test_a_live_system_that_fails(self, bench: Bench, fail: str, stage: str, reason: str) -> None:
        with pytest.raises(StageError, match=reason) as failure:
            bench.build(
                Script(fail=fail, countdown=3 if fail == "boots alone" else 60), deadlines=SHORT.get(fail, PATIENT)
            )
        assert failure.value.stage == stage
        assert str(failure.value).startswith(f"stage '{stage}' failed: ")
        assert len(failure.value.console_tail) <= 40
        assert failure.value.console_tail or fail == "silent"
        bench.assert_nothing_left()

    @pytest.mark.parametrize(
        ("fail", "stage", "reason"), INSTALLED_FAILURES, ids=[entry[0] for entry in INSTALLED_FAILURES]
    )
    def test_an_installed_system_that_fails(self, bench: Bench, fail: str, stage: str, reason: str) -> None:
        deadline = 2.0 if fail.startswith("boot") else 30.0
        with pytest.raises(StageError, match=reason) as failure:
            bench.build(installed=Script(fail=fail), boot_deadline=deadline)
        assert failure.value.stage == stage
        assert any("DF/FBSD" in line or "login:" in line for line in failure.value.console_tail)
        bench.assert_nothing_left()

    def test_a_system_that_does_not_shut_down(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("harness.install.prove._SHUTDOWN_DEADLINE", 0.5)
        with pytest.raises(StageError, match=r"stage 'shut down' failed: waited 0\.5 s for the machine to switch"):
            bench.build(installed=Script(fail="shutdown hangs"))
        bench.assert_nothing_left()

    def test_only_the_last_forty_lines_are_shown(self, bench: Bench) -> None:
        class Chatty(Script):
            """Fails after much output."""

        noisy = ERAS["2025"]
        script = Chatty(era=replace(noisy, version="v6.4.2-RELEASE" + "\nprobing" * 100), fail="no root")
        with pytest.raises(StageError) as failure:
            bench.build(script, deadlines=replace(PATIENT, quiet=2))
        assert len(failure.value.console_tail) == 40
        assert failure.value.console_tail[-1] == "mountroot>"

    def test_a_failed_build_can_be_started_again(self, bench: Bench) -> None:
        with pytest.raises(StageError):
            bench.build(Script(fail="copy fails"))
        image, _ = bench.build()
        assert bench.store.all(BaseImage) == [image]

    def test_a_taken_name_and_a_file_system_the_release_does_not_know(self, bench: Bench) -> None:
        with pytest.raises(UsageError, match="cannot be installed on zfs: it knows ufs, hammer2"):
            bench.build(filesystem="zfs")
        bench.build()
        with pytest.raises(UsageError, match="image 'base' exists already"):
            bench.build()

    def test_too_little_space_is_said_before_the_machine_is_started(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import shutil

        real = shutil.disk_usage(bench.store.home)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=1 << 20))
        with pytest.raises(HarnessError, match="no room for image base"):
            bench.build()
        assert bench.said == []

    def test_a_second_build_of_the_same_image_is_told_so(self, bench: Bench) -> None:
        with bench.store.lock("build-base"), pytest.raises(HarnessError, match="another command is building image"):
            bench.build()


BUILD = (
    "import sys\nfrom pathlib import Path\nfrom harness.store import Store\n"
    "from test_image_build import Bench\nfrom scripted_dragonfly import Script\n"
    "folder = Path(sys.argv[1])\nbench = Bench(Store(folder / 'store'), folder)\n"
    "class Said(list):\n    def append(self, step):\n        print(step, flush=True)\n"
    "bench.said = Said()\nbench.build(Script(fail='copy hangs'))\n"
)


def test_a_build_that_was_killed_leaves_nothing_and_can_be_started_again(bench: Bench, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", BUILD, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "install: copy":
                break
        os.kill(process.pid, signal.SIGKILL)
    assert list(bench.store.folder("run").iterdir()), "a killed command cannot clean up"
    image, _ = bench.build()
    assert bench.store.all(BaseImage) == [image]
    assert list(bench.store.folder("run").iterdir()) == [], "the next build does"


class TestPfiDisc:
    """The CD that we write, read back."""

    KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOREYE7z61BifuSgS8y2a4bTCvSiX2oavZRlHojL8A7p me"

    @pytest.fixture
    def disc(self, tmp_path: Path) -> Path:
        file = tmp_path / "pfi.iso"
        write_cd(UnattendedInstall("vbd0", "ufs", self.KEY), file)
        return file

    def read(self, disc: Path) -> dict[str, tuple[int, str]]:
        """Return mode and content of every file, by its Rock Ridge name."""
        files = {}
        reader = pycdlib.PyCdlib()
        reader.open(str(disc))
        try:
            assert reader.has_rock_ridge()
            for child in reader.list_children(rr_path="/"):
                if child.is_dir():
                    continue
                name = child.rock_ridge.name().decode()
                content = io.BytesIO()
                reader.get_file_from_iso_fp(content, rr_path=f"/{name}")
                files[name] = (child.rock_ridge.get_file_mode(), content.getvalue().decode())
        finally:
            reader.close()
        return files

    def test_names_modes_and_contents_are_what_pfi_looks_for(self, disc: Path) -> None:
        files = self.read(disc)
        assert {name: oct(mode) for name, (mode, _) in files.items()} == {
            "pfi.conf": "0o100444",
            "install.sh": "0o100555",
            "settings": "0o100444",
            "authorized_keys": "0o100444",
        }
        assert 'pfi_script="install.sh"\n' in files["pfi.conf"][1]
        assert files["settings"][1] == "disk=vbd0\nfilesystem=ufs\n"
        assert files["authorized_keys"][1] == self.KEY + "\n"
        assert files["install.sh"][1].encode() == install_script()

    def test_a_shell_reads_the_settings_and_the_configuration(self, disc: Path, tmp_path: Path) -> None:
        for name, (_, content) in self.read(disc).items():
            (tmp_path / name).write_text(content)
        command = ". ./settings; . ./pfi.conf; echo $disk $filesystem $pfi_script; sh -n install.sh"
        done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout == "vbd0 ufs install.sh\n"
        assert done.stderr == ""

    def test_the_script_announces_the_steps_that_are_waited_for(self) -> None:
        script = install_script().decode()
        announced = [line.split()[1] for line in script.splitlines() if line.startswith("stage ")]
        assert announced == list(STEPS)
        for step in announced:
            assert Deadlines().of_step(step) == getattr(Deadlines(), step)
        assert "\r" not in script

    @pytest.mark.parametrize("value", ["vbd0; rm -rf /", "", "$(x)", "VBD"])
    def test_nothing_a_shell_would_run_gets_into_the_settings(self, tmp_path: Path, value: str) -> None:
        with pytest.raises(UsageError, match="no name of a disk"):
            write_cd(UnattendedInstall(value, "ufs", self.KEY), tmp_path / "x.iso")
        with pytest.raises(UsageError, match="one line of a public key"):
            write_cd(UnattendedInstall("vbd0", "ufs", f"{self.KEY}\nssh-rsa AAAA"), tmp_path / "x.iso")

    def test_every_disk_model_has_a_name_in_the_guest(self) -> None:
        assert set(DISK_NAMES) == set(DiskModel)
