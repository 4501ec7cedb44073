"""Options that several commands share."""

from __future__ import annotations

import argparse
from dataclasses import replace

from harness.errors import UsageError
from harness.guests.guest import MachineSize
from harness.guests.targets import TargetChoice
from harness.machine.accel import choose_accelerator
from harness.machine.description import Accelerator
from harness.store import Store


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str, example: str
) -> argparse.ArgumentParser:
    """Add a command with its summary and an example to its --help."""
    return commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose image, kernel and machine."""
    parser.add_argument("--image", metavar="NAME", help="base image in the store (default: the one imported last)")
    parser.add_argument(
        "--kernel",
        metavar="NAME",
        help="kernel in the store (default: the one imported last; 'installed': the image's own, by its own loader)",
    )
    parser.add_argument("--control", action="store_true", help="use the Linux control guest: CONTROL, NOT DRAGONFLY")
    parser.add_argument(
        "--kenv",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="set a variable in the kernel's environment (repeatable)",
    )
    parser.add_argument("--memory", metavar="MiB", type=int, default=512, help="memory of the machine (default: 512)")
    parser.add_argument("--cpus", metavar="N", type=int, default=1, help="CPUs of the machine (default: 1)")
    add_accelerator_option(parser)
    parser.add_argument(
        "--ssh-port", metavar="PORT", type=int, default=0, help="port on 127.0.0.1 for SSH (default: any free one)"
    )


def add_accelerator_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that says what QEMU runs guests with."""
    parser.add_argument(
        "--accelerator",
        choices=[each.value for each in Accelerator],
        help="what QEMU runs guests with (default: what is fastest here; `doctor` shows the figures)",
    )


def chosen_accelerator(options: argparse.Namespace) -> Accelerator | None:
    """Return the accelerator asked for, or None."""
    return Accelerator(options.accelerator) if options.accelerator is not None else None


def decided(size: MachineSize, store: Store) -> MachineSize:
    """Return SIZE with its accelerator decided, for a command whose runs are all to have the same."""
    return size if size.accelerator is not None else replace(size, accelerator=choose_accelerator(store).accelerator)


def chosen_target(options: argparse.Namespace) -> TargetChoice:
    """Return what the options say about the target."""
    environment = {}
    for setting in options.kenv:
        name, equals, value = setting.partition("=")
        if not (name and equals):
            raise UsageError(f"--kenv {setting!r}: write NAME=VALUE")
        environment[name] = value
    return TargetChoice(options.image, options.kernel, options.control, environment)


def target_arguments(options: argparse.Namespace) -> list[str]:
    """Return the options of add_target_options() as another command line takes them."""
    given = [f"--memory={options.memory}", f"--cpus={options.cpus}", f"--ssh-port={options.ssh_port}"]
    given += [f"--kenv={setting}" for setting in options.kenv]
    given += [f"--{name}={value}" for name in ("image", "kernel") if (value := getattr(options, name)) is not None]
    return [*given, "--control"] if options.control else given


def chosen_size(options: argparse.Namespace) -> MachineSize:
    """Return what the options say about the machine; raises UsageError for sizes that cannot be."""
    if options.memory < 128 or options.cpus < 1:
        raise UsageError("a machine needs at least 128 MiB and one CPU")
    if not 0 <= options.ssh_port <= 65535:
        raise UsageError(f"{options.ssh_port} is no port number")
    return MachineSize(options.memory, options.cpus, options.ssh_port, chosen_accelerator(options))
