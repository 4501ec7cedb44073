# SPDX-License-Identifier: BSD-2-Clause
"""doctor: is this host fit for the harness, and can it be made so."""

from __future__ import annotations

import argparse
import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.cli.options import begin_command, require_room
from harness.errors import DeadlineError, ExitCode, HarnessError
from harness.guests.guest import MachineSize, Progress
from harness.guests.targets import TargetChoice, first_commands, has_dragonfly, resolve_target
from harness.images.base import BaseImage
from harness.kernels.artefact import Kernel
from harness.machine.accel import choose_accelerator, probe_accelerators
from harness.machine.qemu import QEMU, qemu_version
from harness.processes.lanes import probe_time_warp
from harness.processes.session import WARM_STATE, room_for_state
from harness.report.terminal import make_console, make_output, print_json, progress_display
from harness.store import Store
from harness.toolchain import has_header, run_tool

_APT_SECONDS = 1800.0
_TIMED_OUT = {124, 137}  # by timeout(1)
_KVM = Path("/dev/kvm")
_RULE = (
    """the line KERNEL=="kvm", GROUP="kvm", MODE="0666" in /etc/udev/rules.d/65-kvm.rules, then"""
    " `sudo udevadm control --reload && sudo udevadm trigger /dev/kvm`"
)


@dataclass(frozen=True)
class _Tool:
    """A program the harness runs, or a header it compiles with, and the Debian/Ubuntu package that has it."""

    program: str
    package: str
    purpose: str


_TOOLS = (
    _Tool("qemu-system-x86_64", "qemu-system-x86", "the machines"),
    _Tool("qemu-img", "qemu-utils", "disk overlays"),
    _Tool("gcc", "gcc", "the boot stub and the executor"),
    _Tool("fcntl.h", "libc6-dev", "which code of a kernel runs (run --coverage)"),
    _Tool("dpkg-deb", "dpkg", "the control guest"),
    _Tool("zstd", "zstd", "kernel modules of the control guest"),
    _Tool("git", "git", "kernel sources"),
)

# Not needed to test kernels, and not installed by --fix: a program's names, its package, what goes without it.
_OPTIONAL = (
    (("chromium", "chromium-browser", "google-chrome"), "chromium", "selftests look at the report pages in it"),
    (("kyua",), "kyua", "selftests read the databases of `report --kyua` with it"),
    (("gdb",), "gdb", "a debugger for the machine that `run --hold` keeps"),
    (
        ("ssh",),
        "openssh-client",
        "a shell in the machine that `run --hold` keeps, from another terminal; runs on other hosts (--hosts)",
    ),
    (("rsync",), "rsync", "runs on other hosts (compare and bisect --hosts)"),
)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add doctor."""
    parser = begin_command(commands, "doctor", "dfly-harness doctor --fix")
    parser.add_argument("--fix", action="store_true", help="install missing packages with apt-get (as root or by sudo)")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.set_defaults(action=_doctor)


def _missing() -> list[_Tool]:
    return [tool for tool in _TOOLS if not _is_there(tool.program)]


def _is_there(name: str) -> bool:
    return has_header(name) if name.endswith(".h") else shutil.which(name) is not None


def _install(packages: list[str]) -> None:
    apt = shutil.which("apt-get")
    if apt is None:
        raise HarnessError(f"no apt-get on this host: install what provides {', '.join(packages)} by hand")
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    # What sudo runs cannot be killed from here.
    limited = [*prefix, "timeout", "--kill-after=30", f"{_APT_SECONDS:g}", apt]
    if prefix and shutil.which("sudo") is None:
        raise HarnessError(f"not root and no sudo: ask somebody who is to run: apt-get install {' '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    make_console().print(f"installing {' '.join(packages)} with apt-get", markup=False)
    update = [*limited, "update", "-q"]
    install = [*limited, "install", "-q", "-y", "--no-install-recommends", *packages]
    for argv in (update, install):
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        if done.returncode in _TIMED_OUT:
            raise DeadlineError(f"`{' '.join(argv)}` to end", _APT_SECONDS)
        if done.returncode != 0:
            reason = (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2]
            raise HarnessError(f"{' '.join(argv)} failed: {reason}")


def _package_lists_missing() -> bool:
    if shutil.which("apt-cache") is None:
        return False
    done = run_tool(["apt-cache", "show", "--no-all-versions", "busybox-static"])
    return done.returncode != 0


def _checks(store: Store) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "QEMU", _qemu
    yield "accelerator", lambda: _accelerators(store)
    yield "store", lambda: _room(store)
    if has_dragonfly(store):
        yield "lane", lambda: _lane(store)
    yield "DragonFly images", lambda: ", ".join(image.name for image in store.all(BaseImage)) or "none"
    yield "DragonFly kernels", lambda: ", ".join(kernel.name for kernel in store.all(Kernel)) or "none"


def _qemu() -> str:
    """Say which one it is; guests are reached by its user networking, which some builds lack."""
    backends = run_tool([QEMU, "-netdev", "help"], text=True)
    if "user" not in (backends.stdout + backends.stderr).split():
        raise HarnessError(f"{qemu_version()} was built without user networking (slirp): no guest could be reached")
    return qemu_version()


def _room(store: Store) -> str:
    """Say where the store is and what is free there, after something was written: enough for one more target."""
    require_room(store)
    store.require_space(room_for_state(MachineSize()), WARM_STATE)
    try:
        with store.scratch("doctor") as folder:
            (folder / "written").write_bytes(b"x")
    except OSError as error:
        raise HarnessError(f"{store.home} cannot be written to: {error.strerror}") from None
    free = shutil.disk_usage(store.home).free
    return f"{store.home}, {f'{free >> 30} GiB' if free >> 30 else f'{free >> 20} MiB'} free"


def _accelerators(store: Store) -> str:
    """Say which one runs use, and what was measured of each."""
    verdicts = probe_accelerators(store)
    best = choose_accelerator(store).accelerator
    lines = [f"{best.value} is the fastest that works", *(f"          {verdict}" for verdict in verdicts)]
    if _KVM.exists() and not os.access(_KVM, os.R_OK | os.W_OK):
        lines += [f"          {_KVM} is there, and not for you: {way}" for way in _ways_to(_KVM)]
    return "\n".join(lines)


def _ways_to(device: Path) -> list[str]:
    """Return what lets this user at DEVICE, which is for others."""
    status = device.stat()
    try:
        group = grp.getgrgid(status.st_gid)
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # nobody's name, as in a container
        return [_RULE]
    if group.gr_gid == 0 or status.st_mode & 0o060 != 0o060:
        return [f"it is {group.gr_name}'s alone; {_RULE}"]
    if user in group.gr_mem:
        return [f"{user} has joined the group {group.gr_name}, and this login does not know it: log in anew"]
    return [f"`sudo usermod -aG {group.gr_name} {user}`, and log in anew", f"or for everybody: {_RULE}"]


def _lane(store: Store) -> str:
    target = resolve_target(TargetChoice(), store, lambda _: None)
    verdict = probe_time_warp(target, store, MachineSize())
    return f"{verdict}, with {target.label}" + ("" if verdict.usable else "; tests of time run in wall-clock time")


@dataclass(frozen=True)
class _Finding:
    """What was found of the thing NAME: `state` is ok, note, MISSING or FAILED."""

    state: str
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.state:8}{self.name}: {self.text}"


def _of_programs(missing: list[_Tool]) -> Iterator[_Finding]:
    for tool in _TOOLS:
        hint = f" (package {tool.package}; doctor --fix installs it)" if tool in missing else ""
        yield _Finding("MISSING" if tool in missing else "ok", tool.program, f"{tool.purpose}{hint}")
    for names, package, purpose in _OPTIONAL:
        if not any(map(shutil.which, names)):
            yield _Finding("note", names[0], f"not installed: {purpose} (package {package})")


def _of_host(store: Store, progress: Progress) -> Iterator[_Finding]:
    for name, check in _checks(store):
        progress(name)
        try:
            yield _Finding("ok", name, check())
        except HarnessError as error:
            yield _Finding("FAILED", name, str(error))
    if swept := store.sweep():
        yield _Finding("ok", "store", f"removed {swept} folders of commands that were killed")
    if not has_dragonfly(store):
        yield _Finding(
            "note", "target", "\n          ".join(["no DragonFly target yet; to get one:", *first_commands()])
        )


def _findings(missing: list[_Tool], progress: Progress) -> Iterator[_Finding]:
    yield from _of_programs(missing)
    if not missing:
        try:
            store = Store()
        except HarnessError as error:  # of another user, or read-only
            yield _Finding("FAILED", "store", str(error))
            return
        yield from _of_host(store, progress)


def _doctor(options: argparse.Namespace) -> int:
    missing = _missing()
    if options.fix and (missing or _package_lists_missing()):
        _install([tool.package for tool in missing])
        missing = _missing()
    console = make_output()
    found: list[_Finding] = []
    with progress_display("doctor") as progress:
        for finding in _findings(missing, progress):
            found.append(finding)
            if not options.json:
                console.print(str(finding), markup=False, soft_wrap=True)
    if options.json:
        print_json([asdict(finding) for finding in found])
    bad = any(finding.state in {"MISSING", "FAILED"} for finding in found)
    return ExitCode.HARNESS_FAILED if bad else ExitCode.PASSED
