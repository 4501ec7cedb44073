# SPDX-License-Identifier: BSD-2-Clause
"""The in-guest build driver, its shell commands run for real on this host with stand-ins for the guest's tools."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_kernels import BROKEN, DELAY_3, KERN_PROC_TEXT, diff
from testkernel import build_kernel as build_test_kernel

from harness.errors import GuestLostError, HarnessError
from harness.guests.builder import BuildDriver, GuestBuilder, Watch
from harness.guests.ssh import Completed
from harness.images.base import BaseImage
from harness.kernels.build import Build, BuildFailedError, Built, Job, build_kernel
from harness.kernels.patch import apply_patches
from harness.kernels.source import KERN_PROC, SourceTree, open_source
from harness.store import Store

# make: checks the syntax of what changed since the last time, and keeps a kernel among the objects.
_MAKE = """
echo "$*" >> {log}
case "$*" in *nativekernel*) kind=nativekernel;; *quickkernel*) kind=quickkernel;; esac
for word; do case $word in KERNCONF=*) config=${{word#KERNCONF=}};; esac; done
objects=$MAKEOBJDIRPREFIX$PWD/sys/$config
if test $kind = nativekernel; then rm -rf $objects; mkdir -p $objects; else test -d $objects || exit 9; fi
if test -f {log}.stale -a $kind = quickkernel; then
    echo "make: don't know how to make /build/src/sys/sys/gone.h. Stop"; exit 2
fi
find sys -name '*.c' -newer $objects/kernel.stripped >> {log} 2>/dev/null
gcc -c -o /dev/null {kern_proc} || exit 2
case "$*" in *NO_MODULES*) ;; *) mkdir -p $objects/m/zlib; echo ko > $objects/m/zlib/zlib.ko;; esac
cp {kernel} $objects/kernel.stripped
test -f {log}.debug && cp {kernel} $objects/kernel.debug || true
"""
_TOOLS = {
    "newfs": 'echo "newfs $*" >> {log}; touch {device}',
    "mount": 'test -e {device} || {{ echo "no file system" >&2; exit 1; }}\n'
    'mkdir -p {disk}; rmdir "$2"; ln -s {disk} "$2"',
    "umount": 'rm "$1"',
    "fsck": "true",
    "make": _MAKE,
}


class LocalShell:
    """Runs the driver's commands here; `mount` makes a folder appear."""

    def __init__(self, folder: Path, kernel: Path) -> None:
        self.folder = folder
        self.root = folder / "build"
        self.disk = folder / "disk"
        self.log = folder / "tools.log"
        self.uploaded = 0
        tools = folder / "bin"
        tools.mkdir(parents=True)
        self.log.touch()
        words = {
            "log": str(self.log),
            "device": str(folder / "formatted"),
            "disk": str(self.disk),
            "kernel": shlex.quote(str(kernel)),
            "kern_proc": KERN_PROC,
        }
        for name, text in _TOOLS.items():
            (tools / name).write_text("#!/bin/sh\n" + text.format(**words) + "\n")
            (tools / name).chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}

    def run(self, command: str, *, deadline: float = 60.0, watch: Watch | None = None) -> Completed:
        if watch is not None:
            watch()
        done = subprocess.run(
            ["sh", "-c", command], env=self.environment, capture_output=True, text=True, timeout=deadline, check=False
        )
        return Completed(command, done.returncode, done.stdout, done.stderr)

    def upload(self, content: bytes | Path, remote: str, *, mode: int = 0o644) -> None:
        data = content.read_bytes() if isinstance(content, Path) else content
        self.uploaded += len(data)
        Path(remote).write_bytes(data)
        Path(remote).chmod(mode)

    def download(self, remote: str) -> bytes:
        return Path(remote).read_bytes()

    @property
    def targets(self) -> list[str]:
        """The make targets so far."""
        words = self.log.read_text().split()
        return [word for word in words if word in {"nativekernel", "quickkernel"}]


class DrivenBuilder:
    """A builder whose guest is this host."""

    identity = "driven"

    def __init__(self, shell: LocalShell, *, modules: bool = False) -> None:
        self.shell = shell
        self.modules = modules
        self.watch: Watch = lambda: None

    def build(self, job: Job) -> Built:
        fresh = not (self.shell.folder / "formatted").exists()
        root = str(self.shell.root)
        return BuildDriver(
            self.shell, "vbd1", fresh=fresh, cpus=3, modules=self.modules, root=root, watch=self.watch
        ).build(job)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "dragonfly"
    (top / KERN_PROC).parent.mkdir(parents=True)
    (top / KERN_PROC).write_text(KERN_PROC_TEXT)
    (top / "sys/kern/big.c").write_text("/* " + "x" * 300_000 + " */\n")
    (top / "sys/kern/old name.c").write_text("int old;\n")
    return top


@pytest.fixture
def shell(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalShell:
    return LocalShell(tmp_path / "guest", build_test_kernel(tmp_path_factory.getbasetemp() / "testkernel"))


def patched(store: Store, tree: Path, new: str) -> SourceTree:
    file = tree.parent / "change.patch"
    file.write_text(diff(KERN_PROC_TEXT, new))
    return apply_patches(open_source(store, tree), [file])


def test_the_first_build_is_native_and_a_patch_brings_only_what_changed(
    store: Store, tree: Path, shell: LocalShell
) -> None:
    builder = DrivenBuilder(shell)
    first = build_kernel(store, open_source(store, tree), builder)
    assert shell.targets == ["nativekernel"]
    assert "-j3 nativekernel KERNCONF=X86_64_GENERIC NO_MODULES=yes" in shell.log.read_text()
    assert "newfs -v /dev/vbd1" in shell.log.read_text()
    assert not shell.root.exists()  # unmounted
    before = shell.uploaded
    second = build_kernel(store, patched(store, tree, DELAY_3), builder)
    assert shell.targets == ["nativekernel", "quickkernel"]
    assert shell.uploaded - before < 30_000
    assert shell.log.read_text().count("newfs") == 1
    assert shell.log.read_text().splitlines()[-1] == KERN_PROC  # the only file that is newer than the objects
    assert first.name != second.name
    assert (shell.disk / "src" / KERN_PROC).read_text() == DELAY_3


def test_files_that_are_gone_are_removed_in_the_guest(store: Store, tree: Path, shell: LocalShell) -> None:
    builder = DrivenBuilder(shell)
    build_kernel(store, open_source(store, tree), builder)
    (tree / "sys/kern/old name.c").unlink()
    build_kernel(store, open_source(store, tree), builder)
    assert not (shell.disk / "src/sys/kern/old name.c").exists()
    assert (shell.disk / "src" / KERN_PROC).exists()


def test_a_compiler_error_is_final_and_leaves_the_disk_usable(store: Store, tree: Path, shell: LocalShell) -> None:
    builder = DrivenBuilder(shell)
    build_kernel(store, open_source(store, tree), builder)
    with pytest.raises(BuildFailedError, match=r"kern_proc\.c:13:19: error"):
        build_kernel(store, patched(store, tree, BROKEN), builder)
    assert shell.targets == ["nativekernel", "quickkernel"]
    build_kernel(store, patched(store, tree, DELAY_3), builder)
    assert shell.targets == ["nativekernel", "quickkernel", "quickkernel"]


def test_a_first_build_that_does_not_compile_is_gone_on_with(store: Store, tree: Path, shell: LocalShell) -> None:
    builder = DrivenBuilder(shell)
    with pytest.raises(BuildFailedError, match=r"kern_proc\.c:13:19: error"):
        build_kernel(store, patched(store, tree, BROKEN), builder)
    build_kernel(store, open_source(store, tree), builder)
    assert shell.targets == ["nativekernel", "quickkernel"]


def test_an_incremental_failure_without_a_reason_is_tried_from_scratch(
    store: Store, tree: Path, shell: LocalShell
) -> None:
    builder = DrivenBuilder(shell)
    build_kernel(store, open_source(store, tree), builder)
    shell.log.with_suffix(".log.stale").touch()
    build_kernel(store, patched(store, tree, DELAY_3), builder)
    assert shell.targets == ["nativekernel", "quickkernel", "nativekernel"]


def test_a_full_builder_disk_is_no_fault_of_the_sources(store: Store, tree: Path, shell: LocalShell) -> None:
    make = shell.folder / "bin/make"
    working = make.read_text()
    make.write_text("#!/bin/sh\necho 'cc1: error: writing a.o: No space left on device'\nexit 1\n")
    builder = DrivenBuilder(shell)
    with pytest.raises(HarnessError, match=r"the build lacked what it needs: cc1: .*No space left on device") as told:
        build_kernel(store, open_source(store, tree), builder)
    assert not isinstance(told.value, BuildFailedError)
    assert store.all(Build) == []
    make.write_text(working)
    build_kernel(store, open_source(store, tree), builder)  # without --retry


def test_a_guest_that_dies_in_mid_build_ends_it_at_once(store: Store, tree: Path, shell: LocalShell) -> None:
    builder = DrivenBuilder(shell)
    build_kernel(store, open_source(store, tree), builder)
    before = shell.log.read_text()

    def dead() -> None:
        raise GuestLostError("the guest's kernel panicked: panic: out of mbufs")

    builder.watch = dead
    with pytest.raises(GuestLostError, match="out of mbufs"):
        build_kernel(store, patched(store, tree, DELAY_3), builder)
    assert len(store.all(Build)) == 1
    assert shell.log.read_text() == before  # and nobody waits for a disk that is given up
    assert shell.root.exists()


def test_an_interrupted_transfer_begins_anew(store: Store, tree: Path, shell: LocalShell) -> None:
    builder = DrivenBuilder(shell)
    build_kernel(store, open_source(store, tree), builder)
    upload = shell.upload

    def lost(content: bytes | Path, remote: str, *, mode: int = 0o644) -> None:
        del content, remote, mode
        raise GuestLostError("the guest went away")

    shell.upload = lost  # type: ignore[method-assign]
    with pytest.raises(GuestLostError):
        build_kernel(store, patched(store, tree, DELAY_3), builder)
    assert len(store.all(Build)) == 1
    shell.upload = upload  # type: ignore[method-assign]
    (shell.disk / "src/sys/kern/left over.c").touch()
    build_kernel(store, patched(store, tree, DELAY_3), builder)
    assert shell.targets == ["nativekernel", "nativekernel"]
    assert not (shell.disk / "src/sys/kern/left over.c").exists()


def test_debug_information_is_fetched_where_the_configuration_asks_for_it(
    store: Store, tree: Path, shell: LocalShell
) -> None:
    assert build_kernel(store, open_source(store, tree), DrivenBuilder(shell)).debug is None
    shell.log.with_suffix(".log.debug").touch()
    assert build_kernel(store, patched(store, tree, DELAY_3), DrivenBuilder(shell)).debug is not None


def test_modules_are_built_when_asked_for(store: Store, tree: Path, shell: LocalShell) -> None:
    build = build_kernel(store, open_source(store, tree), DrivenBuilder(shell, modules=True))
    assert "NO_MODULES" not in shell.log.read_text()
    assert build.modules is not None
    assert b"zlib.ko" in store.blob(build.modules).read_bytes()


@pytest.mark.parametrize("program", ["cc", "make"])
def test_an_image_without_a_compiler(store: Store, tree: Path, shell: LocalShell, program: str) -> None:
    run = shell.run

    def missing(command: str, *, deadline: float = 60.0, watch: Watch | None = None) -> Completed:
        del watch
        return Completed(command, 127, "", "") if program in command.split() else run(command, deadline=deadline)

    shell.run = missing  # type: ignore[method-assign]
    with pytest.raises(HarnessError, match=f"has no {program}: choose another with --builder-image"):
        build_kernel(store, open_source(store, tree), DrivenBuilder(shell))
    assert store.all(Build) == []


def test_a_disk_that_cannot_be_mounted(store: Store, tree: Path, shell: LocalShell) -> None:
    (shell.folder / "bin/newfs").write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(HarnessError, match="could not mount /dev/vbd1: no file system"):
        build_kernel(store, open_source(store, tree), DrivenBuilder(shell))


class TestBuilderDisk:
    """Only an orderly end changes the builder disk."""

    @pytest.fixture
    def builder(self, store: Store) -> GuestBuilder:
        return GuestBuilder(store, BaseImage("base", disk="d" * 64, ssh_key="k"))

    @contextmanager
    def used(self, builder: GuestBuilder, content: bytes) -> Iterator[bool]:
        with builder._disk("key") as (disk, fresh):
            script = f"write -P {content[0]} 0 4096"
            subprocess.run(["qemu-io", "-f", "qcow2", "-c", script, str(disk)], check=True, capture_output=True)
            yield fresh

    def first_byte(self, store: Store) -> int:
        disk = store.folder("cache", "builders") / "key.qcow2"
        shown = subprocess.run(
            ["qemu-io", "-r", "-f", "qcow2", "-c", "read -v 0 1", str(disk)],
            check=True,
            capture_output=True,
            text=True,
        )
        return int(shown.stdout.split()[1], 16)

    def test_there_is_one_per_image_and_base_revision(self, store: Store, tree: Path, builder: GuestBuilder) -> None:
        stock = open_source(store, tree)
        key = builder.disk_key(stock)
        assert builder.disk_key(patched(store, tree, DELAY_3)) == key
        assert GuestBuilder(store, BaseImage("newer", disk="e" * 64, ssh_key="k")).disk_key(stock) != key
        (tree / KERN_PROC).write_text(KERN_PROC_TEXT + "/* next revision */\n")
        assert builder.disk_key(open_source(store, tree)) != key

    def test_what_an_orderly_session_wrote_stays(self, store: Store, builder: GuestBuilder) -> None:
        with self.used(builder, b"A") as fresh:
            assert fresh
        with self.used(builder, b"B") as fresh:
            assert not fresh
        assert self.first_byte(store) == ord("B")

    def test_what_an_interrupted_session_wrote_does_not(self, store: Store, builder: GuestBuilder) -> None:
        with self.used(builder, b"A"):
            pass
        with pytest.raises(GuestLostError), self.used(builder, b"B"):
            raise GuestLostError("gone")
        assert self.first_byte(store) == ord("A")
        assert [file.name for file in store.folder("cache", "builders").iterdir()] == ["key.qcow2"]
