# SPDX-License-Identifier: BSD-2-Clause
"""From sources to a kernel: `kernel build`, and the options by which `run` does the same."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

from harness.cli.options import add_command
from harness.errors import ExitCode, UsageError
from harness.guests.builder import GuestBuilder
from harness.guests.guest import BOOT_DEADLINE, MachineSize
from harness.guests.installed import KernelInstallation
from harness.guests.options import ACCELERATOR, chosen_accelerator
from harness.images.base import BaseImage
from harness.kernels.artefact import Kernel, require_free_name
from harness.kernels.build import DEFAULT_CONFIG, Builder, CommandBuilder, build_kernel, name_build
from harness.kernels.patch import apply_patches
from harness.kernels.source import open_source
from harness.machine.description import Accelerator
from harness.report.terminal import make_console, make_output, progress_display
from harness.store import Store


def add_build_command(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add build to the actions of kernel."""
    parser = add_command(
        actions,
        "build",
        "Build a kernel from sources, with patches, unless the same was built before.",
        "dfly-harness kernel build fixed --source ~/dragonfly --rev v4.8.0 --patch fix.patch",
    )
    parser.add_argument("name", metavar="NAME")
    add_source_options(parser, required=True)
    ACCELERATOR.declare(parser.add_argument)
    parser.set_defaults(action=_build)
    parser = add_command(
        actions,
        "install",
        "Make an image with a kernel in /boot; `run --image IMAGE --kernel installed` boots it by its own loader.",
        "dfly-harness kernel install fixed --image base",
    )
    parser.add_argument("name", metavar="KERNEL", help="kernel in the store")
    parser.add_argument("--image", metavar="NAME", help="image to install it on (default: the one imported last)")
    parser.add_argument("--as", dest="new_image", metavar="NAME", help="the new image (default: IMAGE+KERNEL)")
    ACCELERATOR.declare(parser.add_argument)
    parser.add_argument("--timeout", type=float, default=BOOT_DEADLINE, metavar="S", help="for it to answer over SSH")
    parser.set_defaults(action=_install)


def add_source_options(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Add the options that say what to build and how."""
    group = parser.add_argument_group("building a kernel")
    group.add_argument(
        "--source",
        type=Path,
        required=required,
        metavar="TREE",
        help="DragonFly sources: a folder, a git repository (with --rev), or an archive such as src-sys.tar.bz2",
    )
    group.add_argument("--rev", metavar="REV", help="revision of the repository TREE")
    group.add_argument(
        "--patch",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a diff to apply to a copy of the sources, or a whole kern_proc.c (repeatable)",
    )
    group.add_argument("--config", default=DEFAULT_CONFIG, help=f"kernel configuration (default: {DEFAULT_CONFIG})")
    group.add_argument(
        "--command",
        dest="build_command",
        metavar="'CMD {source} {output}'",
        help="build on this host with a command of yours (default: in a DragonFly guest)",
    )
    group.add_argument("--builder-image", metavar="NAME", help="image to build in (default: --image's, or the newest)")
    group.add_argument("--builder-kernel", metavar="NAME", help="kernel to build under (default: the image's own)")
    group.add_argument("--with-modules", action="store_true", help="build the kernel's modules, too (in a guest)")
    group.add_argument("--retry", action="store_true", help="build again what failed to build before")


def kernel_from_source(options: argparse.Namespace, store: Store, name: str | None = None) -> Kernel:
    """Return the kernel that the options of add_source_options() describe, built if need be.

    Raises UsageError when the sources or a patch are not what they should be, BuildFailedError when it does not build.
    """
    if options.source is None:
        raise UsageError("--rev, --patch and --command say how to build: give the sources, too (--source TREE)")
    if name is not None:
        require_free_name(store, name)
    with progress_display("kernel") as progress:
        progress(f"reading the sources in {options.source}")
        source = open_source(store, options.source, options.rev)
        source = apply_patches(source, options.patch)
        build = build_kernel(
            store,
            source,
            chosen_builder(options, store),
            config=options.config,
            retry=options.retry,
            progress=progress,
        )
    imported = datetime.now(UTC).isoformat(timespec="seconds") if name is not None else ""
    return name_build(store, build, name, imported)


def wants_source(options: argparse.Namespace) -> bool:
    """Tell whether any option about building was given."""
    return bool(options.source or options.rev or options.patch or options.build_command)


def source_arguments(options: argparse.Namespace) -> list[str]:
    """Return the options of add_source_options() as another command line takes them."""
    named = {
        "source": options.source,
        "rev": options.rev,
        "config": options.config,
        "command": options.build_command,
        "builder-image": options.builder_image,
        "builder-kernel": options.builder_kernel,
    }
    given = [f"--{name}={value}" for name, value in named.items() if value is not None]
    given += [f"--patch={file}" for file in options.patch]
    return [*given, "--with-modules"] if options.with_modules else given


def chosen_builder(options: argparse.Namespace, store: Store) -> Builder:
    """Return the builder that the options mean; raises UsageError when the store lacks what it needs."""
    image = options.builder_image or getattr(options, "image", None)
    return make_builder(
        store,
        options.build_command,
        image,
        options.builder_kernel,
        chosen_accelerator(options.accelerator),
        modules=options.with_modules,
    )


def make_builder(
    store: Store,
    command: str | None,
    image: str | None,
    kernel: str | None,
    accelerator: Accelerator | None,
    *,
    modules: bool = False,
) -> Builder:
    """Return what builds by COMMAND on this host, else in a guest of IMAGE (default: the newest) under KERNEL.

    Raises UsageError when the store lacks what it needs.
    """
    if command:
        return CommandBuilder(command)
    if not store.all(BaseImage):
        raise UsageError(
            "a kernel is built in a DragonFly guest, and the store has no image: import one, or build on this host"
            " with --command 'CMD {source} {output}'"
        )
    found = store.get(Kernel, kernel) if kernel else None
    return GuestBuilder(store, _image(store, image), kernel=found, modules=modules, accelerator=accelerator)


def _image(store: Store, name: str | None) -> BaseImage:
    images = store.all(BaseImage)
    if name is None and not images:
        raise UsageError("the store has no image: dfly-harness image import NAME --disk FILE --ssh-key FILE")
    return store.get(BaseImage, name) if name else max(images, key=lambda image: image.imported)


def _install(options: argparse.Namespace) -> int:
    store = Store()
    kernel, image = store.get(Kernel, options.name), _image(store, options.image)
    name = options.new_image or f"{image.name}+{kernel.name}"
    with progress_display(f"image {name}") as progress:
        size = MachineSize(accelerator=chosen_accelerator(options.accelerator))
        made = KernelInstallation(store, image, kernel, size, deadline=options.timeout).make(
            name, progress, image.imported
        )
    make_output().print(f"image {made.name}: {made.source}", markup=False, soft_wrap=True)
    return ExitCode.PASSED


def _build(options: argparse.Namespace) -> int:
    record = kernel_from_source(options, Store(), options.name)
    make_console().print(record.source, markup=False, soft_wrap=True)
    make_output().print(f"kernel {record.name}: {record.version}", markup=False, soft_wrap=True)
    return ExitCode.PASSED
