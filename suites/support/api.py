# SPDX-License-Identifier: BSD-2-Clause
"""The page on what a test has: fixtures, and what their objects can do, made from signatures and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum, Flag

import harness.processes as vocabulary
from harness.guests.guest import Guest
from harness.guests.ssh import SshConnection
from harness.guests.whitebox import Whitebox
from harness.plugin import fixtures
from harness.processes.allocator import PidAllocator
from harness.processes.connection import Pending
from harness.processes.hub import Hub
from harness.processes.remote import RemoteProcess
from harness.processes.session import Session
from harness.processes.sysctl import Sysctl

_HEAD = """\
# What a test has

Made by `python suites/support/pages.py api` from signatures and docstrings; do not edit.  `help(RemoteProcess)` in
Python says the same, and editors show it.  [Write a test](write-a-test.md) says how it is used.

A call that fails raises `OSError` with the guest's errno (`with fails(EPERM):` expects that); one whose process is gone
`ProcessGone`, one that is not answered in time `DeadlineError`, which says what was awaited.
"""
#: Where an object comes from, and what it is.
_OBJECTS = (
    ("init", "A process: `init`, `init.fork()`, `hub.spawn()`", RemoteProcess),
    ("start", "A call under way: `init.start.wait4()`", Pending),
    ("sysctl", "System variables as a process sees them: `init.sysctl`", Sysctl),
    ("allocator", "The pid allocator: `allocator`", PidAllocator),
    ("kernel", "The kernel, looked into: `kernel`", Whitebox),
    ("hub", "The hub: `hub`", Hub),
    ("guest", "The machine: `guest`", Guest),
    ("ssh", "Commands and files: `guest.ssh`", SshConnection),
    ("fresh_guest", "A machine of a test's own: `fresh_guest`", Session),
)


def make() -> str:
    """Return the page."""
    parts = [_HEAD, "## Fixtures\n", "| fixture | is |\n|---|---|"]
    parts += [f"| `{name}` | {_cell(about)} |" for name, about in sorted(_fixtures())]
    for _, title, kind in _OBJECTS:
        parts += ["", f"## {title}\n", _first(inspect.getdoc(kind)), "", "| | |\n|---|---|", *_members(kind)]
    parts += ["", "## Words: `from harness.processes import ...`\n", "| | |\n|---|---|", *_words()]
    return "\n".join(parts) + "\n"


def _fixtures() -> Iterator[tuple[str, str]]:
    for name, given in vars(fixtures).items():
        function = getattr(given, "_fixture_function", None) or getattr(given, "__wrapped__", None)
        if function is not None and type(given).__name__ == "FixtureFunctionDefinition":
            yield name, inspect.getdoc(function) or ""


def _members(kind: type) -> Iterator[str]:
    for name, member in sorted(inspect.getmembers(kind)):
        text = inspect.getdoc(member)
        own = any(name in vars(base) and base.__module__.startswith("harness.") for base in kind.__mro__)
        if name.startswith("_") or not own or not text:
            continue
        shown = f"{name}{_signature(member)}" if callable(member) else name
        yield f"| `{_code(shown)}` | {_cell(_first(text))} |"


def _words() -> Iterator[str]:
    for name in sorted(vocabulary.__all__):
        word = getattr(vocabulary, name)
        if inspect.isclass(word) or inspect.isfunction(word):
            shown = f"{name}{_signature(word)}" if inspect.isfunction(word) else name
            yield f"| `{_code(shown)}` | {_cell(_first(inspect.getdoc(word)))} |"


def _signature(member: object) -> str:
    """Return how it is called, without self and with types as they are written."""
    signature = inspect.signature(member)  # type: ignore[arg-type]
    parameters = [each for each in signature.parameters.values() if each.name not in {"self", "cls"}]
    # How a default looks differs by the version of Python where it is an enumeration's.
    shown = ", ".join(
        ("*" if each.kind is each.VAR_POSITIONAL else "")
        + each.name
        + (f": {each.annotation}" if isinstance(each.annotation, str) else "")
        + (f" = {_default(each.default)}" if each.default is not each.empty else "")
        for each in parameters
    )
    returns = f" -> {signature.return_annotation}" if isinstance(signature.return_annotation, str) else ""
    return f"({shown}){returns}"


def _default(value: object) -> str:
    if isinstance(value, Enum) and not isinstance(value, Flag):
        return str(value.name)
    if callable(value):
        return "..."
    return str(int(value)) if isinstance(value, int) and not isinstance(value, bool) else repr(value)


def _first(text: str | None) -> str:
    """Return the first paragraph."""
    return " ".join((text or "").partition("\n\n")[0].split())


def _cell(text: str) -> str:
    return re.sub(r"(?<!`)([<>*_|])", r"\\\1", " ".join(text.split())) if "`" not in text else text.replace("|", "\\|")


def _code(text: str) -> str:
    return text.replace("|", "\\|")
