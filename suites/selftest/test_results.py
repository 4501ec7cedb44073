# SPDX-License-Identifier: BSD-2-Clause
"""Results are typed: what goes to JSON comes back equal, older formats are read, and the schema describes the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from harness.bench.result import BenchResult
from harness.cli import main
from harness.config import share
from harness.errors import ExitCode, UsageError
from harness.explore.trial import Trial
from harness.explore.trial import Verdict as Interleaving
from harness.report.words import sentence
from harness.results.certainty import Interval
from harness.results.changes import Change, ChangeKind
from harness.results.comparison import ComparedKernel, Comparison, Difference, Judgement, Tally, TestComparison
from harness.results.costs import Cost, Costs, Unit
from harness.results.coverage import Coverage, FunctionCoverage
from harness.results.measurements import Measurements
from harness.results.mutation import Fate, MutantResult, append
from harness.results.record import BETWEEN_TESTS, FORMAT, RunRecord, TestResult, Trouble, charge, keep, read_record
from harness.results.summary import conclusion
from harness.results.verdict import Look, Side, Verdict
from harness.store import Store

WHOLE = RunRecord(
    "DragonFly: kernel k",
    is_dragonfly=True,
    identity="DragonFly v6.5",
    machine="qemu-system-x86_64 -m 512",
    options={"kernel": "k", "image": None, "kenv": {"a": "b"}, "memory": 512},
    started="2026-11-29T12:00:00+00:00",
    first_test="2026-11-29T12:00:02.125+00:00",
    seconds=12.5,
    starts=3,
    failed_resumes=1,
    not_again=4,
    warp="usable",
    features="600523: lwkt",
    accelerator="tcg",
    accelerator_reason="asked for",
    quirks=("one CPU",),
    workers=2,
    exit_status=1,
    trouble=Trouble(Verdict.BOOT_FAILURE, "the kernel panicked", Verdict.PANIC),
    not_run=("a.py::test_z",),
    kernel="k",
    kernel_digest="0a",
    osreldate=600523,
    image="i",
    root="/tests",
    since="2026-11-28T12:00:00+00:00",
    changes=(
        Change("a.py::test_a[case]", ChangeKind.NEW_FAILURE, "panic", "passed", "2026-11-28T12:00:00+00:00", "j"),
    ),
    command=("suites/conformance", "-x"),
    folder="/here",
    incomplete="killed",
    shard="2/4",
    selection="ab",
    coverage=Coverage(
        (FunctionCoverage("sys/kern/kern_proc.c", "pgrel", 3, 2, 4, 1, (12,), (11, 11, 13), 1),),
        {"a.py::b": (2, 1)},
        1,
        "m",
    ),
    results=(
        TestResult(
            "a.py::test_a[case]",
            Verdict.PANIC,
            1.5,
            reason="E   no",
            evidence="Fatal trap 12\x00",
            functions=("fork1", "exit1"),
            fingerprint="exit1<x",
            behaviour="A child is born.",
            worker="gw1",
            lane="wall",
            recording="/r",
            defect="known",
            reproducer="reproducers/x.c",
            introduced="0123456789 of 2020-11-15",
            measurements=Measurements(((0.5, 17), (0.75, 18)), (10.5,), (1500.25,)),
            calls=("fork() = 7",),
            again=(TestResult("a.py::test_a[case]", Verdict.PASSED, 1.25, pristine=True),),
            pristine=True,
            line=12,
        ),
        TestResult("a.py::test_b", Verdict.PASSED),
    ),
)


def test_a_record_comes_back_equal(tmp_path: Path) -> None:
    for record in (WHOLE, RunRecord("t", is_dragonfly=False)):
        assert read_record(record.write(Store(tmp_path), tmp_path / "r.json")) == record


def test_every_field_of_a_record_is_set_in_the_one_that_is_compared() -> None:
    for one, empty in (
        (WHOLE, RunRecord("t", is_dragonfly=False)),
        (WHOLE.results[0], TestResult("t", Verdict.PASSED)),
    ):
        same = [each.name for each in fields(one) if getattr(one, each.name) == getattr(empty, each.name)]
        assert same == [], "these would not be missed"


def test_a_comparison_comes_back_equal() -> None:
    tally = Tally(3, 1)
    tally.reasons["E"] = 1
    cost = Cost("fork", Unit.TIME, 1.0, 2.0, 2.0, Interval(1.5, 2.5), True, 0.99, (1.0,), (2.0,), 0.1)
    bare = replace(cost, interval=None, unit=Unit.INSTRUCTIONS)
    comparison = Comparison(
        (ComparedKernel("a", "1", "kernel a", 3), ComparedKernel("b", "2", "kernel b", 3, "boot failure", True)),
        (TestComparison("t", (Tally(3), tally), (Judgement(Difference.BROKEN, True, 0.5, 7, "note"),)),),
        0.95,
        7,
        "conformance",
        costs=[Costs("a", "b", [cost, bare], {"kill": "no"})],
    )
    assert Comparison.from_json(json.loads(json.dumps(comparison.to_json()))) == comparison


def test_a_later_format_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    file.write_text(json.dumps({**WHOLE.to_json(), "format": FORMAT + 1}))
    with pytest.raises(UsageError, match=f"format {FORMAT + 1}, and this dfly-harness reads up to {FORMAT}"):
        read_record(file)


def test_fields_of_a_later_minor_version_are_ignored() -> None:
    data = WHOLE.to_json()
    data["results"][0]["smell"] = data["smell"] = "of roses"
    assert RunRecord.from_json(data) == WHOLE


def test_what_is_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"kind": "cake", "format": 99, "target": "", "results": []}))
    with pytest.raises(UsageError, match="it is a cake"):
        read_record(tmp_path / "c.json")


def written_by_other_commands(store: Store, folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield what commands beside `run` write, as they write it, and what reads it."""
    file = folder / "comparison.json"
    file.write_text(json.dumps(Comparison((ComparedKernel("a", "1", "kernel a", 3),), (), 0.99).to_json()))
    yield file, "the record of a comparison: `dfly-harness compare`"
    bench = BenchResult("", "", "tcg", (), ()).write(store, folder / "bench.json")
    yield bench, "the record of a bench: `dfly-harness bench --against"
    file = folder / "explore.jsonl"
    trial = Trial("exit", "fork", "kern_exit.c:1", Interleaving.SERIAL).to_json()
    file.write_text(f"{trial}\n{trial}\n")
    yield file, "a campaign of explore: `dfly-harness explore A B --list`"
    file = folder / "mutate.jsonl"
    append(file, MutantResult("m1", "kern_proc.c", "pfind", 1, "return", Fate.SURVIVED))
    yield file, "a campaign of mutate: `dfly-harness mutate --list`"


@pytest.mark.parametrize("words", [["report"], ["replay"], ["reproduce"]], ids=" ".join)
def test_what_another_command_wrote_is_called_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    for file, said in written_by_other_commands(Store(), tmp_path):
        assert main([*words, str(file), *(["test"] if words != ["report"] else [])]) == 2
        assert f"{file.name} is no record of a run: it is {said}" in " ".join(capsys.readouterr().err.split())


def test_format_1_is_read() -> None:
    old: dict[str, Any] = {
        "target": "k",
        "is_dragonfly": True,
        "trouble": "boot failure: the guest's kernel panicked: panic: x",
        "results": [
            {"test": "t", "outcome": "failed", "seconds": 1, "verdict": "hang", "console": "said", "measurements": {}},
            {"test": "u", "outcome": "xfailed", "seconds": 1, "verdict": ""},
        ],
        "format": 1,
    }
    record = RunRecord.from_json(old)
    assert record.trouble == Trouble(Verdict.BOOT_FAILURE, "the guest's kernel panicked: panic: x", Verdict.PANIC)
    assert [(result.verdict, result.evidence) for result in record.results] == [
        (Verdict.HANG, "said"),
        (Verdict.NOT_APPLICABLE, ""),
    ]


def schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((share() / "docs" / "record.schema.json").read_text())
    return loaded


def complaints(data: Any, part: dict[str, Any], whole: dict[str, Any], where: str = "") -> list[str]:
    """Return what PART of the schema WHOLE has against DATA; knows the few words the schema uses, and no others."""
    known = {
        "type",
        "properties",
        "required",
        "items",
        "enum",
        "description",
        "$ref",
        "additionalProperties",
        "prefixItems",
    }
    assert part.keys() <= known | {"$schema", "$id", "title", "$defs", "minimum"}, part.keys()
    if "$ref" in part:
        return complaints(data, whole["$defs"][part["$ref"].rpartition("/")[2]], whole, where)
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "integer": int,
        "number": (int, float),
    }
    allowed = [part["type"]] if isinstance(part.get("type"), str) else part.get("type", [])
    if data is None:
        return [] if "null" in allowed else [f"{where}: null"]
    if allowed and not any(isinstance(data, kinds[each]) for each in allowed if each != "null"):
        return [f"{where}: {data!r} is no {allowed}"]
    if "enum" in part and data not in part["enum"]:
        return [f"{where}: {data!r} is none of {part['enum']}"]
    found = []
    if isinstance(data, dict):
        found += [f"{where}: {name} is missing" for name in part.get("required", ()) if name not in data]
        for name, value in data.items():
            if name in part.get("properties", {}):
                found += complaints(value, part["properties"][name], whole, f"{where}/{name}")
            elif part.get("additionalProperties") is False:
                found.append(f"{where}: {name} is not described")
    if isinstance(data, list):
        for number, value in enumerate(data):
            found += complaints(value, part.get("items", {}), whole, f"{where}/{number}")
    return found


def closed(part: Any) -> Any:
    """Return the schema with every object closed, so that a field nobody describes is noticed."""
    if isinstance(part, list):
        return [closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    made = {name: closed(value) for name, value in part.items()}
    return {**made, "additionalProperties": False} if "properties" in part and part.get("type") == "object" else made


def test_the_schema_describes_every_field_that_is_written() -> None:
    whole = closed(schema())
    assert complaints(WHOLE.to_json(), whole, whole) == []
    broken = WHOLE.to_json()
    broken["results"][0]["verdict"] = "superb"
    del broken["target"]
    assert len(complaints(broken, whole, whole)) == 2


def test_the_schema_knows_all_verdicts_and_the_format() -> None:
    assert schema()["$defs"]["verdict"]["enum"] == [str(verdict) for verdict in Verdict]
    assert schema()["properties"]["format"]["enum"] == [FORMAT]


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_verdict_says_all_that_it_means(verdict: Verdict) -> None:
    assert verdict.is_failure is (verdict.exit_code is not ExitCode.PASSED)
    assert verdict.against_kernel is (verdict.against is Side.KERNEL) is (verdict.look is Look.BAD)
    assert verdict.is_judged is (verdict.against_kernel or verdict is Verdict.PASSED)
    assert verdict.outcome == ("skipped" if verdict.is_left_out else "failed" if verdict.is_failure else "passed")
    assert verdict.mark.endswith(verdict)


def test_the_worst_verdict_comes_first() -> None:
    assert sorted(Verdict, key=lambda verdict: -verdict.severity) == list(Verdict)


@pytest.mark.parametrize(
    ("test", "behaviour", "said"),
    [
        ("a.py::test_a_child_is_born", "", "A child is born."),
        ("a.py::test_a_child_is_born", "A child is born.", "A child is born."),
        ("a.py::test_no_name_is_too_long[33]", "EPERM (kern_prot.c: sys_setlogin).",
         "No name is too long [33]: EPERM (kern_prot.c: sys_setlogin)."),
        ("a.py::test_x[a::b]", "", "X [a::b]."),
        ("<script>", "", "<script>."),
    ],
)  # fmt: skip
def test_a_row_reads_as_a_sentence_with_its_case(test: str, behaviour: str, said: str) -> None:
    assert sentence(TestResult(test, Verdict.PASSED, behaviour=behaviour)) == said


def test_nothing_is_said_of_a_kernel_on_which_no_test_was_judged() -> None:
    assert conclusion(RunRecord("t", is_dragonfly=True)) == "No test was judged."
    skipped = (TestResult("a", Verdict.NOT_APPLICABLE),)
    assert conclusion(RunRecord("t", is_dragonfly=True, results=skipped)) == "No test was judged."
    ended = RunRecord("t", is_dragonfly=True, exit_status=130, results=(TestResult("a", Verdict.PASSED),))
    assert conclusion(ended).endswith("The run was interrupted: what came later is not known.")


def test_a_test_that_fails_while_it_is_tidied_up_after_has_one_result() -> None:
    results: list[TestResult] = []
    for verdict in (Verdict.PASSED, Verdict.HARNESS_ERROR):
        keep(results, TestResult("t", verdict, 1.0))
    assert [(one.verdict, one.seconds) for one in results] == [(Verdict.HARNESS_ERROR, 2.0)]


def test_selftests_leave_the_users_results_alone() -> None:
    store = Store()
    assert store.home.parent.name == "selftest"
    assert (store.home / "images").is_symlink()
    assert not store.folder("results").is_symlink()


def test_a_death_that_is_noticed_late_takes_the_place_of_what_its_test_came_to() -> None:
    results = [TestResult("a", Verdict.PASSED, 2.0, behaviour="It lives."), TestResult("b", Verdict.FAILED)]
    for test in ("a", "b", BETWEEN_TESTS):
        charge(results, TestResult(test, Verdict.PANIC, fingerprint="f"))
    assert [(result.test, result.verdict) for result in results] == [
        ("a", Verdict.PANIC),
        ("b", Verdict.FAILED),
        ("b", Verdict.PANIC),
        (BETWEEN_TESTS, Verdict.PANIC),
    ]
    assert (results[0].seconds, results[0].behaviour, results[0].fingerprint) == (2.0, "It lives.", "f")
