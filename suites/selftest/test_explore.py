# SPDX-License-Identifier: BSD-2-Clause
"""Exploring interleavings, as far as no kernel is needed: operations, points, what is kept and what is shown."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from capstone import CS_ARCH_X86, CS_MODE_64, Cs
from testkernel import build_kernel

from harness.cli import main
from harness.errors import ExitCode, UsageError
from harness.explore.campaign import Interleaving, orders, read_trials, spread
from harness.explore.candidates import Candidate, points_of_line, touches_memory
from harness.explore.operations import OPERATIONS, Scene, find_operation
from harness.explore.page import findings_page
from harness.explore.saved import columns, save_test
from harness.explore.trial import Step, Trial, Verdict
from harness.guests.whitebox import Whitebox
from harness.machine.description import MachineDescription
from harness.machine.qemu import Machine
from harness.oracle import make_oracle
from harness.races.points import address_of, addresses_of, name_of, relative_line
from harness.store import Store

FOUND = Trial(
    "exit", "pathname", "exit1+0x1f", Verdict.PANIC, "Fatal trap 12\ntrace", "kern_exit.c:378", seen=2, line="exit1:+91"
)

TWICE = replace(FOUND, then="pfind+0x3", then_line="pfind:+4")


def decoded(code: str) -> bool:
    decoder = Cs(CS_ARCH_X86, CS_MODE_64)
    decoder.detail = True
    (instruction,) = decoder.disasm(bytes.fromhex(code), 0x1000)
    return touches_memory(instruction, data=0x2000)


@pytest.mark.parametrize(
    ("code", "shared"),
    [
        ("488b4730", True),  # mov 0x30(%rdi),%rax
        ("f00fb117", True),  # lock cmpxchg %edx,(%rdi)
        ("488b45f0", False),  # mov -0x10(%rbp),%rax: the thread's own stack
        ("4889d8", False),  # mov %rbx,%rax
        ("488d4730", False),  # lea 0x30(%rdi),%rax: an address only
        ("488b05000f0000", False),  # mov 0xf00(%rip),%rax: a constant
        ("488b05f90f0000", True),  # mov 0xff9(%rip),%rax: a variable
        ("488b04c500200000", True),  # mov 0x2000(,%rax,8),%rax
        ("65488b042508000000", False),  # mov %gs:0x8,%rax: the CPU's own
        ("0f1f4000", False),  # nopl
    ],
)
def test_only_what_others_may_see_is_a_point(code: str, shared: bool) -> None:
    assert decoded(code) is shared


def test_an_operation_there_is_none_of_is_told_with_those_there_are(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "exit", "levitate"]) == ExitCode.USAGE
    assert "there is no operation levitate: " in capfd.readouterr().err


def test_an_operation_of_the_users_own_is_a_function(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def look(who, scene):\n    return who.start.getpgid(scene.target.pid)\nlook.who = 'parent'\n")
    assert find_operation(f"{file}::look").who == "parent"
    with pytest.raises(UsageError, match="has no function other"):
        find_operation(f"{file}::other")
    with pytest.raises(UsageError, match="is no file of Python's"):
        find_operation(f"{tmp_path / 'nothing.py'}::look")


def test_all_operations_are_made_by_somebody_there_is() -> None:
    assert {each.who for each in OPERATIONS.values()} == {"target", "parent", "other"}
    assert all(name == each.name for name, each in OPERATIONS.items())


def test_the_kinds_of_calls_that_races_are_sought_in_are_all_there() -> None:
    wanted = """exit fork vfork execve wait waitid setsid setpgid setuid kill killpg stop attach detach acquire release
        reapkill jail all pid pgrp all-lwp pid-lwp pgrp-lwp args title cwd pathname status map open note tty revoke"""
    assert set(wanted.split()) <= set(OPERATIONS)


def test_what_was_tried_is_read_back_and_what_was_written_by_halves_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "campaign.jsonl"
    assert read_trials(file) == {}
    again = Trial("exit", "pathname", "exit1+0x1f", Verdict.SERIAL)
    file.write_text(FOUND.to_json() + "\n" + again.to_json() + "\n" + FOUND.to_json()[:30])
    assert list(read_trials(file).values()) == [again]


def interleavings(*numbers: int) -> list[Interleaving]:
    operations = find_operation("exit"), find_operation("pathname")
    points = [Candidate(number, f"f+{number:#x}") for number in range(100)]
    if not numbers:
        return [Interleaving(operations, (point,)) for point in points]
    return [Interleaving(operations, (point, other)) for point in points for other in points[: numbers[0]]]


def test_points_are_spread_and_always_the_same() -> None:
    some = interleavings()
    assert spread(some, 10) == spread(some[::-1], 10)
    assert len({each.points[0].address // 50 for each in spread(some, 10)}) == 2
    assert sorted(spread(some, 0), key=lambda each: each.points[0].address) == some


def test_a_few_pairs_of_points_have_many_of_both() -> None:
    chosen = spread(interleavings(100), 50)
    assert len({each.points[0] for each in chosen}) > 25
    assert len({each.points[1] for each in chosen}) > 25


def test_three_operations_are_made_in_all_orders_behind_the_one_that_is_held() -> None:
    three = [find_operation(word) for word in ("exit", "pathname", "kill")]
    assert [[each.name for each in order] for order in orders(three)] == [
        ["exit", "pathname", "kill"],
        ["exit", "kill", "pathname"],
    ]
    assert [len(orders(three[:2]))] == [1]


def test_what_was_tried_is_told_by_operations_and_points() -> None:
    assert FOUND.key == (("exit", "pathname"), ("exit1+0x1f",))
    assert replace(FOUND, third="kill", then="pfind").key == (("exit", "pathname", "kill"), ("exit1+0x1f", "pfind"))
    one = Interleaving((find_operation("exit"), find_operation("pathname")), (Candidate(1, "exit1+0x1f"),))
    assert one.key == FOUND.key


def test_what_comes_to_the_same_is_told_by_operations_and_points() -> None:
    trial = replace(FOUND, covers=("exit1+0x30", "pfind"), passed=("pathname+0x3",))
    assert {points for _, points in trial.alike} == {("exit1+0x1f",), ("exit1+0x30",), ("pfind",)}
    twice = replace(trial, then="pathname+0x3", then_covers=("pathname+0x8",))
    assert len(set(twice.alike)) == 6
    assert (twice.operations, ("pfind", "pathname+0x8")) in set(twice.alike)
    assert Trial.from_json(twice.to_json()) == twice


def test_panics_of_one_fingerprint_have_one_cause() -> None:
    one = replace(FOUND, said="Fatal trap 12\nfingerprint: a<b\ncpuid = 1")
    assert one.cause == replace(one, said="Fatal trap 12\nfingerprint: a<b\ncpuid = 2").cause
    assert one.cause != FOUND.cause == "Fatal trap 12\ntrace"


def test_a_finding_is_shown_as_two_columns() -> None:
    shown = columns(FOUND)
    assert "panic: exit at exit1+0x1f (kern_exit.c:378), meanwhile pathname; seen 2 times" in shown
    rows = [line.split("|") for line in shown.splitlines() if "|" in line]
    assert [bool(left.strip()) for left, _ in rows] == [True, True, False, True]
    assert "stands at exit1+0x1f (kern_exit.c:378)" in shown
    assert "Fatal trap 12" in shown
    assert "the same at 2 other points: f+0x1, g" in columns(FOUND, ["f+0x1", "g"])


def test_of_two_preemptions_it_is_shown_who_stands_where() -> None:
    shown = columns(TWICE)
    assert "panic: exit at exit1+0x1f (kern_exit.c:378), then pathname at pfind+0x3, meanwhile exit" in shown
    rows = [line.split("|") for line in shown.splitlines() if "|" in line]
    assert [number for row in rows for number, cell in enumerate(row) if cell.strip()] == [0, 0, 1, 1, 0, 1]
    assert "stands at pfind+0x3" in shown


STEPS = (
    Step(0, "begins: exit(3)", 0.0),
    Step(0, "stands at exit1+0x1f", 0.012, ("exit1+0x1f  kern_exit.c:378", "sys_exit+0x9  kern_exit.c:120")),
    Step(1, "begins: kern.proc.pathname <target>", 0.02),
    Step(1, "it waits for the token proc, which whoever stands at exit1+0x1f has", 0.1),
    Step(0, "goes on", 0.11),
)


def test_what_was_noted_while_it_happened_is_shown_in_that_order(tmp_path: Path) -> None:
    trial = replace(FOUND, steps=STEPS)
    assert Trial.from_json(trial.to_json()) == trial
    rows = [line.split("|") for line in columns(trial).splitlines() if "|" in line]
    assert "in sys_exit+0x9" in " ".join(" ".join(left.split()) for left, _ in rows)
    assert "it waits for the token proc" in " ".join(" ".join(right.split()) for _, right in rows)


def test_a_page_has_a_column_for_each_operation_and_a_row_for_each_step() -> None:
    trial = replace(FOUND, steps=STEPS, said="Fatal <trap> 12")
    text = findings_page("exit pathname", "DragonFly v0", [[trial, replace(trial, point="pfind")]], ["1 panic"])
    rows = re.findall(r"<tr>(.*?)</tr>", text)
    assert len(rows) == 1 + len(STEPS)
    filled = [[bool(cell) for cell in re.findall(r"<td>(.*?)</td>", row)][1:] for row in rows[1:]]
    assert filled == [[True, False], [True, False], [False, True], [False, True], [True, False]]
    assert "kern_<wbr>exit.c:378" in text
    assert "Fatal &lt;trap&gt; 12" in text
    assert "The same at 1 other points: pfind" in text
    assert "speaks against" not in text
    assert "No interleaving that was tried speaks against" in findings_page("exit pathname", "", [], [])


def test_of_three_operations_each_has_a_column() -> None:
    rows = [line.split("|") for line in columns(replace(TWICE, third="kill")).splitlines() if "|" in line]
    assert [number for row in rows for number, cell in enumerate(row) if cell.strip()] == [0, 0, 1, 1, 2, 0, 1]


def test_a_finding_is_saved_as_a_test(tmp_path: Path) -> None:
    file = save_test(FOUND, tmp_path / "races")
    text = file.read_text()
    compile(text, str(file), "exec")
    assert "at='exit1+0x1f'" in text
    assert "line='exit1:+91'" in text
    assert "then" not in text.replace("expect_serial", "")
    assert "def test_exit_at_exit1_0x1f_and_pathname(fresh_guest)" in text


def test_a_finding_of_two_preemptions_is_saved_with_both_points(tmp_path: Path) -> None:
    text = save_test(replace(TWICE, third="kill"), tmp_path).read_text()
    compile(text, "saved", "exec")
    assert "explore exit pathname kill --bound 2" in text
    assert "@pytest.mark.cpus(5)" in text
    assert "'exit',\n        'pathname',\n        'kill',\n        at='exit1+0x1f'" in text
    assert "then='pfind+0x3'" in text
    assert "then_line='pfind:+4'" in text
    assert "def test_exit_at_exit1_0x1f_and_pathname_at_pfind_0x3_and_kill(fresh_guest)" in text


def test_a_scene_names_who_is_in_it() -> None:
    scene = Scene.set(make_oracle().spawn())  # type: ignore[arg-type]  # which is driven in the same way
    other = scene.actor("other")
    said = scene.named(f"{scene.target.pid} of {scene.parent.pid}, {other.pid}, 99999")
    assert said == "target of parent, actor0, 99999"
    assert "target alive of parent, group target, session init, uid 0" in scene.state()


def test_points_have_names(tmp_path: Path) -> None:
    kernel = build_kernel(tmp_path, "-gdwarf-4", program="looping.c")
    box = Whitebox(Machine(MachineDescription(), Store(tmp_path / "store")), kernel, kernel)
    point = box.address("point")
    assert address_of(box, "point") == address_of(box, hex(point)) == address_of(box, point) == point
    assert address_of(box, "point+0x3") == address_of(box, "point+3") == point + 3
    assert name_of(box, point) == "point"
    assert name_of(box, point + 3) == "point+0x3"
    assert name_of(box, 16) == "0x10"
    lines = (Path(__file__).parent / "testkernel" / "looping.c").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "turns++" in text)
    assert name_of(box, address_of(box, f"looping.c:{line}")).startswith("point")
    relative = relative_line(box, address_of(box, f"looping.c:{line}"))
    assert relative == "point:+2"
    assert address_of(box, relative) == address_of(box, f"looping.c:{line}")
    assert all(name.startswith("point") for name in points_of_line(box, relative))
    # A function that was inlined has no address of its own, and a line several beginnings.
    pieces = addresses_of(box, "looping.c:inlined_twice:+2")
    assert len(pieces) == 2
    assert [relative_line(box, each) for each in pieces] == ["looping.c:inlined_twice:+2"] * 2
    assert all(name.startswith("kernel_main+") for name in points_of_line(box, "looping.c:inlined_twice:+2"))
    for wrong, said in {
        "point:+50": "became no code",
        "looping.c:nobody:+1": "where nobody begins is not known",
        "nothing": "no symbol nothing",
        "looping.c:1": "became no code",
        "0xzz": "is no address",
        "a b": "is no point",
    }.items():
        with pytest.raises(UsageError, match=said):
            address_of(box, wrong)
