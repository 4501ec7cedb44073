# SPDX-License-Identifier: BSD-2-Clause
"""Commands about what is in the store: image, kernel, store."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from harness.cli.images import add_image_commands
from harness.cli.kernels import add_build_command
from harness.cli.options import add_command, begin_command
from harness.errors import ExitCode
from harness.files import input_file
from harness.guests.features import FEATURES, KernelFacts
from harness.images.base import BaseImage
from harness.images.control import damaged_images, remove_damaged_images
from harness.images.media import InstallationMedium
from harness.kernels.artefact import Kernel, import_kernel
from harness.machine.qemu import QEMU, qemu_version
from harness.processes.session import FORMAT, known_facts
from harness.report.terminal import make_output, print_json, print_table, progress_display
from harness.store import Entry, Store
from harness.toolchain import damaged_programs

_Commands = argparse._SubParsersAction


def add_commands(commands: _Commands[argparse.ArgumentParser]) -> None:
    """Add image, kernel and store."""
    image = begin_command(commands, "image", "dfly-harness image releases")
    actions = image.add_subparsers(dest="image_command", required=True, metavar="ACTION")
    add_image_commands(actions)
    _add_record_commands(actions, BaseImage)

    kernel = begin_command(commands, "kernel", "dfly-harness kernel list")
    actions = kernel.add_subparsers(dest="kernel_command", required=True, metavar="ACTION")
    parser = add_command(
        actions,
        "import",
        "Take a DragonFly x86_64 kernel into the store.",
        "dfly-harness kernel import stock /usr/obj/usr/src/sys/X86_64_GENERIC/kernel.stripped",
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("file", type=input_file, metavar="FILE", help="the kernel, an ELF file")
    parser.add_argument("--debug", type=input_file, metavar="FILE", help="the same kernel with debug information")
    parser.add_argument("--modules", type=Path, metavar="FOLDER", help="its modules, *.ko, for an installed boot")
    parser.set_defaults(action=_kernel_import)
    add_build_command(actions)
    _add_record_commands(actions, Kernel)

    store = begin_command(commands, "store", "dfly-harness store prune")
    actions = store.add_subparsers(dest="store_command", required=True, metavar="ACTION")
    parser = add_command(actions, "path", "Print where the store is.", "dfly-harness store path")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(action=_path)
    parser = add_command(actions, "prune", "Remove what no target needs.", "dfly-harness store prune")
    parser.add_argument("--media", action="store_true", help="also remove the installation CDs that were fetched")
    parser.set_defaults(action=_prune)
    parser.add_argument("--json", action="store_true", help="print what was freed as JSON")
    parser = add_command(actions, "verify", "Recompute every digest.", "dfly-harness store verify")
    parser.add_argument("--json", action="store_true", help="print what is damaged as JSON")
    parser.set_defaults(action=_verify)


def _add_record_commands(actions: _Commands[argparse.ArgumentParser], kind: type[BaseImage] | type[Kernel]) -> None:
    parser = add_command(actions, "list", f"List the {kind.PLURAL}.", f"dfly-harness {kind.KIND} list")
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    parser.set_defaults(action=_list, kind=kind)
    parser = add_command(actions, "show", f"Show one {kind.KIND} as JSON.", f"dfly-harness {kind.KIND} show NAME")
    parser.add_argument("name", metavar="NAME")
    parser.set_defaults(action=_show, kind=kind)
    parser = add_command(actions, "remove", f"Remove one {kind.KIND}.", f"dfly-harness {kind.KIND} remove NAME")
    parser.add_argument("name", metavar="NAME")
    parser.set_defaults(action=_remove, kind=kind)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _kernel_import(options: argparse.Namespace) -> int:
    record = import_kernel(
        Store(), options.name, options.file, debug=options.debug, modules=options.modules, imported=_now()
    )
    make_output().print(f"kernel {record.name}: {record.version}", markup=False, soft_wrap=True)
    return ExitCode.PASSED


def _list(options: argparse.Namespace) -> int:
    kind: type[Entry] = options.kind
    records = Store().all(kind)
    if options.json:
        print_json([asdict(record) for record in records])
        return ExitCode.PASSED
    output = make_output()
    if not records:
        output.print(f"no {kind.PLURAL} in the store; see dfly-harness {kind.KIND} import --help", markup=False)
        return ExitCode.PASSED
    rows = []
    for record in records:
        about = record.version if isinstance(record, Kernel) else ""
        if isinstance(record, BaseImage):
            about = f"{record.filesystem}, root {record.root}, login {record.user}"
        rows.append((record.name, str(getattr(record, "imported", "")), about))
    print_table(output, ("NAME", "IMPORTED", "ABOUT"), rows)
    return ExitCode.PASSED


def _show(options: argparse.Namespace) -> int:
    store = Store()
    record: Entry = store.get(options.kind, options.name)
    about = asdict(record)
    if isinstance(record, Kernel):
        about |= _known(known_facts(store, record.elf, record.osreldate or 0))
    elif isinstance(record, BaseImage):
        about |= _known(_facts_of_installed(record, store))
    print_json(about)
    return ExitCode.PASSED


def _facts_of_installed(image: BaseImage, store: Store) -> KernelFacts:
    if image.installed_kernel:
        kernel = store.get(Kernel, image.installed_kernel)
        return known_facts(store, kernel.elf, kernel.osreldate or 0)
    return KernelFacts(image.own_version[1])


def _known(facts: KernelFacts) -> dict[str, object]:
    """Return which features a kernel has; null where only a look at it would tell, and nobody has looked."""
    return {"record_size": facts.record_size or None, "features": {name: facts.has(name) for name in FEATURES}}


def _remove(options: argparse.Namespace) -> int:
    store = Store()
    store.remove(options.kind, options.name)
    freed = store.prune()
    make_output().print(f"{options.kind.KIND} {options.name} removed, {freed >> 20} MiB freed", markup=False)
    return ExitCode.PASSED


def _path(options: argparse.Namespace) -> int:
    if options.json:
        print_json({"path": str(Store().home)})
    else:
        make_output().print(str(Store().home), markup=False, soft_wrap=True)
    return ExitCode.PASSED


def _prune(options: argparse.Namespace) -> int:
    store = Store()
    if options.media:
        for medium in store.all(InstallationMedium):
            store.remove(InstallationMedium, medium.name)
    version = qemu_version() if shutil.which(QEMU) else None
    freed = store.prune(thorough=True, qemu=version, state_format=FORMAT)
    freed += remove_damaged_images(store.cache)
    for program in damaged_programs(store.cache):
        freed += program.stat().st_size
        program.unlink(missing_ok=True)
    if options.json:
        print_json({"freed": freed})
    else:
        make_output().print(f"{freed >> 20} MiB freed")
    return ExitCode.PASSED


def _verify(options: argparse.Namespace) -> int:
    store = Store()
    with progress_display("store") as progress:
        progress("recomputing every digest")
        blobs, states = store.damaged_blobs(), store.damaged_snapshots()
        cached = [str(path) for path in (*damaged_images(store.cache), *damaged_programs(store.cache))]
    status = ExitCode.HARNESS_FAILED if blobs or states or cached else ExitCode.PASSED
    if options.json:
        print_json({"damaged_blobs": blobs, "damaged_warm_states": states, "damaged_cache": cached})
        return status
    for digest in blobs:
        make_output().print(f"damaged: blob {digest}; import the image or kernel that uses it again", markup=False)
    for name in states:
        make_output().print(f"damaged: warm state {name}; dfly-harness store prune removes it", markup=False)
    for path in cached:
        said = f"damaged: {path}; it is made again when it is needed, dfly-harness store prune removes it"
        make_output().print(said, markup=False, soft_wrap=True)
    if not (blobs or states or cached):
        make_output().print("every blob is what its name says, and what is cached as it was made")
    return status
