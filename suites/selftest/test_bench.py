# SPDX-License-Identifier: BSD-2-Clause
"""How long it takes from a command line to the first test, measured on the control guest."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.bench.bench import FIRST_TEST, seconds_to_first_test
from harness.bench.peers import VirtmeNg
from harness.bench.result import YARDSTICK, BenchResult, Change, Measurement, Ratio, compare_benches, read_bench
from harness.config import share
from harness.errors import DeadlineError, HarnessError, UsageError
from harness.guests.guest import MachineSize
from harness.machine.description import Accelerator
from harness.store import Store


@pytest.mark.on_vm
def test_the_way_to_the_first_test_is_timed() -> None:
    before = time.monotonic()
    seconds = seconds_to_first_test(["--control"])
    assert 0.2 < seconds < time.monotonic() - before


def test_a_run_that_fails_gives_no_time() -> None:
    with pytest.raises(HarnessError, match="no image 'nobody-made-this'"):
        seconds_to_first_test(["--image", "nobody-made-this"])


HANGS = f"""
import os, time
from pathlib import Path

def {FIRST_TEST}(init):
    Path(__file__).with_name("at").write_text(str(os.getpid()))
    time.sleep(600)
"""
PARENT = """
import sys
from harness.bench.bench import seconds_to_first_test

seconds_to_first_test(["--oracle", sys.argv[1]])
"""


def await_(what: str, condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, f"waited 60 s for {what}"
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


def test_a_bench_that_is_killed_leaves_no_run_behind(tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(HANGS)
    at = tmp_path / "at"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], cwd=share())
    await_("the run to begin", lambda: at.exists() and at.read_text())
    parent.kill()
    parent.wait(10)
    await_("the run to notice", lambda: is_gone(int(at.read_text())))


def test_a_run_that_hangs_ends_a_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_inner.py").write_text(HANGS)
    monkeypatch.setattr("harness.bench.bench._FIRST_DEADLINE", 10.0)
    with pytest.raises(DeadlineError, match="waited 10 s for a run of one test to end"):
        seconds_to_first_test(["--oracle", str(tmp_path)])
    assert is_gone(int((tmp_path / "at").read_text()))


def a_peer(folder: Path, script: str) -> VirtmeNg:
    program = folder / "vng"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return VirtmeNg(folder / "vmlinuz")


class TestPeer:
    """virtme-ng side by side, by a stand-in for it."""

    @pytest.fixture(autouse=True)
    def only_here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))

    def test_a_host_without_it_is_told_what_to_install(self) -> None:
        with pytest.raises(UsageError, match="pip install virtme-ng"):
            VirtmeNg.found()

    def test_it_gets_the_same_machine_and_its_command_must_have_run(self, tmp_path: Path) -> None:
        said = tmp_path / "said"
        peer = a_peer(tmp_path, f'echo "$@" >{said}; while [ "$1" != -- ]; do shift; done; shift; "$@"')
        assert 0 < peer.run_a_command(MachineSize(memory=640), Accelerator.TCG) < 30
        assert f"--run {tmp_path}/vmlinuz --memory 640M --cpus 1 --disable-kvm --" in said.read_text()
        assert peer.run_a_command(MachineSize(), Accelerator.KVM) > 0
        assert "--disable-kvm" not in said.read_text()

    def test_a_machine_that_ran_nothing_has_no_time(self, tmp_path: Path) -> None:
        peer = a_peer(tmp_path, "echo no 9p >&2; exit 1")
        with pytest.raises(HarnessError, match="virtme-ng did not run the command: no 9p"):
            peer.run_a_command(MachineSize(), Accelerator.TCG)


def seeded(number: int) -> random.Random:
    return random.Random(number)  # noqa: S311  (reproducible on purpose)


def a_bench(chance: random.Random, *, host: float = 1.0, resume: float = 1.0, rounds: int = 8) -> BenchResult:
    """Return a bench on a host HOST times slower, with a resume RESUME times slower, and a good deal of noise."""

    def noisy(value: float, count: int = rounds) -> tuple[float, ...]:
        return tuple(value * chance.lognormvariate(0, 0.05) for _ in range(count))

    measurements = (
        Measurement(YARDSTICK, "s", noisy(0.1 * host, 3 * rounds)),
        Measurement("resume", "s", noisy(0.2 * host * resume)),
        Measurement("boot", "s", noisy(8 * host)),
        Measurement("throughput", "MB/s", noisy(100 / host)),
    )
    return BenchResult("a target", "its kernel", "tcg", measurements, (Ratio("boot / resume", 40.0),), "7.2", "0.2")


class TestAgainst:
    """What became slower since an earlier bench."""

    def test_a_bench_comes_back_equal(self, tmp_path: Path) -> None:
        bench = a_bench(seeded(1))
        assert read_bench(bench.write(Store(tmp_path), tmp_path / "bench.json")) == bench
        kept = bench.write(Store(tmp_path))
        assert kept.parent == tmp_path / "results"
        assert kept.name.startswith("bench-")

    @pytest.mark.parametrize(
        "text", ["{}", "[]", "no JSON", '{"kind": "run", "format": 1}', '{"kind": "bench", "format": 99}']
    )
    def test_what_is_none_is_refused_in_a_line(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "bench.json"
        file.write_text(text)
        with pytest.raises(UsageError, match="is no record of a bench"):
            read_bench(file)

    @staticmethod
    def said(before: BenchResult, now: BenchResult) -> dict[str, Change]:
        return {change.name: change for change in compare_benches(before, now)}

    def test_what_became_slower_is_told_from_a_slower_host(self) -> None:
        chance = seeded(2)
        said = self.said(a_bench(chance), a_bench(chance, host=2.0, resume=1.5))
        assert {name: change.said for name, change in said.items()} == {
            "resume": "slower",
            "boot": "no difference seen",
            "throughput": "no difference seen",
        }
        assert said["resume"].slower == pytest.approx(1.5, rel=0.1)

    def test_what_became_faster_is_said_as_well(self) -> None:
        chance = seeded(3)
        assert self.said(a_bench(chance), a_bench(chance, resume=0.5))["resume"].said == "faster"

    def test_too_few_readings_say_nothing(self) -> None:
        chance = seeded(4)
        said = self.said(a_bench(chance, rounds=3), a_bench(chance, rounds=3, resume=9.0))
        assert {change.said for change in said.values()} == {"too few readings to tell"}

    def test_a_false_word_is_rare_over_all_that_is_said(self) -> None:
        chance = seeded(5)
        wrong = 0
        for _ in range(200):
            said = self.said(a_bench(chance), a_bench(chance, host=chance.uniform(0.5, 2)))
            wrong += any(change.said in {"slower", "faster"} for change in said.values())
        assert wrong <= 20  # 5% of 200 are 10; 20 or more would be seen once in 400 times

    def test_a_bench_without_a_yardstick_is_no_measure(self) -> None:
        bench = a_bench(seeded(6))
        bare = BenchResult("a target", "its kernel", "tcg", bench.measurements[1:], ())
        with pytest.raises(UsageError, match="has no yardstick"):
            compare_benches(bare, bench)
