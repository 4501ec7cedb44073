# SPDX-License-Identifier: BSD-2-Clause
"""One declaration for an option, wherever it is given: argparse, pytest, a child's command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: What our options are called in pytest begins with this, so that no other plugin's clash with them.
PYTEST_PREFIX = "dfly-"


@dataclass(frozen=True)
class Option:
    """One option.  A value of `default` says nothing; `repeated` collects values, a `flag` takes none.

    With `bare` the value may be left out and is an empty text then.  Every part of `aliases` is another name.
    """

    name: str
    help: str
    metavar: str | None = None
    kind: Callable[[str], Any] | None = None
    default: Any = None
    choices: tuple[str, ...] = ()
    flag: bool = False
    repeated: bool = False
    bare: bool = False
    aliases: tuple[str, ...] = ()
    attribute: str = ""

    @property
    def field(self) -> str:
        """The name of the attribute that has its value: `attribute`, or what the option is called."""
        return self.attribute or self.name.replace("-", "_")

    def declare(self, add: Callable[..., object], prefix: str = "") -> None:
        """Hand it to ADD: ArgumentParser.add_argument, or an option group's addoption in pytest."""
        given: dict[str, Any] = {"dest": f"{prefix.replace('-', '_')}{self.field}", "help": self.help}
        if self.flag:
            given |= {"action": "store_true", "default": False}
        else:
            given |= {"metavar": self.metavar, "default": [] if self.repeated else self.default}
            given |= {"action": "append"} if self.repeated else {}
            given |= {"type": _with_reason(self.kind)} if self.kind is not None else {}
            given |= {"choices": self.choices, "metavar": None} if self.choices else {}
            given |= {"nargs": "?", "const": ""} if self.bare else {}
        add(*(f"--{prefix}{name}" for name in (self.name, *self.aliases)), **given)

    def words(self, value: Any, prefix: str = "") -> Iterator[str]:
        """Yield what gives it VALUE on a command line; nothing where that is the default."""
        if self.flag:
            yield from [f"--{prefix}{self.name}"] if value else []
        elif self.repeated:
            yield from (f"--{prefix}{self.name}={each}" for each in value)
        elif value != self.default:
            yield f"--{prefix}{self.name}={value}" if not (self.bare and value == "") else f"--{prefix}{self.name}"


def _with_reason(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return KIND, saying itself why a text is none; argparse has words of its own for types only."""
    if isinstance(kind, type):
        return kind

    def read_text(text: str) -> Any:
        try:
            return kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read_text


def declare(options: Iterable[Option], add: Callable[..., object], prefix: str = "") -> None:
    """Declare all OPTIONS."""
    for option in options:
        option.declare(add, prefix)


def read(options: Iterable[Option], namespace: object, prefix: str = "") -> dict[str, Any]:
    """Return the values that a parser left in NAMESPACE, by field."""
    start = prefix.replace("-", "_")
    return {option.field: getattr(namespace, f"{start}{option.field}") for option in options}


def words(options: Iterable[Option], values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the command line that gives all OPTIONS their VALUES again."""
    return [word for option in options for word in option.words(values[option.field], prefix)]
