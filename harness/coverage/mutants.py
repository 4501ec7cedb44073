# SPDX-License-Identifier: BSD-2-Clause
"""Small faults in C, one at a time: found in the syntax tree, so that what is changed is code, and stays C.

What stops a broken kernel (KKASSERT, panic) and what only talks (kprintf) is left as it is: a fault there says nothing
about the tests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import tree_sitter_c
from tree_sitter import Language, Node, Parser

_LANGUAGE = Language(tree_sitter_c.language())

#: What takes an operator's place.
_OTHERS = {
    "==": ("!=",),
    "!=": ("==",),
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "&&": ("||",),
    "||": ("&&",),
    "+": ("-",),
    "-": ("+",),
    "&": ("|",),
    "|": ("&",),
    "<<": (">>",),
    ">>": ("<<",),
    "+=": ("-=",),
    "-=": ("+=",),
    "|=": ("&=",),
    "&=": ("|=",),
    "++": ("--",),
    "--": ("++",),
}
_UNTOUCHED = frozenset(
    "KASSERT KKASSERT panic kprintf kvprintf ksnprintf log db_printf CTASSERT SYSINIT SYSCTL_NODE MALLOC_DEFINE "
    "KTR_INFO logprintf sizeof offsetof __offsetof __containerof".split()
)
_STATEMENTS = frozenset({"expression_statement", "continue_statement", "break_statement", "goto_statement"})


@dataclass(frozen=True)
class Mutant:
    """One fault: bytes `begin` to `end` of the file become `text`.  `what` says it in words."""

    file: str
    function: str
    line: int
    begin: int
    end: int
    text: str
    what: str
    of: str = ""

    @property
    def name(self) -> str:
        """Names it as long as its function does not change: a short digest of place and change."""
        said = f"{self.file} {self.function} {self.what} {self.of}"
        return hashlib.sha256(said.encode()).hexdigest()[:12]

    def apply(self, source: bytes) -> bytes:
        """Return SOURCE with the fault."""
        return source[: self.begin] + self.text.encode() + source[self.end :]


@dataclass(frozen=True)
class Function:
    """A function of a source file: its name, and its first and last line."""

    name: str
    first: int
    last: int


def functions_in(source: bytes) -> list[Function]:
    """Return the functions that SOURCE, a file in C, defines, in its order."""
    return [
        Function(name, node.start_point[0] + 1, node.end_point[0] + 1)
        for node in _walk(Parser(_LANGUAGE).parse(source).root_node)
        if node.type == "function_definition" and (name := _name_of(node))
    ]


def mutants_of(file: str, source: bytes) -> list[Mutant]:
    """Return all faults that can be made in SOURCE, the content of FILE, in its order."""
    found: list[Mutant] = []
    counts: dict[tuple[str, str], int] = {}
    for definition in _walk(Parser(_LANGUAGE).parse(source).root_node):
        if definition.type != "function_definition" or not (name := _name_of(definition)):
            continue
        body = definition.child_by_field_name("body")
        for node in _walk(body, _is_untouched) if body is not None else ():
            for begin, end, text, what in _faults(node):
                # Several of the same in one function are told apart by their order.
                number = counts[name, what] = counts.get((name, what), 0) + 1
                line = source.count(b"\n", 0, begin) + 1
                found.append(Mutant(file, name, line, begin, end, text, what, str(number)))
    return found


def _walk(node: Node, leave: object = None) -> Iterator[Node]:
    yield node
    for child in node.children:
        if not (callable(leave) and leave(child)):
            yield from _walk(child, leave)


def _name_of(definition: Node) -> str:
    place = definition.child_by_field_name("declarator")
    while place is not None and place.type != "identifier":
        place = place.child_by_field_name("declarator")
    return _text(place) if place is not None else ""


def _text(node: Node) -> str:
    return (node.text or b"").decode(errors="replace")


def _is_untouched(node: Node) -> bool:
    """Whether nothing in NODE is code that a fault can be seen in."""
    if node.type.startswith("preproc") and node.type not in {"preproc_if", "preproc_ifdef", "preproc_else"}:
        return True
    if node.has_error and node.type == "ERROR":
        return True
    called = node.child_by_field_name("function") if node.type == "call_expression" else None
    return node.type in {"sizeof_expression", "offsetof_expression"} or (
        called is not None and _text(called) in _UNTOUCHED
    )


def _faults(node: Node) -> Iterator[tuple[int, int, str, str]]:
    yield from _operators(node)
    if node.type in {"if_statement", "conditional_expression"}:
        condition = node.child_by_field_name("condition")
        if condition is not None:
            yield condition.start_byte, condition.end_byte, f"(!({_text(condition)}))", "a condition is negated"
    elif node.type == "number_literal":
        yield from _numbers(node)
    elif node.type in _STATEMENTS and not _is_hollow(node):
        yield node.start_byte, node.end_byte, ";", f"{_kind(node)} is left out"
    elif node.type == "return_statement" and len(node.named_children) == 1:
        yield from _returns(node.named_children[0])


def _operators(node: Node) -> Iterator[tuple[int, int, str, str]]:
    if node.type not in {"binary_expression", "assignment_expression", "update_expression"}:
        return
    operator = node.child_by_field_name("operator")
    if operator is not None:
        for other in _OTHERS.get(_text(operator), ()):
            yield operator.start_byte, operator.end_byte, other, f"`{_text(operator)}` becomes `{other}`"


def _numbers(node: Node) -> Iterator[tuple[int, int, str, str]]:
    text = _text(node)
    if text.isdigit():
        other = str(int(text) + 1) if text != "1" else "0"
        yield node.start_byte, node.end_byte, other, f"`{text}` becomes `{other}`"


def _is_hollow(node: Node) -> bool:
    """Whether NODE is a statement that does nothing, or one that must stay as it is."""
    inner = node.named_children[0] if node.named_children else None
    is_macro = not _text(node).endswith(";")  # a loop of <sys/queue.h>: what follows is its body
    return node.type == "expression_statement" and (inner is None or is_macro or _is_untouched(inner))


def _kind(node: Node) -> str:
    inner = node.named_children[0] if node.named_children else None
    if inner is not None and inner.type == "call_expression":
        called = inner.child_by_field_name("function")
        return f"the call of {_text(called)}" if called is not None else "a call"
    if inner is not None and inner.type == "assignment_expression":
        left = inner.child_by_field_name("left")
        return f"the assignment to {_text(left)}" if left is not None else "an assignment"
    return f"a {node.type.removesuffix('_statement').replace('expression', 'statement')}"


def _returns(value: Node) -> Iterator[tuple[int, int, str, str]]:
    text = _text(value).strip("()")
    for other in ("0", "1"):
        same = text in ({"0", "NULL", "false"} if other == "0" else {"1", "true"})
        pointer = text == "NULL"  # of which no number is a value
        if not same and not pointer and not (other == "1" and not text.isdigit() and text != "error"):
            yield value.start_byte, value.end_byte, f"({other})", f"`return {text}` returns {other}"
