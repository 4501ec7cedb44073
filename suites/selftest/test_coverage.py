# SPDX-License-Identifier: BSD-2-Clause
"""What is said to have been executed was: on a small kernel, held against QEMU's own trace, and on real guests."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from own_store import make_store
from testkernel import build_kernel

from harness.cli import main
from harness.cli.touching import names_touching
from harness.coverage.choice import Place
from harness.coverage.code import Branch, Code, Jump, Line, jumps_in, pack, unpack
from harness.coverage.export import cobertura, lcov
from harness.coverage.kernel import kernel_code, split_names
from harness.coverage.map import CoverageMap, Reach, find_map, map_of, read_map, text_of
from harness.errors import UsageError
from harness.guests.targets import has_dragonfly
from harness.kernels.artefact import import_kernel
from harness.machine.description import Accelerator, MachineDescription
from harness.machine.directboot import BootFlags, direct_boot
from harness.machine.elf import KernelSymbols
from harness.machine.executed import EXECUTED, FELL_THROUGH, JUMPED, instrument
from harness.machine.qemu import Machine, find_qemu, qemu_version
from harness.report.coverage import coverage_lines, coverage_section
from harness.results.coverage import Coverage, ranges_of
from harness.results.record import read_record
from harness.store import Store

DONE = 0x11 << 1 | 1
FILE = "measured.c"
_TRACED = re.compile(r"^Trace \d+: 0x[0-9a-f]+ \[[0-9a-f]+/([0-9a-f]+)/", re.MULTILINE)


@dataclass(frozen=True)
class Measured:
    """The small kernel that was run: its file, what was measured, and what was noted of which address."""

    kernel: Path
    code: Code
    notes: dict[int, int]
    hits: np.ndarray[tuple[int], np.dtype[np.bool_]]


def qemu(kernel: Path, cache: Path, *more: str, accelerator: str = "tcg") -> None:
    how = direct_boot(kernel, environment={}, flags=BootFlags.RB_SERIAL, cache=cache)
    argv = [
        find_qemu(), "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "pc",
        "-accel", accelerator, "-m", "128", "-serial", "null", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04",
        "-kernel", str(how.kernel), "-initrd", str(how.initrd), "-append", how.append, *more,
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (DONE, "")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("measured")
    kernel = build_kernel(folder / "cache", "-gdwarf-4", program=FILE)
    store = Store(folder / "store")
    code = kernel_code(store, import_kernel(store, "small", kernel, debug=kernel), [FILE])
    plugin = instrument(code.ranges, qemu_version(), folder / "cache")
    execution = plugin.prepare(folder / "map")
    qemu(kernel, folder / "cache", "-plugin", f"file={plugin.plugin},map={folder / 'map'}")
    taken = execution.take()
    assert not execution.take().any()
    addresses = [each.address + at for each in code.ranges for at in range(len(each.code))]
    return Measured(kernel, code, dict(zip(addresses, taken.tolist(), strict=True)), code.hits(taken))


def traced(kernel: Path, code: Code, folder: Path) -> list[int]:
    """Return which addresses of CODE QEMU says it executed, in their order, one instruction after the other."""
    ranges = ",".join(f"{each.address:#x}+{len(each.code):#x}" for each in code.ranges)
    trace = folder / "trace"
    words = ["-d", "exec,nochain", "-dfilter", ranges, "-D", str(trace)]
    if tuple(map(int, qemu_version().split(".")[:2])) < (8, 1):
        qemu(kernel, folder, "-singlestep", *words)
    else:  # where the other is gone since 10.0
        qemu(kernel, folder, *words, accelerator="tcg,one-insn-per-tb=on")
    return [int(address, 16) for address in _TRACED.findall(trace.read_text())]


@pytest.mark.on_vm
class TestWhatIsNoted:
    """The plugin's word against QEMU's own trace of the same execution."""

    def test_is_what_qemu_traces_no_more_and_no_less(self, measured: Measured, tmp_path: Path) -> None:
        trace = traced(measured.kernel, measured.code, tmp_path)
        noted = {address for address, note in measured.notes.items() if note & EXECUTED}
        assert noted == set(trace)

    def test_tells_which_way_jumps_went(self, measured: Measured, tmp_path: Path) -> None:
        trace = traced(measured.kernel, measured.code, tmp_path)
        code = next(iter(measured.code.ranges))
        found = {}
        for jump in jumps_in(code.address, code.code, frozenset()):
            after = {following for at, following in pairwise(trace) if at == jump.address}
            size = 6 if code.code[jump.address - code.address] == 0x0F else 2
            ways = FELL_THROUGH if jump.address + size in after else 0
            found[jump.address] = ways | (JUMPED if after - {jump.address + size} else 0)
        noted = {address: measured.notes[address] & (FELL_THROUGH | JUMPED) for address in found}
        assert found == noted
        assert set(found.values()) >= {FELL_THROUGH, JUMPED, FELL_THROUGH | JUMPED}

    def test_becomes_lines_and_functions(self, measured: Measured) -> None:
        run = {line.line for line, hit in zip(measured.code.lines, measured.hits, strict=False) if hit}
        text = (Path(__file__).parent / "testkernel" / FILE).read_text().splitlines()
        never = {number for number, line in enumerate(text, 1) if "/* never */" in line}
        once = {number for number, line in enumerate(text, 1) if "/* once */" in line}
        assert once <= run
        assert not never & run
        summary = CoverageMap("k", "small", (FILE,), measured.code, {"t": Reach(measured.hits)}).summary()
        entered = {each.function for each in summary.functions if each.run}
        assert entered == {"both_ways", "one_way", "kernel_main"}
        assert {each.function for each in summary.functions} == entered | {"never", "panic"}

    def test_a_way_that_leads_to_panic_is_known(self, measured: Measured) -> None:
        fatal = {branch.function for branch in measured.code.branches if any(branch.fatal)}
        assert fatal == {"one_way"}


@pytest.mark.parametrize(
    ("qemu", "interface"),
    [
        ("7.2.22 (Debian 1:7.2+dfsg-7)", 1),
        ("8.2.0", 1),
        ("9.0.0", 2),
        ("10.2.1", 2),
        ("11.0.0", 2),
        ("11.1.3", 7),
        ("12.0", 7),
    ],
)
def test_a_qemu_is_given_a_plugin_of_an_interface_it_takes(tmp_path: Path, qemu: str, interface: int) -> None:
    plugin = ctypes.CDLL(str(instrument((), qemu, tmp_path).plugin), mode=os.RTLD_LAZY)
    assert ctypes.c_int.in_dll(plugin, "qemu_plugin_version").value == interface


def test_nothing_is_noted_under_an_accelerator_that_runs_the_code_itself(tmp_path: Path) -> None:
    plugin = instrument((), qemu_version(), tmp_path / "cache")
    machine = Machine(MachineDescription(accelerator=Accelerator.KVM, instrument=plugin), Store(tmp_path / "store"))
    with machine, pytest.raises(UsageError, match="under tcg only, not kvm"):
        machine.start()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--coverage", "--accelerator", "kvm"], "takes --accelerator tcg"),
        (["--coverage", "--oracle"], "about a kernel's code"),
        (["--lcov", "x"], "about what --coverage notes"),
        (["--only"], "give --touching or --changed"),
        (["--touching", "1x"], "neither a function nor lines"),
        (["--changed"], "give --source"),
        (["--coverage", "conformance/test_wait.py", "--oracle"], "about a kernel's code"),  # no file of that name
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_reason(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["run", *words])
    except SystemExit as error:  # argparse's own
        status = int(str(error.code))
    assert status == 2
    assert said in capsys.readouterr().err


def test_code_that_a_kernel_does_not_have_is_named(tmp_path: Path) -> None:
    kernel = build_kernel(tmp_path / "cache", "-gdwarf-4", program=FILE)
    store = Store(tmp_path / "store")
    with_lines = import_kernel(store, "lines", kernel, debug=kernel)
    without = import_kernel(store, "symbols", kernel)
    with pytest.raises(UsageError, match=r"called kern_exit\.c the kernel has none"):
        kernel_code(store, with_lines, ["kern_exit.c"])
    with pytest.raises(UsageError, match="no symbol kern_wait"):
        kernel_code(store, with_lines, ["kern_wait"])
    with pytest.raises(UsageError, match=r"import it with --debug kernel\.debug"):
        kernel_code(store, without, [FILE])
    (only,) = {line.function for line in kernel_code(store, with_lines, ["both_ways"]).lines}
    assert only == "both_ways"
    code = kernel_code(store, without, ["both_ways", "never"])
    assert [line.function for line in code.lines] == ["both_ways", "never"]
    assert code.addresses[0] == KernelSymbols(kernel)["both_ways"].address
    assert kernel_code(store, without, ["both_ways", "never"]) == code  # which comes from the cache


def test_the_names_of_what_is_measured() -> None:
    assert split_names("") == ("kern_proc.c",)
    assert split_names("kern_exit.c, kern_wait,,kern_exit.c") == ("kern_exit.c", "kern_wait")


def some_map(
    kernel: str, hits: Sequence[Sequence[int]], names: tuple[str, ...] = ("a.c",), **more: int | str
) -> CoverageMap:
    """Return a map, by those NAMES, of a small file: two functions with lines 10 to 12 and 20 to 21."""
    places = (("f", 10), ("f", 11), ("f", 12), ("g", 20), ("g", 21))
    lines = tuple(Line("sys/kern/a.c", line, name) for name, line in places)
    code = Code(
        lines,
        (Branch("sys/kern/a.c", 11, "f", 3, (Jump(0x100, 2, False),)),),
        (0x100,),
        (b"\x74\x10\xc3",),
        ((0, 2, 1), (2, 3, 2)),
    )
    tests = {}
    for number, own in enumerate(hits):
        found = np.zeros(code.size, dtype=bool)
        found[list(own)] = True
        tests[f"t.py::test_{number}"] = Reach(found, 1.0)
    return CoverageMap(kernel, f"kernel {kernel}", names, code, tests, **more)  # type: ignore[arg-type]


class TestMaps:
    """What is kept of it."""

    def test_hits_survive_being_written(self) -> None:
        found = np.array([True, False, True, True, False, False, False, True, True])
        assert (unpack(pack(found), 9) == found).all()
        with pytest.raises(ValueError, match="no 99 sites"):
            unpack(pack(found), 99)

    def test_a_run_of_some_tests_leaves_what_is_known_of_the_others(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        first = some_map("k", [[0, 1], [0]])
        file = first.keep(store)
        dated = some_map("k", [[3]])
        dated.only({test: Reach(reach.hits, 1.0, "text") for test, reach in dated.tests.items()}).keep(store)
        known = read_map(file)
        assert (known.tests["t.py::test_0"].source, known.tests["t.py::test_1"].source) == ("text", "")
        assert set(known.tests) == {"t.py::test_0", "t.py::test_1"}
        assert list(np.flatnonzero(known.tests["t.py::test_0"].hits)) == [3]
        assert map_of(store, "k", ("a.c",)) is not None
        assert map_of(store, "other", ("a.c",)) is None

    def test_the_map_of_most_tests_serves_not_a_later_one_of_a_few(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        some_map("k", [[0], [0, 1], [3]]).keep(store)
        replace(some_map("k", [[0]]), names=("f",), measured="2999-01-01T00:00:00+00:00").keep(store)
        assert len(find_map(store, "", "k", 0).tests) == 3

    def test_the_map_of_the_nearest_kernel_serves(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = Store(tmp_path)
        some_map("old", [[0]], osreldate=400000).keep(store)
        some_map("new", [[0]], osreldate=600000).keep(store)
        assert find_map(store, "", "old", 600000).kernel == "old"
        assert find_map(store, "", "another", 590000).kernel == "new"
        with pytest.raises(UsageError, match="no test is known to run f"):  # none that can be found from here
            names_touching(store, [Place.parse("f")], 1)
        (tmp_path / "t.py").touch()
        monkeypatch.chdir(tmp_path)
        assert names_touching(store, [Place.parse("f")], 1) == ("t.py::test_0",)
        with pytest.raises(UsageError, match="no test is known to run g"):
            names_touching(store, [Place.parse("g")], 1)
        with pytest.raises(UsageError, match="measures it"):
            find_map(store, "", "another", 590000, ["kern_exit.c"])

    def test_a_map_of_a_few_tests_does_not_stand_for_that_of_the_suite(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        some_map("k", [[0], [0], [0]], names=("all.c",), measured="2026-01-01").keep(store)
        some_map("k", [[0]], names=("one.c",), measured="2026-01-02").keep(store)
        assert len(find_map(store, "", "k", 600000).tests) == 3
        some_map("k", [[0], [0]], names=("two.c",), measured="2026-01-03").keep(store)
        assert len(find_map(store, "", "k", 600000).tests) == 2  # about as many, and newer

    def test_what_is_no_map_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "x.map").write_bytes(b"no map")
        with pytest.raises(UsageError, match="no map of what tests run"):
            read_map(tmp_path / "x.map")

    def test_what_was_never_run_is_in_the_summary_and_on_the_page(self) -> None:
        coverage = some_map("k", [[0, 1, 5], [0]]).summary()
        f, g = coverage.functions
        assert (f.run, f.lines, f.missed, f.gone, f.ways, f.missed_ways) == (2, 3, (12,), 1, 2, (11,))
        assert (g.run, g.lines, g.missed) == (0, 2, (20, 21))
        assert coverage.tests == {"t.py::test_0": (2, 1), "t.py::test_1": (1, 0)}
        assert "coverage: never entered: g" in list(coverage_lines(coverage))
        page = "".join(coverage_section(coverage, None))
        assert "20-21" in page
        assert Coverage.from_json(coverage.to_json()) == coverage

    def test_sources_are_shown_only_where_they_are_the_kernels_own(self, tmp_path: Path) -> None:
        known = some_map("k", [[0, 1, 5], [0]])
        coverage = known.summary(known.keep(Store(tmp_path / "store")))
        tree = tmp_path / "src"
        (tree / "sys/kern").mkdir(parents=True)
        file = tree / "sys/kern/a.c"
        assert "has no sys/kern/a.c" in "".join(coverage_section(coverage, tree))
        file.write_text("secret\n" * 19)
        assert "is not what the kernel was built from" in "".join(coverage_section(coverage, tree))
        file.write_text("".join(f"line {number};\n" for number in range(1, 25)))
        page = "".join(coverage_section(coverage, tree))
        assert "    2    10  line 10;" in page
        assert "-----    20  line 20;" in page
        assert "line 20;" not in "".join(coverage_section(coverage, None))

    def test_numbers_as_people_write_them(self) -> None:
        assert ranges_of([7, 15, 12, 13, 14]) == "7, 12-15"


class TestOtherTools:
    """What other tools read of it is what is known."""

    def test_cobertura(self, tmp_path: Path) -> None:
        file = tmp_path / "coverage.xml"
        file.write_text(cobertura(some_map("k", [[0, 1, 5], [0]])))
        read = pytest.importorskip("pycobertura").Cobertura(str(file))
        assert read.files() == ["sys/kern/a.c"]
        assert read.total_statements() == 5
        missed = [line for line, status in read.line_statuses("sys/kern/a.c") if status != "hit"]
        assert sorted(missed) == [11, 12, 20, 21]
        assert read.branch_rate("sys/kern/a.c") == 0.5

    def test_lcov(self) -> None:
        text = lcov(some_map("k", [[0, 1, 5], [0]]))
        reader = pytest.importorskip("lcov_cobertura.lcov_cobertura").LcovCobertura(text)
        summary = reader.parse()["summary"]
        assert (summary["lines-total"], summary["lines-covered"]) == (5, 2)
        assert (summary["branches-total"], summary["branches-covered"]) == (2, 1)
        assert {"SF:sys/kern/a.c", "DA:10,2", "FN:10,f", "FNDA:0,g"} <= set(text.splitlines())


def measure(words: Sequence[str], folder: Path) -> Coverage:
    record = folder / "record.json"
    assert main(["run", *words, "-k", "setsid or getpgid", f"--json={record}", f"--html={folder / 'page.html'}"]) == 0
    return read_record(record).coverage


@pytest.mark.on_vm
def test_each_test_has_its_own_on_the_control_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tests = tmp_path / "test_own.py"
    tests.write_text(
        "def test_leaves(init):\n    init.fork().setpgid(0, 0)\n\ndef test_stays(init):\n    init.getpgid(0)\n"
        "def test_elsewhere(fresh_guest):\n    fresh_guest.hub.spawn().fork().setpgid(0, 0)\n"
    )
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(make_store(tmp_path).home))
    record = tmp_path / "record.json"
    words = [
        "--control",
        "--coverage=__x64_sys_setpgid,do_exit",
        str(tests),
        f"--json={record}",
        "-p",
        "no:cacheprovider",
    ]
    assert main(["run", *words]) == 0
    coverage = read_record(record).coverage
    known = read_map(Path(coverage.map))
    names = [line.function for line in known.code.lines]
    entered = {
        test.rpartition("::")[2]: {name for name, hit in zip(names, reach.hits, strict=False) if hit}
        for test, reach in known.tests.items()
    }
    assert "__x64_sys_setpgid" not in entered["test_stays"]
    assert all("__x64_sys_setpgid" in entered[test] for test in ("test_leaves", "test_elsewhere"))
    assert all("do_exit" in entered[test] for test in ("test_leaves", "test_stays"))  # they are killed afterwards
    assert {reach.source for reach in known.tests.values()} == {text_of(tests)} != {""}
    # To boot is no test's doing.
    cold = ["--cold", "--coverage=start_kernel,do_exit", "-k", "leaves"]
    assert main(["run", "--control", *cold, str(tests), *words[3:]]) == 0
    functions = {each.function: each.run for each in read_record(record).coverage.functions}
    assert (functions["start_kernel"], functions["do_exit"], read_record(record).coverage.between) == (0, 1, 1)
    # What was found chooses tests, and their order.
    chosen = ["--control", "--touching", "__x64_sys_setpgid", str(tests), f"--json={record}", "-p", "no:cacheprovider"]
    capfd.readouterr()
    assert main(["run", *chosen]) == 0
    names = [result.test.rpartition("::")[2] for result in read_record(record).results]
    assert sorted(names[:2]) == ["test_elsewhere", "test_leaves"]
    assert names[2:] == ["test_stays"]
    assert "tests that run __x64_sys_setpgid: all passed of 2" in capfd.readouterr().out
    assert main(["run", *chosen, "--only"]) == 0
    assert len(read_record(record).results) == 2
    assert main(["run", *chosen, "--only", "-k", "stays"]) == 2


#: What it does depends on how often it has run: first, once more on a pristine machine, and once more while recorded.
RUNS = """
from pathlib import Path

def test_fails(init):
    file = Path(__file__).with_name("runs")
    file.write_text(file.read_text() + "x" if file.exists() else "x")
    calls = {1: "getsid", 2: "setsid", 3: "setpgid"}
    getattr(init.fork(), calls[len(file.read_text())])(*([0, 0] if len(file.read_text()) == 3 else []))
    assert False
"""


@pytest.mark.on_vm
def test_all_runs_of_a_test_count_the_recorded_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tests, record = tmp_path / "test_recorded_and_counted.py", tmp_path / "record.json"
    tests.write_text(RUNS)
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(make_store(tmp_path).home))
    calls = ["__x64_sys_getsid", "__x64_sys_setsid", "__x64_sys_setpgid", "__x64_sys_getpgid"]
    words = ["--control", "--record", f"--coverage={','.join(calls)}", str(tests), f"--json={record}"]
    assert main(["run", *words, "-p", "no:cacheprovider"]) == 1
    assert (tmp_path / "runs").read_text() == "xxx"
    assert {each.function for each in read_record(record).coverage.functions if each.run} == set(calls[:3])


@pytest.mark.on_vm
@pytest.mark.skipif(not has_dragonfly(Store()), reason="there is no DragonFly target in the store")
def test_lines_of_a_dragonfly_kernel(tmp_path: Path) -> None:
    coverage = measure(["--coverage=kern_proc.c", "conformance/test_sessions.py"], tmp_path)
    run = {each.function: each.run for each in coverage.functions}
    assert run["enterpgrp"]
    assert run["pfind"]
    assert not run["procinit"]  # it runs when a kernel boots
    assert not run["sysctl_kern_proc_cwd"]
    assert "What was run of the kernel" in (tmp_path / "page.html").read_text()
