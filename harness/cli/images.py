# SPDX-License-Identifier: BSD-2-Clause
"""Commands that bring base images into the store: image releases, fetch, build, import, warm."""

from __future__ import annotations

import argparse
import getpass
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.cli.options import add_command
from harness.errors import ExitCode, UsageError
from harness.files import input_file
from harness.guests.options import ACCELERATOR, TargetOptions, chosen_accelerator
from harness.guests.ssh import load_private_key
from harness.guests.targets import resolve_target
from harness.images.base import BaseImage, import_image
from harness.images.manifest import Manifest, known_releases, load_manifest
from harness.images.media import InstallationMedium, choose_medium, fetch_medium
from harness.install.adopt import Foreign, adopt_image, is_box
from harness.install.build import BuildOptions, build_image
from harness.kernels.artefact import Kernel
from harness.machine.description import DiskModel
from harness.processes.session import Warmth
from harness.report.terminal import (
    make_console,
    make_output,
    print_json,
    print_table,
    progress_display,
    transfer_display,
)
from harness.store import Store

_FOREIGN_SUFFIXES = (".vmdk", ".vdi", ".vhdx", ".vpc")


def add_image_commands(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the actions of `image`."""
    parser = add_command(
        actions, "releases", "List the releases that can be fetched and built.", "dfly-harness image releases"
    )
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    parser.set_defaults(action=_releases)

    parser = add_command(
        actions,
        "fetch",
        "Fetch and verify the installation CD of a release, or go on with a fetch that broke off.",
        "dfly-harness image fetch 6.4.2",
    )
    _add_release_options(parser)
    parser.set_defaults(action=_fetch)

    parser = add_command(
        actions,
        "build",
        "Install a release unattended, prove that it works and seal it; fetches its CD first.",
        "dfly-harness image build 6.4.2",
    )
    _add_release_options(parser)
    parser.add_argument(
        "--name", metavar="NAME", help="what to call the image (default: the release; of a rolling one with its date)"
    )
    parser.add_argument("--filesystem", choices=("ufs", "hammer2"), default="ufs", help="root file system")
    parser.add_argument("--disk-size", type=int, default=16384, metavar="MiB", help="size of its disk (default: 16384)")
    parser.add_argument("--memory", type=int, metavar="MiB", help="memory while installing (default: the manifest's)")
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="CPUs while installing (default: 1)")
    ACCELERATOR.declare(parser.add_argument)
    parser.set_defaults(action=_build)

    parser = add_command(
        actions,
        "import",
        "Seal a disk with a DragonFly system in the store: raw, qcow2, vmdk, or a Vagrant box.",
        "dfly-harness image import base --disk disk.img --root ufs:vbd0 --ssh-key id_ed25519",
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--disk", type=input_file, required=True, metavar="FILE", help="disk image or Vagrant box")
    parser.add_argument("--root", metavar="FS:DEV", help="root file system (default: ufs:vbd0, or what is found)")
    parser.add_argument("--ssh-key", type=input_file, metavar="FILE", help="private key that logs in")
    parser.add_argument("--password", metavar="TEXT", help="password that logs in, until our key is in ('-': ask)")
    parser.add_argument("--user", default="root", help="user to log in as (default: root)")
    parser.add_argument("--check", action="store_true", help="boot it, put our own key in, and prove that it works")
    parser.add_argument(
        "--disk-model",
        choices=[model.value for model in DiskModel],
        default=DiskModel.VIRTIO.value,
        help="how its disk was attached when it was made (default: virtio)",
    )
    parser.add_argument("--kernel", metavar="NAME", help="kernel in the store to boot it with (default: its own)")
    parser.add_argument("--memory", type=int, default=1024, metavar="MiB", help="memory for --check (default: 1024)")
    ACCELERATOR.declare(parser.add_argument)
    parser.set_defaults(action=_import)

    parser = add_command(
        actions,
        "warm",
        "Boot a target once and save its warm state, which every run resumes from.",
        "dfly-harness image warm --image 6.4.2 --kernel stock",
    )
    TargetOptions.declare(parser.add_argument)
    parser.set_defaults(action=_warm)


def _add_release_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "release", metavar="RELEASE", help="a known release (RELEASE-DATE: that edition), or FILE.toml: your own"
    )
    parser.add_argument(
        "--from", dest="given", type=input_file, metavar="FILE", help="the CD's file, fetched otherwise"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _releases(options: argparse.Namespace) -> int:
    listed: list[dict[str, Any]] = []
    for release in known_releases():
        manifest = load_manifest(release)
        medium = choose_medium(manifest)
        listed.append(
            {
                "release": release,
                "date": manifest.released or ("rolling" if manifest.rolling else ""),
                "file": medium.file,
                "checksum_stated_by": [checksum.stated_by for checksum in medium.checksums],
            }
        )
    if options.json:
        print_json(listed)
        return ExitCode.PASSED
    rows = [
        (each["release"], each["date"], each["file"],
         "; ".join(each["checksum_stated_by"]) or "nobody: pinned on first use")
        for each in listed
    ]  # fmt: skip
    print_table(make_output(), ("RELEASE", "DATE", "FETCHED AS", "CHECKSUM STATED BY"), rows)
    return ExitCode.PASSED


def _fetched(manifest: Manifest, store: Store, given: Path | None) -> InstallationMedium:
    console = make_console()
    with transfer_display(f"fetch {manifest.release}", console) as transfer:
        return fetch_medium(
            manifest,
            store,
            transfer=transfer,
            say=lambda line: console.print(line, style="bold", markup=False, soft_wrap=True),
            given=given,
        )


def _fetch(options: argparse.Namespace) -> int:
    manifest = load_manifest(options.release)
    medium = _fetched(manifest, Store(), options.given)
    make_output().print(
        f"{medium.file}: in the store as {medium.name}; {medium.verified}", markup=False, soft_wrap=True
    )
    return ExitCode.PASSED


def _build(options: argparse.Namespace) -> int:
    manifest, store = load_manifest(options.release), Store()
    if options.disk_size < 64 or options.cpus < 1 or (options.memory is not None and options.memory < 256):
        raise UsageError("an install needs a disk of 64 MiB, 256 MiB of memory and one CPU at least")
    medium = _fetched(manifest, store, options.given)
    wanted = BuildOptions(
        options.name or medium.name,
        options.filesystem,
        options.disk_size,
        options.memory,
        options.cpus,
        chosen_accelerator(options.accelerator),
    )
    with progress_display(f"image {wanted.name}") as progress:
        image = build_image(manifest, medium, store, wanted, progress)
    _show(image)
    return ExitCode.PASSED


def _show(image: BaseImage) -> None:
    about = f"image {image.name}: {image.filesystem}, root {image.root}, login {image.user}"
    if version := image.recipe.get("kernel"):
        about += f"; {version}; no password login"
    make_output().print(about, markup=False, soft_wrap=True)


def _import(options: argparse.Namespace) -> int:
    store = Store()
    if options.ssh_key is not None:
        load_private_key(options.ssh_key)
    foreign = options.disk.suffix in _FOREIGN_SUFFIXES or is_box(options.disk)
    if options.password is None and not options.check and not foreign and options.kernel is None:
        if options.ssh_key is None:
            raise UsageError("say how to log in: --ssh-key FILE or --password")
        with progress_display(f"image {options.name}") as progress:
            progress("sealing the disk")
            wanted = BaseImage(
                options.name,
                disk="",
                ssh_key="",
                root=options.root or "ufs:vbd0",
                user=options.user,
                imported=_now(),
                disk_model=options.disk_model,
            )
            image = import_image(store, wanted, options.disk, options.ssh_key)
        _show(image)
        return ExitCode.PASSED
    described = Foreign(
        options.name,
        options.disk,
        user=options.user,
        ssh_key=options.ssh_key,
        password=_password(options.password),
        disk_model=DiskModel(options.disk_model),
        root=options.root or "",
        kernel=store.get(Kernel, options.kernel) if options.kernel is not None else None,
        memory=options.memory,
        accelerator=chosen_accelerator(options.accelerator),
    )
    with progress_display(f"image {options.name}") as progress:
        image = adopt_image(described, store, progress)
    _show(image)
    return ExitCode.PASSED


def _password(given: str | None) -> str | None:
    if given != "-":
        return given
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    return getpass.getpass("password of the image: ")


def _warm(options: argparse.Namespace) -> int:
    store, given = Store(), TargetOptions.read(options)
    with progress_display("warm state") as progress:
        target = resolve_target(given.choice, store, progress)
        snapshot = Warmth(target, store, given.size).snapshot(progress)
    took = f"booted in {snapshot.boot_seconds:.1f} s, resumes in {snapshot.resume_seconds:.2f} s"
    make_output().print(f"{target.label}: warm, {took}", markup=False, soft_wrap=True)
    return ExitCode.PASSED
