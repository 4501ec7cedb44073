# SPDX-License-Identifier: BSD-2-Clause
"""Images made elsewhere: unpacked, entered with what their maker left, made ours, proved."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import paramiko
import pytest
from own_store import make_store
from scripted_dragonfly import Script, ScriptedLaunch

from harness.config import share
from harness.errors import HarnessError, UsageError
from harness.guests.ssh import SshAccess, SshConnection
from harness.images.base import BaseImage
from harness.images.keys import store_key
from harness.install.adopt import Foreign, adopt_image, is_box, unpack_box
from harness.install.stages import StageError
from harness.machine.description import DiskModel
from harness.machine.qemu import qemu_img
from harness.store import Store

ADOPT = share() / "images" / "install" / "adopt.sh"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Return a raw disk that begins with a partition table."""
    file = tmp_path / "foreign.img"
    content = bytearray(1 << 20)
    content[510:512] = b"\x55\xaa"
    file.write_bytes(content)
    return file


@pytest.fixture
def their_key(tmp_path: Path) -> Path:
    file = tmp_path / "their_key"
    paramiko.ECDSAKey.generate().write_private_key_file(str(file))
    return file


def public(key: Path) -> str:
    loaded = paramiko.PKey.from_path(key)
    return f"{loaded.get_name()} {loaded.get_base64()}"


def adopt(store: Store, folder: Path, foreign: Foreign, first: Script, second: Script | None = None) -> BaseImage:
    """Adopt on scripted machines; before our script has run they let in their maker only."""
    theirs = public(foreign.ssh_key) if foreign.ssh_key is not None else ""
    launch = ScriptedLaunch(
        folder, f"{theirs} {store_key(store).public}", [Script()], [first, *([second] if second else [])]
    )
    return adopt_image(foreign, store, launch=launch, boot_deadline=20)


class TestAdopting:
    """On scripted machines."""

    def test_with_a_key(self, store: Store, tmp_path: Path, disk: Path, their_key: Path) -> None:
        before = disk.read_bytes()
        image = adopt(store, tmp_path, Foreign("base", disk, ssh_key=their_key), Script())
        assert store.all(BaseImage) == [image]
        assert store.blob(image.ssh_key).read_bytes() == store_key(store).file.read_bytes()
        assert image.host_key is not None
        assert image.root == "ufs:vbd0s1a"
        assert image.recipe["adopted_from"] == "foreign.img"
        assert disk.read_bytes() == before, "the given file is not written to"
        assert list(store.folder("run").iterdir()) == []

    def test_with_a_password_that_is_off_afterwards(self, store: Store, tmp_path: Path, disk: Path) -> None:
        foreign = Foreign("base", disk, password="hunter2", disk_model=DiskModel.IDE)  # noqa: S106
        image = adopt(store, tmp_path, foreign, Script(fail="password login"), Script())
        assert image.disk_model == "ide"

    def test_a_password_that_still_works_is_refused(self, store: Store, tmp_path: Path, disk: Path) -> None:
        foreign = Foreign("base", disk, password="hunter2")  # noqa: S106
        with pytest.raises(StageError, match=r"stage 'check' failed: .* log in with password"):
            adopt(store, tmp_path, foreign, Script(fail="password login"))
        assert store.all(BaseImage) == []

    def test_a_wrong_password_is_said_so(self, store: Store, tmp_path: Path, disk: Path) -> None:
        foreign = Foreign("base", disk, password="wrong")  # noqa: S106
        with pytest.raises(StageError, match="stage 'log in' failed: the guest refused the password for user root"):
            adopt(store, tmp_path, foreign, Script(fail="password login"))

    def test_a_system_that_is_not_dragonfly(self, store: Store, tmp_path: Path, disk: Path, their_key: Path) -> None:
        with pytest.raises(StageError, match="stage 'adopt' failed: this is no DragonFly system"):
            adopt(store, tmp_path, Foreign("base", disk, ssh_key=their_key), Script(fail="not DragonFly"))
        assert list(store.folder("blobs").iterdir()) == []

    def test_no_way_to_log_in(self, store: Store, disk: Path) -> None:
        with pytest.raises(UsageError, match="say how to log in"):
            adopt_image(Foreign("base", disk), store)


class TestBoxes:
    """Vagrant boxes are tar archives with one disk."""

    def box(self, folder: Path, **members: bytes) -> Path:
        file = folder / "dragonfly.box"
        with tarfile.open(file, "w:gz") as archive:
            for name, content in members.items():
                entry = tarfile.TarInfo(name.replace("__", "/").replace("_", "."))
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return file

    def test_a_box_from_libvirt(self, store: Store, tmp_path: Path, disk: Path, their_key: Path) -> None:
        packed = tmp_path / "packed.qcow2"
        qemu_img("convert", "-f", "raw", "-O", "qcow2", str(disk), str(packed))
        box = self.box(tmp_path, metadata_json=b"{}", box_img=packed.read_bytes())
        assert is_box(box)
        image = adopt(store, tmp_path, Foreign("base", box, ssh_key=their_key), Script())
        assert image.filesystem == "MBR partitions"

    def test_a_box_from_virtualbox(self, store: Store, tmp_path: Path, disk: Path, their_key: Path) -> None:
        packed = tmp_path / "packed.vmdk"
        qemu_img("convert", "-f", "raw", "-O", "vmdk", str(disk), str(packed))
        box = self.box(tmp_path, box_ovf=b"<xml/>", disk1_vmdk=packed.read_bytes())
        assert adopt(store, tmp_path, Foreign("base", box, ssh_key=their_key), Script()).name == "base"

    def test_a_box_without_a_disk_or_with_two(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"no Vagrant box with one disk \(disks in it: none\)"):
            unpack_box(self.box(tmp_path, metadata_json=b"{}"), tmp_path, store)
        with pytest.raises(UsageError, match=r"disks in it: a\.vmdk, b\.vmdk"):
            unpack_box(self.box(tmp_path, a_vmdk=b"1", b_vmdk=b"2"), tmp_path, store)

    def test_names_in_a_box_do_not_reach_the_host(self, store: Store, tmp_path: Path) -> None:
        inside = tmp_path / "in"
        inside.mkdir()
        unpacked = unpack_box(self.box(tmp_path, ____tmp__evil_vmdk=b"content"), inside, store)
        assert unpacked == inside / "box.vmdk"
        assert unpacked.read_bytes() == b"content"

    def test_a_disk_is_no_box(self, disk: Path, tmp_path: Path) -> None:
        assert not is_box(disk)
        assert not is_box(tmp_path / "nowhere")


class TestScript:
    """What runs in the guest."""

    def test_it_is_good_shell(self) -> None:
        subprocess.run(["sh", "-n", str(ADOPT)], check=True)

    def test_the_passwords_of_all_accounts_are_taken_away(self, tmp_path: Path) -> None:
        accounts = tmp_path / "master.passwd"
        accounts.write_text("# $Id$\nroot:$1$ab$cd:0:0::0:0:Charlie &:/root:/bin/sh\nalice::9:9::0:0:A:/:/bin/sh\n")
        text = ADOPT.read_text()
        part = text[text.index("# Nor on the console") : text.index("# Commands that come")]
        script = part.replace("/etc/master.passwd", str(accounts))
        tools = 'die() { exit 1; }\npwd_mkdb() { [ "$1" = -p ] && cat "$2"; }\n'
        done = subprocess.run(["sh", "-c", tools + script], check=True, capture_output=True, text=True)
        assert done.stdout == ("# $Id$\nroot:*:0:0::0:0:Charlie &:/root:/bin/sh\nalice:*:9:9::0:0:A:/:/bin/sh\n")

    def test_directives_are_changed_where_they_stand(self, tmp_path: Path) -> None:
        config = tmp_path / "sshd_config"
        config.write_text(
            "#PermitRootLogin prohibit-password\n# To disable tunneled passwords, change to no here!\n"
            "PasswordAuthentication yes\n#UseDNS yes\nSubsystem sftp internal-sftp\n"
        )
        text = ADOPT.read_text()
        function = text[text.index("set_directive()") : text.index("# Nor on the console")]
        script = f"config={config}\ndie() {{ echo $*; exit 1; }}\n{function}"
        subprocess.run(["sh", "-c", script], check=True)
        assert config.read_text().splitlines() == [
            "PermitRootLogin without-password",
            "# To disable tunneled passwords, change to no here!",
            "PasswordAuthentication no",
            "UseDNS no",
            "Subsystem sftp internal-sftp",
            "PubkeyAuthentication yes",
            "ChallengeResponseAuthentication no",
            "PermitEmptyPasswords no",
        ]


def test_a_password_does_not_show_in_messages() -> None:
    assert "hunter2" not in repr(SshAccess("root", Path(), password="hunter2"))  # noqa: S106


def test_a_key_that_does_not_exist_is_said_so() -> None:
    with pytest.raises(HarnessError, match="SSH key /nowhere does not exist"):
        SshConnection(1, SshAccess("root", Path("/nowhere")))
