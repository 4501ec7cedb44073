# SPDX-License-Identifier: BSD-2-Clause
"""Exploring interleavings, as far as no kernel is needed: operations, points, what is kept and what is shown."""

from __future__ import annotations

import math
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from capstone import CS_ARCH_X86, CS_MODE_64, Cs
from testkernel import build_kernel

from harness.cli import main
from harness.errors import ExitCode, HarnessError, UsageError
from harness.explore.campaign import Interleaving, orders, read_trials, spread, write_extent
from harness.explore.candidates import Candidate, points_of_line, touches_memory
from harness.explore.operations import OPERATIONS, Scene, find_operation
from harness.explore.page import findings_page
from harness.explore.pairs import Breadth, Known, all_pairs
from harness.explore.saved import columns, save_test
from harness.explore.stage import Stage, is_serial
from harness.explore.trial import Step, Trial, Verdict
from harness.guests.whitebox import Whitebox
from harness.machine.description import MachineDescription
from harness.machine.qemu import Machine
from harness.oracle import make_oracle
from harness.processes import RemoteProcess, RemoteThread
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


def test_where_one_waited_nothing_is_said_about_other_points() -> None:
    waited = replace(FOUND, covers=("exit1+0x25",), waited=True)
    assert list(waited.alike) == [waited.key]
    assert len(list(replace(waited, waited=False).alike)) == 2


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


def test_what_ends_the_kernel_one_behind_the_other_is_a_finding_with_no_points(tmp_path: Path) -> None:
    deadly = Trial("exit", "pathname", "", Verdict.PANIC, "Fatal trap 12\ntrace", third="kill")
    assert (deadly.points, deadly.key) == ((), (("exit", "pathname", "kill"), ()))
    assert list(deadly.alike) == [deadly.key]
    assert "exit, then pathname, then kill, one behind the other" in columns(deadly)
    text = save_test(deadly, tmp_path).read_text()
    compile(text, "saved", "exec")
    assert "def test_exit_and_pathname_and_kill(fresh_guest)" in text
    assert "at=" not in text
    assert "one behind the other" in text


def test_whoever_is_killed_in_the_middle_of_his_call_is_not_told_what_it_came_to() -> None:
    serial = ["setuid: done / kill: done / target zombie, uid 1001", "setuid: gone / kill: done / target zombie, uid 0"]
    assert is_serial("setuid: gone / kill: done / target zombie, uid 1001", serial)
    assert is_serial(serial[0], serial)
    assert not is_serial("setuid: done / kill: done / target zombie, uid 0", serial)
    assert not is_serial("setuid: gone / kill: EPERM / target zombie, uid 1001", serial)
    assert not is_serial("setuid: gone / kill: done", serial)
    assert is_serial("setuid: stopped / kill: done / target zombie, uid 1001", serial)
    assert not is_serial("setuid: waits / kill: done / target zombie, uid 1001", serial)


def test_all_pairs_come_once_before_any_comes_the_other_way_round() -> None:
    pairs = all_pairs()
    number = len(OPERATIONS)
    assert len(set(pairs)) == len(pairs) == number * number
    looks = [pair[0].looks and pair[1].looks for pair in pairs]
    assert looks == sorted(looks)
    first = pairs[: looks.index(True)]
    half = len({frozenset(pair) for pair in first})
    assert len({frozenset(pair) for pair in first[:half]}) == half
    exit_ = OPERATIONS["exit"]
    assert {frozenset(pair) for pair in all_pairs([exit_])} == {
        frozenset((exit_, each)) for each in OPERATIONS.values()
    }


def test_what_is_known_of_a_pair_is_told_by_its_points(tmp_path: Path) -> None:
    file = tmp_path / "campaign.jsonl"
    assert not Known.read(file).is_complete
    places = [Candidate(number, f"exit1+{number:#x}") for number in (1, 2, 3)]
    write_extent(file, ("exit", "kill"), places)
    write_extent(file, ("exit", "kill"), places)
    assert len(file.read_text().splitlines()) == 1
    tried = Trial("exit", "kill", "exit1+0x1", Verdict.SERIAL, covers=("exit1+0x2",))
    lost = Trial("exit", "kill", "exit1+0x3", Verdict.LOST)
    with file.open("a") as stream:
        stream.write(f"{tried.to_json()}\n{lost.to_json()}\n")
    known = Known.read(file)
    assert (known.points, known.known, known.is_complete) == (3, 2, False)
    assert str(known) == "2 of 3 points known: 1 serial, 1 lost"
    with file.open("a") as stream:
        stream.write(replace(lost, verdict=Verdict.UNREACHED).to_json() + "\n")
    assert Known.read(file).is_complete


def test_pairs_get_a_little_each_until_all_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known already is not prepared again, and what is lost ends nothing."""
    names = ("getsid", "getpgid", "wait")
    pairs = [(OPERATIONS["exit"], OPERATIONS[name]) for name in names]
    files = {pair: tmp_path / f"{pair[1].name}.jsonl" for pair in pairs}
    turns: list[str] = []

    class Explored:
        """Has five points, of which each try takes one."""

        def __init__(self, *given: Any) -> None:
            self.pair, self.file = given[1:3]

        def prepare(self, *_: Any) -> list[Interleaving]:
            if self.pair[1].name == "wait":
                raise HarnessError("the guest is gone")
            points = [Candidate(number, f"exit1+{number:#x}") for number in range(1, 6)]
            write_extent(self.file, tuple(each.name for each in self.pair), points)
            return [Interleaving(self.pair, (point,)) for point in points]

        def is_covered(self, _: Interleaving) -> bool:
            return False

        def run(self, todo: list[Interleaving], *given: Any) -> list[Trial]:
            done = [Trial("exit", self.pair[1].name, one.points[0].name, Verdict.SERIAL) for one in todo[: given[-1]]]
            turns.append(f"{self.pair[1].name} {len(done)}")
            with self.file.open("a") as stream:
                stream.writelines(trial.to_json() + "\n" for trial in done)
            return done

    monkeypatch.setattr("harness.explore.pairs.Exploration", Explored)
    told: list[str] = []
    ground = SimpleNamespace(stage=nullcontext, stop=None, is_stopped=False)
    breadth = Breadth(cast(Any, ground), files.__getitem__, lambda _: None, told.append, 2)
    breadth.run(pairs, 1, math.inf)
    assert turns == [f"{name} {number}" for number in (2, 2, 1) for name in names[:2]]
    assert breadth.tried == 10
    assert "exit wait: the guest is gone" in told
    assert told[-1] == "exit getpgid: 5 of 5 points known: 5 serial"
    turns.clear()
    breadth.run(pairs, 1, math.inf)
    assert turns == []


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
    (call,) = addresses_of(box, "kernel_main>point")
    assert name_of(box, call).startswith("kernel_main")
    assert box.code(call, 1) == b"\xe8"
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
        "point>kernel_main": "point has no call of kernel_main",
        "0xzz": "is no address",
        "a b": "is no point",
    }.items():
        with pytest.raises(UsageError, match=said):
            address_of(box, wrong)


def test_what_has_become_of_all_is_seen_when_nobody_runs_any_more() -> None:
    """Who was killed ends a moment after the killer's call; a CPU that is about to be woken is idle for an instant."""
    looks = [False, True, False, True, True, False]
    schedule = SimpleNamespace(patience=lambda _: SimpleNamespace(is_over=lambda: False), idles=lambda: looks.pop(0))
    session = SimpleNamespace(hub=SimpleNamespace(), guest=SimpleNamespace(kernel=None))
    Stage(cast(Any, session), cast(Any, schedule))._come_to_rest()
    assert looks == [False]


@pytest.mark.parametrize(("tids", "ended"), [([1, 2], False), ([1], True), ([], True)])
def test_a_thread_that_is_no_more_has_ended_though_its_connection_is_open(tids: list[int], ended: bool) -> None:
    rows = [SimpleNamespace(lwp=SimpleNamespace(tid=tid)) for tid in tids]
    init = SimpleNamespace(sysctl=SimpleNamespace(kern_proc_pid=lambda _pid, *, lwp: rows if lwp else []))
    target = cast(RemoteProcess, SimpleNamespace(pid=40))
    scene = Scene(cast(RemoteProcess, init), target, target)
    thread = RemoteThread.__new__(RemoteThread)
    thread._endpoint = cast(Any, SimpleNamespace(pid=40, tid=2))
    assert scene.has_ended(thread) is ended
    assert not scene.has_ended(target)
