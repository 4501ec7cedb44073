# SPDX-License-Identifier: BSD-2-Clause
"""The control guest: a small Linux that lives in RAM, for runs that must not depend on DragonFly.

It is put together from Debian or Ubuntu packages when first needed: a stock kernel, busybox and OpenSSH's server.
images/control/manifest.toml names the packages, images/control/init is its PID 1.

In the guest: 10.0.2.15 on the first virtio network device (QEMU's user network); SSH on port 22 for root, alice (uid
1001) and bob (uid 1002), all with the one key; SFTP; a root shell with the prompt `PROMPT` on ttyS0; `BANNER` on the
console once it runs and `READY` when SSH accepts connections.  The shell edits its input line for a person; a script
types `stty -echo` first and gets neither echo nor escape sequences until it types exit.  `kernel.pid_max` has Linux's
default of 32768.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from harness.errors import DeadlineError, HarnessError
from harness.files import write_whole
from harness.images.closure import PackageTree
from harness.images.cpio import CpioArchive
from harness.images.debian import Wish, fetch_packages, resolve_packages, unpack_packages
from harness.later import Later

if TYPE_CHECKING:
    from cryptography import exceptions
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519
else:  # its keys are made with it
    exceptions = Later("cryptography.exceptions")
    serialization = Later("cryptography.hazmat.primitives.serialization")
    ed25519 = Later("cryptography.hazmat.primitives.asymmetric.ed25519")

BANNER = "dfly-harness control guest: CONTROL, NOT DRAGONFLY"
READY = "control guest ready"
PROMPT = "control# "

_KERNEL, _INITRD, _SSH_KEY, _RECORD = "vmlinuz", "initrd.cpio.gz", "id_ed25519", "image.json"
_CHECKED = "checked"  # how kernel and initrd looked when their digest was right
_LOCK_SECONDS = 1800.0  # another process may be building on a slow line
_SCRATCH_PREFIX = ".build-"
# Since OpenSSH 9.8 a client that is turned away too often has to wait, and older ones do not know the word.
_PENALTIES = b"PerSourcePenalties"
_IDENTITY = re.compile(r"[0-9a-f]{16}")
_RECIPE = ("manifest.toml", "init", "sshd_config")
_CODE = ("control.py", "closure.py", "cpio.py", "debian.py")


@dataclass(frozen=True)
class ControlImage:
    """Everything to boot the control guest with QEMU and to log in to it."""

    kernel: Path  # for -kernel
    initrd: Path  # for -initrd
    ssh_key: Path  # private key (ed25519, OpenSSH format, mode 600) of all users
    host_key_public: str  # as in a known_hosts file: "ssh-ed25519 AAAA..."
    kernel_version: str  # what `uname -r` prints in the guest
    append: str  # for -append
    digest: str  # of kernel and initrd, hence of the keys: what a saved state of the guest belongs to
    packages: tuple[str, ...]  # "name version" of all that is in it


@dataclass(frozen=True)
class _Program:
    wish: Wish
    file: str
    install: str
    optional: bool


@dataclass(frozen=True)
class _User:
    name: str
    uid: int
    home: str


@dataclass(frozen=True)
class _Manifest:
    kernel: Wish
    modules: tuple[str, ...]
    append: tuple[str, ...]
    programs: tuple[_Program, ...]
    users: tuple[_User, ...]

    @property
    def wishes(self) -> list[Wish]:
        return [self.kernel, *(program.wish for program in self.programs)]


def build_control_image(
    cache: Path, progress: Callable[[str], None], *, refresh: bool = False, recipe: Path | None = None
) -> ControlImage:
    """Return the control guest's image, from CACHE if it is there, else built into it (a download of some 40 MB).

    An entry is found by the content of the recipe (the directory RECIPE with manifest.toml, init and sshd_config; the
    harness's own by default) and of this code, without running apt; with REFRESH apt is asked whether there are newer
    packages.  PROGRESS gets a line for each step of a build.  Any number of processes may call this at once; a build
    that is interrupted leaves nothing that the next one would take for an image.

    Raises HarnessError, with what to do, when the packages cannot be had, and DeadlineError when another process
    holds the cache for more than 1800 s.
    """
    recipe = recipe or _own_recipe()
    store = cache / "control"
    recipe_digest = _digest_of_files([*(recipe / name for name in _RECIPE), *_own_code()])
    pointer = store / f"recipe-{recipe_digest}"
    if not refresh and (image := _pointed_at(pointer)) is not None:
        return image
    manifest = _read_manifest(recipe / "manifest.toml")
    try:
        store.mkdir(parents=True, exist_ok=True)
        with _locked(store, progress):
            if not refresh and (image := _pointed_at(pointer)) is not None:
                return image  # another process built it in the meantime
            return _build(store, pointer, recipe_digest, manifest, recipe, progress)
    except OSError as error:
        raise HarnessError(f"the control guest cannot be built in {store}: {error}") from error


@contextlib.contextmanager
def _locked(store: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock on STORE; tell PROGRESS if that takes waiting."""
    lock = FileLock(store / ".lock")
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress("waiting for another command that is putting the control guest together")
            lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout:
        raise DeadlineError(f"another command to finish building in {store}", _LOCK_SECONDS) from None
    try:
        yield
    finally:
        lock.release()


def _build(
    store: Path,
    pointer: Path,
    recipe_digest: str,
    manifest: _Manifest,
    recipe: Path,
    progress: Callable[[str], None],
) -> ControlImage:
    """Resolve, fetch and assemble, with the store locked; return the finished image."""
    for leftover in store.glob(f"{_SCRATCH_PREFIX}*"):  # of builds that were killed: the lock says that none runs
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    progress("asking apt for the control guest's packages")
    packages = resolve_packages(manifest.wishes)
    identity = hashlib.sha256(
        "\n".join([recipe_digest, *(package.sha256 for package in packages)]).encode()
    ).hexdigest()[:16]
    entry = store / identity
    if _read_image(entry) is None:
        with tempfile.TemporaryDirectory(prefix=_SCRATCH_PREFIX, dir=store) as scratch:
            downloads, root, finished = (Path(scratch) / name for name in ("debs", "root", "image"))
            downloads.mkdir()
            files = fetch_packages(packages, downloads, progress)
            progress("unpacking")
            unpack_packages(files, root)
            progress("writing the control guest's image")
            names = [f"{package.name} {package.version}" for package in packages]
            _assemble(finished, PackageTree(root), manifest, recipe, names)
            shutil.rmtree(entry, ignore_errors=True)  # incomplete: someone deleted a part of it
            finished.rename(entry)
    image = _read_image(entry)
    if image is None:
        raise HarnessError(f"{entry}: vanished while it was built; is something clearing the cache?")
    temporary = pointer.with_name(f"{_SCRATCH_PREFIX}{pointer.name}")
    temporary.write_text(identity)
    temporary.replace(pointer)
    return image


def _assemble(folder: Path, tree: PackageTree, manifest: _Manifest, recipe: Path, packages: Sequence[str]) -> None:
    """Make FOLDER and in it the four files of an image."""
    kernels = tree.glob("boot/vmlinuz-*") or tree.glob("lib/modules/*/vmlinuz")
    if len(kernels) != 1:
        raise HarnessError(f"the kernel packages hold {len(kernels)} kernels (boot/vmlinuz-*), not one")
    bzimage = kernels[0].read_bytes()
    release = _kernel_release(bzimage)
    login_key, host_key = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    archive = _initial_root(tree, manifest, recipe, release, login_key, host_key)

    initrd = gzip.compress(archive.to_bytes(), mtime=0)

    folder.mkdir()
    (folder / _KERNEL).write_bytes(bzimage)
    _write_private(folder / _INITRD, initrd)  # the host key is in it
    _write_private(folder / _SSH_KEY, _openssh_private(login_key))
    record = {
        "host_key_public": _public_line(host_key),
        "kernel_version": release,
        "append": " ".join(manifest.append),
        "digest": _digest_of_image(bzimage, initrd),
        "packages": list(packages),
    }
    (folder / _RECORD).write_text(json.dumps(record, indent=1) + "\n")


def _initial_root(
    tree: PackageTree,
    manifest: _Manifest,
    recipe: Path,
    release: str,
    login_key: ed25519.Ed25519PrivateKey,
    host_key: ed25519.Ed25519PrivateKey,
) -> CpioArchive:
    """Return the guest's root file system.  All programs are in /bin and all libraries below /lib."""
    archive = CpioArchive()
    for path in ("/dev", "/proc", "/sys", "/run", "/tmp"):  # noqa: S108 (in the guest)
        archive.add_directory(path)
    # The kernel opens this one for PID 1 before anything is mounted.
    archive.add_character_device("/dev/console", 5, 1)
    for path, target in {"/sbin": "bin", "/usr/bin": "../bin", "/usr/sbin": "../bin", "/usr/lib": "../lib"}.items():
        archive.add_symlink(path, target)
    archive.add_file("/init", (recipe / "init").read_bytes(), mode=0o755)

    programs = {
        program.install: tree.require(program.file)
        for program in manifest.programs
        if not program.optional or tree.find(program.file)
    }
    for path, file in (programs | tree.library_closure(list(programs.values()))).items():
        archive.add_file(path, file.read_bytes(), mode=0o755)
    modules = tree.module_closure(manifest.modules, release)
    for module in modules:
        archive.add_file(f"/lib/modules/{module.name}.ko", module.content)
    archive.add_file("/lib/modules/load", "".join(f"/lib/modules/{m.name}.ko\n" for m in modules).encode())

    users = manifest.users
    # No password's hash is "x"; "*" would lock the account for login(1) as well.
    passwd = "".join(f"{user.name}:x:{user.uid}:{user.uid}::{user.home}:/bin/sh\n" for user in users)
    passwd += "sshd:*:100:100::/run/sshd:/bin/false\n"  # sshd's own, for the part that talks to strangers
    archive.add_file("/etc/passwd", passwd.encode())
    archive.add_file("/etc/group", "".join(f"{u.name}:x:{u.uid}:\n" for u in users).encode() + b"tty:x:5:\n")
    prompts = f"case $(id -u) in 0) PS1='{PROMPT}' ;; *) PS1='{PROMPT.replace('#', '$')}' ;; esac\n"
    archive.add_file("/etc/profile", prompts.encode())
    archive.add_file("/etc/hosts", b"127.0.0.1 localhost control\n")
    archive.add_file("/etc/ssh/host_key", _openssh_private(host_key), mode=0o600)
    config = (recipe / "sshd_config").read_bytes()
    if any(_PENALTIES.lower() in file.read_bytes() for file in programs.values()):
        config += _PENALTIES + b" no\n"
    archive.add_file("/etc/ssh/sshd_config", config)
    for user in users:
        archive.add_directory(user.home, mode=0o755, owner=user.uid)
        archive.add_directory(f"{user.home}/.ssh", mode=0o700, owner=user.uid)
        authorized = f"{_public_line(login_key)}\n".encode()
        archive.add_file(f"{user.home}/.ssh/authorized_keys", authorized, mode=0o600, owner=user.uid)
    return archive


def _kernel_release(bzimage: bytes) -> str:
    """Return the release (`uname -r`) that a bzImage's setup header points to.

    Linux Documentation/arch/x86/boot.rst: "HdrS" at 0x202, at 0x20e a 16-bit pointer, less 0x200, to the text.
    """
    if bzimage[0x202:0x206] != b"HdrS":
        raise HarnessError("the kernel package's vmlinuz is no bzImage")
    start = int.from_bytes(bzimage[0x20E:0x210], "little") + 0x200
    return bzimage[start : bzimage.index(b"\0", start)].decode("ascii", "replace").split(" ")[0]


def _public_line(key: ed25519.Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def _openssh_private(key: ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def _write_private(path: Path, content: bytes) -> None:
    """Create the file PATH, never readable to others."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


def _pointed_at(pointer: Path) -> ControlImage | None:
    """Return the image that POINTER names, None if there is none."""
    named = _named(pointer)
    return _read_image(pointer.with_name(named)) if named else None


def _named(pointer: Path) -> str:
    """Return the name of the image that POINTER has, empty where it has none.

    Whatever is wrong with the cache, the build will run into it and say so.
    """
    try:
        named = pointer.read_text()
    except (OSError, ValueError):
        return ""
    return named if _IDENTITY.fullmatch(named) else ""


def damaged_images(cache: Path) -> list[Path]:
    """Return what lies in CACHE for the control guest and is not as it was made; the next run makes it again."""
    store = cache / "control"
    if not store.is_dir():
        return []
    entries = [entry for entry in store.iterdir() if entry.is_dir() and _IDENTITY.fullmatch(entry.name)]
    pointers = [pointer for pointer in store.glob("recipe-*") if not _named(pointer)]
    return sorted([*(entry for entry in entries if _read_image(entry, thorough=True) is None), *pointers])


def remove_damaged_images(cache: Path) -> int:
    """Remove what damaged_images() finds; return the bytes freed."""
    freed = 0
    for path in damaged_images(cache):
        with _locked(cache / "control", lambda _: None):
            freed += sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    return freed


def _read_image(entry: Path, *, thorough: bool = False) -> ControlImage | None:
    """Return the image in the directory ENTRY, None if it is not all there, or not as it was made.

    Unless THOROUGH, files that look as they did when their digest was computed last are not read again.
    """
    kernel, initrd, ssh_key = (entry / name for name in (_KERNEL, _INITRD, _SSH_KEY))
    try:
        record = json.loads((entry / _RECORD).read_text())
        image = ControlImage(kernel, initrd, ssh_key, **{**record, "packages": tuple(record["packages"])})
        serialization.load_ssh_private_key(ssh_key.read_bytes(), password=None)
        looks = json.dumps([[found.st_size, found.st_mtime_ns] for found in (kernel.stat(), initrd.stat())])
        checked = entry / _CHECKED
        if not thorough and checked.exists() and checked.read_text() == looks:
            return image
        if _digest_of_image(kernel.read_bytes(), initrd.read_bytes()) != image.digest:
            return None
        with contextlib.suppress(OSError):  # a store that others may only read
            write_whole(checked, looks)
        return image  # noqa: TRY300  (whatever of it fails)
    except (OSError, ValueError, KeyError, TypeError, exceptions.UnsupportedAlgorithm):
        return None


def _digest_of_image(kernel: bytes, initrd: bytes) -> str:
    return hashlib.sha256(hashlib.sha256(kernel).digest() + hashlib.sha256(initrd).digest()).hexdigest()


def _read_manifest(path: Path) -> _Manifest:
    """Return the manifest in PATH; raises HarnessError, naming what is wrong, for one that cannot be used."""
    try:
        data = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise HarnessError(f"{path}: not valid TOML: {error}") from None
    try:
        kernel = data["kernel"]
        programs = tuple(
            _Program(_wish(item), item["file"], item["install"], item.get("optional", False))
            for item in data["program"]
        )
        users = tuple(_user(item) for item in data["user"])
        return _Manifest(_wish(kernel), tuple(kernel["modules"]), tuple(kernel["append"]), programs, users)
    except KeyError as error:
        raise HarnessError(f"{path}: {error} is missing") from None
    except (TypeError, ValueError, re.error) as error:
        raise HarnessError(f"{path}: {error}") from None


def _wish(table: Mapping[str, Any]) -> Wish:
    """Return the wish that a table with "packages" and perhaps "follow" expresses."""
    packages, follow = table["packages"], table.get("follow")
    if not packages or not isinstance(packages, list):
        raise ValueError(f"packages = {packages!r} is not a list of names")
    if follow is not None:
        re.compile(follow)
    return Wish(tuple(packages), follow)


def _user(table: Mapping[str, Any]) -> _User:
    """Return the user that a table describes."""
    if not isinstance(table["uid"], int):
        raise TypeError(f"uid = {table['uid']!r} is not a number")
    return _User(table["name"], table["uid"], table["home"])


def _own_recipe() -> Path:
    """Return the directory of the recipe: in a checkout beside the package, in a wheel inside it."""
    package = Path(__file__).parents[1]
    for folder in (package.parent / "images" / "control", package / "_share" / "images" / "control"):
        if (folder / "manifest.toml").is_file():
            return folder
    raise HarnessError("images/control/manifest.toml not found: the installation is incomplete")


def _own_code() -> list[Path]:
    return [Path(__file__).with_name(name) for name in _CODE]


def _digest_of_files(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]
