"""Wrong oracles: each breaks exactly one promise, so that a suite can prove that it would notice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from harness.errors import UsageError
from harness.oracle.rules import Rules


@dataclass(frozen=True)
class Variant:
    """A wrong oracle: what it does wrong, and which C function would be to blame."""

    name: str
    breaks: str
    function: str
    rules: type[Rules]


_VARIANTS: dict[str, Variant] = {}
VARIANTS: Mapping[str, Variant] = MappingProxyType(_VARIANTS)


def variant(function: str, breaks: str) -> Callable[[type[Rules]], type[Rules]]:
    """Enter a subclass of Rules into VARIANTS, under its docstring-free name in kebab case."""

    def enter(rules: type[Rules]) -> type[Rules]:
        name = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in rules.__name__).strip("-")
        _VARIANTS[name] = Variant(name, breaks, function, rules)
        return rules

    return enter


def rules_of(variant: str | None) -> Rules:
    """Return the rules of a variant, the specification's own for None."""
    if variant is None:
        return Rules()
    if variant not in VARIANTS:
        raise UsageError(f"no variant of the oracle is called {variant}; there are: {', '.join(sorted(VARIANTS))}")
    return VARIANTS[variant].rules()
