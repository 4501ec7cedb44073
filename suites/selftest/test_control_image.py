# SPDX-License-Identifier: BSD-2-Clause
"""The control guest is put together correctly from packages, kept safely, and boots to a usable SSH server."""

from __future__ import annotations

import base64
import gzip
import hashlib
import lzma
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import paramiko
import pytest

import harness
from harness.errors import HarnessError
from harness.guests.console import Console
from harness.guests.ssh import SshAccess, SshConnection
from harness.images.closure import PackageTree
from harness.images.control import (
    BANNER,
    PROMPT,
    READY,
    ControlImage,
    build_control_image,
    damaged_images,
    remove_damaged_images,
)
from harness.images.cpio import CpioArchive
from harness.images.debian import Wish, parse_stanzas, resolve_packages
from harness.machine.description import LinuxStyleBoot, MachineDescription
from harness.machine.qemu import Machine
from harness.store import Store
from harness.toolchain import compile_program

FREESTANDING = ("-nostdlib", "-fno-stack-protector", "-fcf-protection=none", "-Wl,--build-id=none")
MULTIARCH = "lib/x86_64-linux-gnu"
RELEASE = "9.9.9-test"

needs_cpio = pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio(1) to read back what we wrote")
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")


def ignore(_line: str) -> None:
    """Take a progress message and say nothing."""


# The archive


@needs_cpio
def test_cpio_reads_back_what_the_writer_wrote() -> None:
    archive = CpioArchive()
    archive.add_directory("/home/alice", mode=0o750, owner=1001)
    archive.add_file("/home/alice/odd", b"12345", mode=0o600, owner=1001)
    archive.add_file("/bin/tool", b"#!/bin/sh\n", mode=0o755)
    archive.add_symlink("/sbin", "bin")
    archive.add_character_device("/dev/console", 5, 1)
    listed = subprocess.run(
        ["cpio", "--list", "--verbose", "--numeric-uid-gid"],
        input=archive.to_bytes(),
        capture_output=True,
        check=True,
        env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
    ).stdout.decode()
    lines = [" ".join(line.split()) for line in listed.splitlines()]
    assert lines == [
        "drwxr-xr-x 2 0 0 0 Jan 1 1970 bin",
        "-rwxr-xr-x 1 0 0 10 Jan 1 1970 bin/tool",
        "drwxr-xr-x 2 0 0 0 Jan 1 1970 dev",
        "crw------- 1 0 0 5, 1 Jan 1 1970 dev/console",
        "drwxr-xr-x 2 0 0 0 Jan 1 1970 home",
        "drwxr-x--- 2 1001 1001 0 Jan 1 1970 home/alice",
        "-rw------- 1 1001 1001 5 Jan 1 1970 home/alice/odd",
        "lrwxrwxrwx 1 0 0 3 Jan 1 1970 sbin -> bin",
    ]


@needs_cpio
@pytest.mark.parametrize("size", range(6))
def test_file_contents_of_every_alignment_survive(size: int, tmp_path: Path) -> None:
    archive = CpioArchive()
    archive.add_file("/a", b"x" * size)
    archive.add_file("/bb", b"y" * size)
    extract = ["cpio", "--extract", "--quiet"]
    subprocess.run(extract, input=archive.to_bytes(), cwd=tmp_path, check=True)
    assert (tmp_path / "a").read_bytes() == b"x" * size
    assert (tmp_path / "bb").read_bytes() == b"y" * size


def test_the_order_of_additions_does_not_change_the_archive() -> None:
    one, two = CpioArchive(), CpioArchive()
    one.add_file("/a/1", b"1")
    one.add_file("/b/2", b"2")
    two.add_file("/b/2", b"2")
    two.add_file("/a/1", b"1")
    assert one.to_bytes() == two.to_bytes()


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("relative", "not the absolute path"),
        ("/", "not the absolute path"),
        ("/a/../b", "not the absolute path"),
        ("/tool", "added twice"),
        ("/tool/below", "/tool is no directory"),
    ],
)
def test_a_path_that_cannot_be_is_refused(path: str, complaint: str) -> None:
    archive = CpioArchive()
    archive.add_file("/tool", b"")
    with pytest.raises(ValueError, match=complaint):
        archive.add_file(path, b"")


# What programs need


def compile_for(tree: Path, to: str, source: str, flags: Sequence[str]) -> Path:
    """Compile SOURCE into the package tree TREE at path TO."""
    target = tree / to
    target.parent.mkdir(parents=True, exist_ok=True)
    text = tree.parent / f"{target.name}.c"
    text.write_text(source)
    built = compile_program("specimen", [text], [*FREESTANDING, *flags], tree.parent / "compiled")
    shutil.copy(built, target)
    return target


def library(tree: Path, to: str, *needs: Path) -> Path:
    name = Path(to).name
    flags = ["-shared", f"-Wl,-soname,{name}", "-Wl,--no-as-needed", *map(str, needs)]
    return compile_for(tree, to, "int symbol;", flags)


def program(tree: Path, *needs: Path) -> Path:
    flags = ["-pie", "-fPIE", "-Wl,--no-as-needed", "-Wl,--dynamic-linker=/lib64/ld-test.so.1", *map(str, needs)]
    return compile_for(tree, "bin/program", "void _start(void) { for (;;) {} }", flags)


def interpreter(tree: Path) -> Path:
    """Install an ELF interpreter the way older Debian packages do: by an absolute link."""
    file = library(tree, f"{MULTIARCH}/ld-test.so.1")
    (tree / "lib64").mkdir()
    (tree / "lib64" / "ld-test.so.1").symlink_to(f"/{MULTIARCH}/ld-test.so.1")
    return file


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


def test_the_closure_holds_the_interpreter_and_libraries_of_libraries(tree: Path) -> None:
    loader = interpreter(tree)
    inner = library(tree, f"usr/{MULTIARCH}/libinner.so.1", loader)
    outer = library(tree, f"{MULTIARCH}/libouter.so.2", inner)
    library(tree, f"{MULTIARCH}/libunused.so.3")
    assert PackageTree(tree).library_closure([program(tree, outer)]) == {
        "/lib64/ld-test.so.1": loader,
        f"/{MULTIARCH}/libouter.so.2": outer,
        f"/{MULTIARCH}/libinner.so.1": inner,
    }


def test_a_library_in_no_package_is_named_with_what_needs_it(tree: Path) -> None:
    loader = interpreter(tree)
    inner = library(tree, f"{MULTIARCH}/libinner.so.1", loader)
    outer = library(tree, f"{MULTIARCH}/libouter.so.2", inner)
    wanting = program(tree, outer)
    inner.unlink()
    with pytest.raises(HarnessError, match=r"libouter\.so\.2 needs libinner\.so\.1, which none of"):
        PackageTree(tree).library_closure([wanting])


def test_a_library_of_the_host_is_not_taken_for_a_missing_one(tree: Path, tmp_path: Path) -> None:
    loader = interpreter(tree)
    outer = library(tree, f"{MULTIARCH}/libouter.so.2", loader)
    wanting = program(tree, outer)
    on_the_host = tmp_path / "libouter.so.2"
    outer.rename(on_the_host)
    outer.symlink_to(on_the_host)  # exists for the host, dangles inside the tree
    with pytest.raises(HarnessError, match=r"program needs libouter\.so\.2"):
        PackageTree(tree).library_closure([wanting])


def test_a_static_program_needs_nothing(tree: Path) -> None:
    static = compile_for(tree, "bin/static", "void _start(void) { for (;;) {} }", ["-static"])
    assert PackageTree(tree).library_closure([static]) == {}


def test_a_program_that_is_no_elf_file_is_an_error(tree: Path) -> None:
    (tree / "script").write_text("#!/bin/sh\n")
    with pytest.raises(HarnessError, match="script: not a readable ELF program"):
        PackageTree(tree).library_closure([tree / "script"])


@pytest.mark.parametrize("installed", ["bin/tool", "usr/bin/tool"])
@pytest.mark.parametrize("asked", ["bin/tool", "usr/bin/tool", "/bin/tool"])
def test_a_file_is_found_with_and_without_usr(tree: Path, installed: str, asked: str) -> None:
    file = tree / installed
    file.parent.mkdir(parents=True)
    file.touch()
    assert PackageTree(tree).require(asked) == file


def test_links_that_go_in_circles_lead_nowhere(tree: Path) -> None:
    (tree / "a").symlink_to("b")
    (tree / "b").symlink_to("a")
    with pytest.raises(HarnessError, match="holds /a"):
        PackageTree(tree).require("a")


# What kernel modules need


def module(tree: Path, name: str, *needs: str) -> Path:
    source = f"""__attribute__((section(".modinfo"), used))
        static const char depends[] = "license=BSD\\0depends={",".join(needs)}";"""
    return compile_for(tree, f"lib/modules/{RELEASE}/kernel/{name}.ko", source, ["-r"])


def test_modules_come_after_what_they_depend_on_and_only_once(tree: Path) -> None:
    module(tree, "net-card", "bus_driver", "failover")
    module(tree, "bus-driver", "core")
    module(tree, "failover", "core")
    module(tree, "core")
    module(tree, "unrelated")
    ordered = PackageTree(tree).module_closure(["bus_driver", "net_card"], RELEASE)
    assert [found.name for found in ordered] == ["core", "bus_driver", "failover", "net_card"]


@pytest.mark.parametrize("suffix", ["xz", "zst"])
def test_compressed_modules_are_decompressed(tree: Path, suffix: str) -> None:
    if suffix == "zst" and shutil.which("zstd") is None:
        pytest.skip("needs zstd")
    file = module(tree, "core")
    plain = file.read_bytes()
    if suffix == "xz":
        file.with_name("core.ko.xz").write_bytes(lzma.compress(plain))
    else:
        subprocess.run(["zstd", "-q", str(file), "-o", f"{file}.zst"], check=True)
    file.unlink()
    assert [found.content for found in PackageTree(tree).module_closure(["core"], RELEASE)] == [plain]


def test_a_module_built_into_the_kernel_is_passed_over(tree: Path) -> None:
    module(tree, "net-card", "core-bus")
    (tree / f"lib/modules/{RELEASE}/modules.builtin").write_text("kernel/drivers/core-bus.ko\nkernel/own.ko\n")
    ordered = PackageTree(tree).module_closure(["own", "net_card"], RELEASE)
    assert [found.name for found in ordered] == ["net_card"]


def test_a_module_that_does_not_exist_is_named_with_what_wants_it(tree: Path) -> None:
    module(tree, "net-card", "lost")
    with pytest.raises(HarnessError, match=f"Linux {RELEASE} has no module lost, wanted by net_card"):
        PackageTree(tree).module_closure(["net-card"], RELEASE)


# Packages


def stanza(name: str, depends: str = "", version: str = "1.0", digest: str | None = None) -> str:
    """Return what `apt-cache show` says about a package."""
    digest = digest or hashlib.sha256(f"{name} {version}".encode()).hexdigest()
    text = f"Package: {name}\nVersion: {version}\nDepends: {depends}\nSize: 1000\nSHA256: {digest}\n"
    return f"{text}Description: of one line\n and of others,\n Depends: on nothing\n\n"


class FakeApt:
    """apt-get and apt-cache in PATH, which know the packages we say; each call of apt-get download is counted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "bin"
        self.downloads = folder / "downloads"
        for part in ("bin", "stanzas", "debs"):
            (folder / part).mkdir(parents=True)
        self.downloads.touch()
        (folder / "lists").write_text("/var/lib/apt/lists/some_Packages\n")
        self.script(
            "apt-cache",
            f'shift 2; for name; do cat "{folder}/stanzas/${{name%:amd64}}" 2>/dev/null; done; exit 100',
        )
        self.script(
            "apt-get",
            f'case "$*" in *indextargets*) cat "{folder}/lists"; exit ;; esac\n'
            f'echo download >>"{folder}/downloads"\n'
            f'[ -e "{folder}/hang" ] && sleep 600\n'
            f'[ -e "{folder}/offline" ] && echo "E: Failed to fetch http://mirror/x.deb" >&2 && exit 100\n'
            f'for name; do case $name in *=*) cp "{folder}/debs/${{name%%:*}}.deb" . ;; esac; done',
        )

    def script(self, name: str, text: str) -> None:
        """Put a shell script in PATH."""
        file = self.programs / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def know(self, name: str, depends: str = "", version: str = "1.0") -> None:
        """Let apt know a package, which cannot be downloaded."""
        (self.folder / "stanzas" / name).write_text(stanza(name, depends, version))

    def publish(self, name: str, files: Mapping[str, Path], depends: str = "", version: str = "1.0") -> None:
        """Make a package of FILES, path in the package to content, and let apt know it."""
        root = self.folder / "build" / name
        for path, source in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, root / path)
        (root / "DEBIAN").mkdir(parents=True, exist_ok=True)
        control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: nobody\nDescription: none\n"
        (root / "DEBIAN" / "control").write_text(control)
        deb = self.folder / "debs" / f"{name}.deb"
        build = ["dpkg-deb", "--root-owner-group", "--build", str(root), str(deb)]
        subprocess.run(build, check=True, capture_output=True)
        self.know(name, depends, version)

    def downloads_so_far(self) -> int:
        """Return how many times apt-get download was called."""
        return len(self.downloads.read_text().splitlines())


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeApt:
    fake = FakeApt(tmp_path / "apt")
    if shutil.which("dpkg-deb") is None:
        fake.script("dpkg-deb", "exit 1")
    monkeypatch.setenv("PATH", f"{fake.programs}:{os.environ['PATH']}")
    return fake


def test_a_stanza_is_read_with_its_alternatives_and_without_versions() -> None:
    text = stanza("one", "libc6 (>= 2.34), mawk | awk:any (>= 1), libz [amd64]") + stanza("one", version="0.9")
    package = parse_stanzas(text)["one"]
    assert package.version == "1.0"
    assert package.depends == (("libc6",), ("mawk", "awk"), ("libz",))
    assert package.specification == "one:amd64=1.0"


def test_an_installed_package_that_no_archive_offers_is_left_out() -> None:
    assert parse_stanzas("Package: local\nStatus: install ok installed\nVersion: 1\n") == {}


def test_the_first_known_alternative_is_taken_and_matching_dependencies_are_followed(apt: FakeApt) -> None:
    apt.know("second", "libone, helper, libtwo | libthree")
    apt.know("libone", "libthree, libc6")
    apt.know("libthree", "libone")
    apt.know("libc6")
    apt.know("helper")
    packages = resolve_packages([Wish(("first", "second"), "lib.*")])
    assert [package.name for package in packages] == ["libc6", "libone", "libthree", "second"]


def test_dependencies_are_not_followed_unasked(apt: FakeApt) -> None:
    apt.know("one", "libone")
    assert [package.name for package in resolve_packages([Wish(("one",))])] == ["one"]


def test_a_package_unknown_under_all_its_names_is_an_error_that_says_what_to_do(apt: FakeApt) -> None:
    with pytest.raises(HarnessError, match="apt knows no package one or other for amd64: run `apt-get update` as root"):
        resolve_packages([Wish(("one", "other"))])


def test_missing_package_lists_are_told_from_an_unknown_package(apt: FakeApt) -> None:
    (apt.folder / "lists").write_text("")
    with pytest.raises(HarnessError, match=r"apt has no package lists, .*: run `apt-get update` as root"):
        resolve_packages([Wish(("one",))])


def test_a_host_without_apt_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HarnessError, match=r"apt-cache not found: .* Debian or Ubuntu hosts only"):
        resolve_packages([Wish(("one",))])


# The image and its cache

MANIFEST = f"""
[kernel]
packages = ["linux-image-test"]
follow = "linux-image-.*"
modules = ["net_card"]
append = ["console=ttyS0", "quiet"]
[[program]]
packages = ["tool"]
file = "bin/program"
install = "/bin/tool"
follow = "lib.*"
[[user]]
name = "alice"
uid = 1001
home = "/home/alice"
# {RELEASE}
"""


@dataclass
class Workshop:
    """All that a build takes, without a network: packages, a recipe and a cache."""

    apt: FakeApt
    recipe: Path
    cache: Path

    def build(self, *, refresh: bool = False) -> ControlImage:
        """Build, or find, the image."""
        return build_control_image(self.cache, ignore, refresh=refresh, recipe=self.recipe)

    def start_build(self, *, refresh: bool = False) -> subprocess.Popen[bytes]:
        """Start doing the same in another process, which prints where the image is."""
        code = (
            "import sys; from pathlib import Path; from harness.images.control import build_control_image; "
            "cache, recipe = map(Path, sys.argv[1:]); "
            f"print(build_control_image(cache, lambda _: None, refresh={refresh}, recipe=recipe).initrd)"
        )
        return subprocess.Popen(
            [sys.executable, "-c", code, str(self.cache), str(self.recipe)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(harness.__file__).parents[1])},
            start_new_session=True,
        )

    def await_downloads(self, number: int) -> None:
        """Wait until apt-get download was called NUMBER times."""
        end = time.monotonic() + 30
        while self.apt.downloads_so_far() < number:
            assert time.monotonic() < end, "the build never came to its download"
            time.sleep(0.02)

    def leftovers(self) -> list[str]:
        """Return what unfinished builds have in the cache."""
        return [path.name for path in (self.cache / "control").glob(".build-*")]


@pytest.fixture
def workshop(apt: FakeApt, tree: Path, tmp_path: Path) -> Workshop:
    loader = interpreter(tree)
    tool = library(tree, f"{MULTIARCH}/libtool.so.1", loader)
    kernel = bytearray(0x1000)
    kernel[0x202:0x206] = b"HdrS"
    kernel[0x20E:0x210] = (0x300).to_bytes(2, "little")
    text = f"{RELEASE} (builder) #1\0".encode()
    kernel[0x500 : 0x500 + len(text)] = text
    (tmp_path / "vmlinuz").write_bytes(kernel)
    apt.publish("linux-image-test", {}, f"linux-image-{RELEASE} (= 1.0), kmod")
    apt.publish(
        f"linux-image-{RELEASE}",
        {
            f"boot/vmlinuz-{RELEASE}": tmp_path / "vmlinuz",
            f"lib/modules/{RELEASE}/kernel/net-card.ko": module(tree, "net-card", "core"),
            f"lib/modules/{RELEASE}/kernel/core.ko": module(tree, "core"),
        },
    )
    apt.publish("tool", {"usr/bin/program": program(tree, tool)}, "libtool1, adduser")
    loader_path = "lib64/ld-test.so.1"
    apt.publish("libtool1", {f"usr/{MULTIARCH}/libtool.so.1": tool, loader_path: loader})
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    (recipe / "manifest.toml").write_text(MANIFEST)
    (recipe / "init").write_text("#!/bin/tool\n")
    (recipe / "sshd_config").write_text("UsePAM no\n")
    return Workshop(apt, recipe, tmp_path / "cache")


def contents(image: ControlImage) -> dict[str, str]:
    """Return the paths in the image's initial root file system with type, permissions and owner."""
    listed = subprocess.run(
        ["cpio", "--list", "--verbose", "--numeric-uid-gid", "--quiet"],
        input=gzip.decompress(image.initrd.read_bytes()),
        capture_output=True,
        check=True,
        env={**os.environ, "TZ": "UTC"},
    ).stdout.decode()
    fields = (line.split() for line in listed.splitlines())
    return {words[words.index("1970") + 1]: f"{words[0]} {words[2]}" for words in fields}


@needs_dpkg
@needs_cpio
def test_an_image_holds_what_the_recipe_names(workshop: Workshop, tmp_path: Path) -> None:
    image = workshop.build()
    assert image.kernel.read_bytes() == (tmp_path / "vmlinuz").read_bytes()
    assert image.kernel_version == RELEASE
    assert image.append == "console=ttyS0 quiet"
    assert image.packages == ("libtool1 1.0", f"linux-image-{RELEASE} 1.0", "linux-image-test 1.0", "tool 1.0")
    inside = contents(image)
    for path, expected in {
        "init": "-rwxr-xr-x 0",
        "bin/tool": "-rwxr-xr-x 0",
        f"{MULTIARCH}/libtool.so.1": "-rwxr-xr-x 0",
        "lib64/ld-test.so.1": "-rwxr-xr-x 0",
        "lib/modules/core.ko": "-rw-r--r-- 0",
        "dev/console": "crw------- 0",
        "etc/ssh/host_key": "-rw------- 0",
        "home/alice": "drwxr-xr-x 1001",
        "home/alice/.ssh": "drwx------ 1001",
        "home/alice/.ssh/authorized_keys": "-rw------- 1001",
    }.items():
        assert inside.get(path) == expected, path
    load = ["cpio", "--extract", "--to-stdout", "--quiet", "lib/modules/load"]
    content = gzip.decompress(image.initrd.read_bytes())
    order = subprocess.run(load, input=content, capture_output=True, check=True).stdout.decode()
    assert order == "/lib/modules/core.ko\n/lib/modules/net_card.ko\n"


@needs_dpkg
def test_a_program_that_is_in_no_package_is_an_error_unless_it_is_optional(workshop: Workshop) -> None:
    manifest = workshop.recipe / "manifest.toml"
    manifest.write_text(MANIFEST.replace('"bin/program"', '"bin/elsewhere"'))
    with pytest.raises(HarnessError, match="none of the unpacked packages holds /bin/elsewhere"):
        workshop.build()
    manifest.write_text(MANIFEST.replace('"bin/program"', '"bin/elsewhere"\noptional = true'))
    assert workshop.build().initrd.is_file()


@needs_dpkg
def test_private_keys_are_readable_to_their_owner_only(workshop: Workshop) -> None:
    image = workshop.build()
    # The host's private key is in the initrd.
    for file in (image.ssh_key, image.initrd):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    login = paramiko.Ed25519Key.from_private_key_file(str(image.ssh_key))
    kind, host = image.host_key_public.split()
    assert kind == "ssh-ed25519"
    assert base64.b64decode(host) != login.asbytes(), "host and user share a key"


@needs_dpkg
def test_the_second_call_asks_nobody_and_is_quick(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    first = workshop.build()
    monkeypatch.setenv("PATH", "/nonexistent")
    started = time.thread_time()
    assert workshop.build() == first
    assert time.thread_time() - started < 0.5


@needs_dpkg
def test_an_image_in_the_cache_can_be_had_while_another_command_builds(workshop: Workshop) -> None:
    first = workshop.build()
    (workshop.apt.folder / "hang").touch()
    workshop.apt.know("tool", "libtool1", version="1.1")
    builder = workshop.start_build(refresh=True)
    try:
        workshop.await_downloads(2)
        assert workshop.build() == first
        assert builder.poll() is None, "the other command was not building any more"
    finally:
        os.killpg(builder.pid, signal.SIGKILL)
        builder.wait()


@needs_dpkg
def test_a_refresh_without_news_downloads_nothing(workshop: Workshop) -> None:
    first = workshop.build()
    assert workshop.build(refresh=True) == first
    assert workshop.apt.downloads_so_far() == 1


@needs_dpkg
def test_a_refresh_takes_a_newer_package_and_keeps_the_older_image(workshop: Workshop, tree: Path) -> None:
    first = workshop.build()
    workshop.apt.publish("tool", {"usr/bin/program": tree / "bin/program"}, "libtool1", version="1.1")
    assert workshop.build() == first, "newer packages were taken unasked"
    second = workshop.build(refresh=True)
    assert "tool 1.1" in second.packages
    assert second.digest != first.digest
    assert first.initrd.is_file()
    assert workshop.build() == second


@needs_dpkg
@pytest.mark.parametrize("part", ["manifest.toml", "init", "sshd_config"])
def test_a_changed_recipe_makes_another_image(workshop: Workshop, part: str) -> None:
    first = workshop.build()
    with (workshop.recipe / part).open("a") as file:
        file.write("# changed\n")
    assert workshop.build().initrd != first.initrd


@needs_dpkg
@pytest.mark.parametrize("part", ["kernel", "initrd", "ssh_key"])
def test_an_image_with_a_part_missing_is_built_again(workshop: Workshop, part: str) -> None:
    lost: Path = getattr(workshop.build(), part)
    lost.unlink()
    workshop.build()
    assert lost.is_file()


@needs_dpkg
@pytest.mark.parametrize("part", ["kernel", "initrd", "ssh_key"])
@pytest.mark.parametrize("left", [0, 100])
def test_an_image_that_is_not_as_it_was_made_is_found_and_built_again(workshop: Workshop, part: str, left: int) -> None:
    image = workshop.build()
    assert damaged_images(workshop.cache) == []
    damaged: Path = getattr(image, part)
    before = damaged.read_bytes()
    damaged.write_bytes(before[:left])
    assert damaged_images(workshop.cache) == [damaged.parent]
    workshop.build()
    assert damaged_images(workshop.cache) == []
    assert len(damaged.read_bytes()) > left


@needs_dpkg
@pytest.mark.parametrize("content", [b"", b"..", b"\xff", b"0123456789abcdef"], ids=["empty", "up", "no text", "gone"])
def test_a_recipe_that_names_no_image_is_no_recipe(workshop: Workshop, content: bytes) -> None:
    first = workshop.build()
    (pointer,) = (workshop.cache / "control").glob("recipe-*")
    pointer.write_bytes(content)
    if content != b"0123456789abcdef":
        assert damaged_images(workshop.cache) == [pointer]
    assert workshop.build() == first
    pointer.write_bytes(content)
    assert (remove_damaged_images(workshop.cache) == len(content)) == (content != b"0123456789abcdef") or not content


@needs_dpkg
def test_a_bit_that_has_changed_is_found_by_verify(workshop: Workshop) -> None:
    image = workshop.build()
    looked = image.initrd.stat()
    content = bytearray(image.initrd.read_bytes())
    content[len(content) // 2] ^= 1
    image.initrd.write_bytes(content)
    os.utime(image.initrd, ns=(looked.st_atime_ns, looked.st_mtime_ns))
    assert damaged_images(workshop.cache) == [image.initrd.parent]
    assert remove_damaged_images(workshop.cache) > len(content)
    assert not image.initrd.exists()


@needs_dpkg
def test_two_commands_at_once_build_one_image(workshop: Workshop) -> None:
    both = [workshop.start_build() for _ in range(2)]
    printed = {process.communicate(timeout=60)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(printed) == 1
    assert workshop.apt.downloads_so_far() == 1


@needs_dpkg
@pytest.mark.parametrize("death", [signal.SIGINT, signal.SIGKILL], ids=lambda death: death.name)
def test_an_interrupted_build_leaves_nothing_that_stays(workshop: Workshop, death: signal.Signals) -> None:
    hang = workshop.apt.folder / "hang"
    hang.touch()
    process = workshop.start_build()
    workshop.await_downloads(1)
    assert workshop.leftovers(), "the build works somewhere else: this test cannot see what it leaves"
    os.killpg(process.pid, death)
    assert process.wait(30) != 0
    if death is signal.SIGINT:
        assert workshop.leftovers() == []
    hang.unlink()
    workshop.build()
    assert workshop.leftovers() == []
    assert workshop.apt.downloads_so_far() == 2


@needs_dpkg
def test_a_failed_download_says_why_and_what_to_do(workshop: Workshop) -> None:
    (workshop.apt.folder / "offline").touch()
    with pytest.raises(
        HarnessError, match=r"\(Failed to fetch http://mirror/x\.deb\): check the network; .*apt-get upd"
    ):
        workshop.build()
    assert workshop.leftovers() == []
    (workshop.apt.folder / "offline").unlink()
    assert workshop.build().kernel.is_file()


@needs_dpkg
def test_a_cache_that_cannot_be_written_is_one_clear_line(workshop: Workshop) -> None:
    workshop.cache.write_text("a file where a directory should be")
    with pytest.raises(HarnessError, match="the control guest cannot be built in "):
        workshop.build()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("[kernel]", "[kernel", "not valid TOML"),
        ("[kernel]", "[colonel]", "'kernel' is missing"),
        ('modules = ["net_card"]', "", "'modules' is missing"),
        ('file = "bin/program"', "", "'file' is missing"),
        ('packages = ["tool"]', "packages = []", "packages = .. is not a list of names"),
        ('packages = ["tool"]', 'packages = "tool"', "packages = 'tool' is not a list of names"),
        ('follow = "lib.*"', 'follow = "(lib"', "missing \\)"),
        ("uid = 1001", 'uid = "1001"', "uid = '1001' is not a number"),
    ],
)
def test_a_broken_manifest_is_reported_with_its_path(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    assert old in MANIFEST
    for name in ("init", "sshd_config"):
        (tmp_path / name).touch()
    (tmp_path / "manifest.toml").write_text(MANIFEST.replace(old, new))
    with pytest.raises(HarnessError, match=rf"manifest\.toml: .*{complaint}"):
        build_control_image(tmp_path / "cache", ignore, recipe=tmp_path)


# The real thing

BOOT_GOAL = 12.0  # seconds of QEMU's CPU time from its start to the first SSH login


class Booted:
    """The guest on a machine of its own."""

    def __init__(self, image: ControlImage, machine: Machine, folder: Path) -> None:
        self.image = image
        self.machine = machine
        machine.start()
        self.console = Console(machine.serial[0], folder / "console.log")
        self.console.expect([READY], awaited=f'"{READY}" on the console', deadline=120)
        self.log_in("root").close()
        # Not the time by the clock, which says as much about what else the host does.
        fields = Path(f"/proc/{machine.pid}/stat").read_text().rpartition(")")[2].split()
        self.boot_seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log_in(self, user: str) -> SshConnection:
        """Return a new connection."""
        connection = SshConnection(
            self.machine.host_port(22), SshAccess(user, self.image.ssh_key, self.image.host_key_public)
        )
        connection.connect(30)
        return connection


def booted(image: ControlImage, folder: Path) -> Iterator[Booted]:
    boot = LinuxStyleBoot(image.kernel, image.initrd, image.append)
    with Machine(MachineDescription(memory=256, boot=boot), Store(folder / "store")) as machine:
        yield Booted(image, machine, folder)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> ControlImage:
    if shutil.which("apt-get") is None:
        pytest.skip("the control guest is put together on Debian and Ubuntu hosts only")
    return build_control_image(tmp_path_factory.mktemp("cache"), ignore)


@pytest.fixture(scope="module")
def control(image: ControlImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """Give the guest that all tests share which do it no harm."""
    yield from booted(image, tmp_path_factory.mktemp("control"))


@pytest.fixture
def doomed(image: ControlImage, tmp_path: Path) -> Iterator[Booted]:
    """Give a guest that the test may ruin."""
    yield from booted(image, tmp_path)


@pytest.mark.on_vm
def test_a_comma_in_the_way_to_the_image_is_no_end_of_its_name(image: ControlImage, tmp_path: Path) -> None:
    place = tmp_path / "a, b,,c"
    place.mkdir()
    kernel, initrd = (place / file.name for file in (image.kernel, image.initrd))
    kernel.symlink_to(image.kernel)
    initrd.symlink_to(image.initrd)
    for machine in booted(replace(image, kernel=kernel, initrd=initrd), tmp_path):
        assert machine.console.text().strip().startswith(BANNER)


@pytest.mark.on_vm
def test_the_guest_says_what_it_is_before_anything_else(control: Booted) -> None:
    assert control.console.text().strip().startswith(BANNER)


@pytest.mark.on_vm
def test_the_guest_is_up_soon(control: Booted) -> None:
    assert 0 < control.boot_seconds < BOOT_GOAL


@pytest.mark.on_vm
def test_the_kernel_is_the_one_of_the_package(control: Booted) -> None:
    assert control.log_in("root").run("uname -r").output.strip() == control.image.kernel_version


@pytest.mark.on_vm
@pytest.mark.parametrize(("user", "uid"), [("root", 0), ("alice", 1001), ("bob", 1002)])
def test_each_user_can_log_in_and_exchange_files(control: Booted, user: str, uid: int) -> None:
    connection = control.log_in(user)
    assert connection.run("echo $(id -u) $(id -g) $(pwd)").output.split()[:2] == [str(uid)] * 2
    content = os.urandom(100_000)
    connection.upload(content, f"/tmp/of-{user}", mode=0o700)  # noqa: S108 (in the guest)
    assert connection.download(f"/tmp/of-{user}") == content  # noqa: S108
    connection.close()


@pytest.mark.on_vm
def test_users_cannot_write_outside_their_own_and_tmp(control: Booted) -> None:
    tried = control.log_in("alice").run("touch /x; touch /root/x; touch /home/bob/x; touch /tmp/x && echo yes")
    assert tried.output.strip() == "yes"
    assert tried.errors.count("Permission denied") == 3


@pytest.mark.on_vm
def test_only_the_right_key_lets_anybody_in(control: Booted) -> None:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())  # noqa: S507 (of the guest on this host)

    def log_in(**credentials: Any) -> None:
        port = control.machine.host_port(22)
        client.connect("127.0.0.1", port, "root", allow_agent=False, look_for_keys=False, **credentials)

    with pytest.raises(paramiko.BadAuthenticationType) as refused:
        log_in(password="x")  # noqa: S106 (what /etc/passwd has in the place of root's)
    assert refused.value.allowed_types == ["publickey"]
    with pytest.raises(paramiko.AuthenticationException):
        log_in(pkey=paramiko.RSAKey.generate(2048))
    client.close()


@pytest.mark.on_vm
def test_orphans_are_reaped_by_pid_1_at_once(control: Booted) -> None:
    connection = control.log_in("root")
    orphans = "ps -o ppid,args | grep -c '^ *1 [s]leep 4321'"
    # An output left open would keep the SSH channel open.  A child bears the name of its program from its exec on only.
    connection.run(
        "for i in $(seq 200); do (sleep 4321 >/dev/null 2>&1 &); done;"
        f" until [ $({orphans}) = 200 ]; do usleep 20000; done"
    )
    zombies = "ps -o stat,args | grep -c '^Z'"
    connection.run(f"killall -9 sleep; until [ $({orphans})$({zombies}) = 00 ]; do usleep 20000; done")


@pytest.mark.on_vm
def test_the_console_has_a_root_shell_that_comes_back(control: Booted) -> None:
    console = control.console
    console.expect([PROMPT], awaited="the console's prompt", deadline=30)
    for _ in range(2):
        console.send("stty -echo\n")
        console.expect([PROMPT], awaited="the prompt", deadline=30)
        console.send("echo $(id -u) $((6 * 7)) $(tty)\n")
        console.expect([r"\n?0 42 /dev/ttyS0\r\n" + PROMPT], awaited="the shell's answer", deadline=30)
        console.send("exit\n")
        console.expect([PROMPT], awaited="the next shell's prompt", deadline=30)


@pytest.mark.on_vm
def test_ctrl_c_ends_a_command_on_the_console(control: Booted) -> None:
    console = control.console
    # One process says that it has started and sleeps: a Ctrl-C between two commands would meet the shell instead.
    console.send("sh -c 'echo started $((6 * 7)); exec sleep 9876'\n")
    console.expect(["started 42\r\n"], awaited="the command to start", deadline=30)
    console.send("\x03")
    console.expect([PROMPT], awaited="the prompt after Ctrl-C", deadline=30)  # its echo may come behind that


@pytest.mark.on_vm
def test_the_guest_survives_the_killing_of_all_processes(doomed: Booted) -> None:
    console = doomed.console
    console.expect([PROMPT], awaited="the console's prompt", deadline=30)
    console.send("(sleep 4321 &); kill -9 -1\n")
    console.expect(["kill -9 -1\r\n"], awaited="the echo of the command", deadline=30)
    # The killer is spared by its own signal: its prompt may come before login's death hangs it up, too.
    console.expect(["root login on 'ttyS0'"], awaited="a new login", deadline=30)
    console.expect([PROMPT], awaited="the prompt of a new shell", deadline=30)
    console.send("ps -o stat,args | grep -c -e '^Z' -e '[s]leep 4321'; echo $((6 * 7))\n")
    console.expect([r"\n0\r\n42\r\n"], awaited="a count of no zombies and no survivors", deadline=30)


@pytest.mark.on_vm
def test_a_panic_is_told_on_the_console_and_ends_the_machine(doomed: Booted) -> None:
    doomed.console.send("echo c >/proc/sysrq-trigger\n")
    doomed.console.expect(
        [r"Kernel panic - not syncing: sysrq triggered crash\r\n[\s\S]*Call Trace"], awaited="the panic", deadline=30
    )
    pid = doomed.machine.pid
    end = time.monotonic() + 30
    while doomed.machine.pid is not None:
        assert time.monotonic() < end, f"QEMU {pid} still runs after a panic"
        time.sleep(0.05)
