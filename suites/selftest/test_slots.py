# SPDX-License-Identifier: BSD-2-Clause
"""Slots on other hosts: runs go there over ssh and come back; what goes wrong there says nothing about a kernel."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from own_store import make_store

import harness
from harness.config import share
from harness.errors import ExitCode, HarnessError, UsageError
from harness.guests.copying import Put
from harness.guests.options import TargetOptions
from harness.guests.targets import ResolvedTarget
from harness.machine.description import Accelerator
from harness.machine.qemu import qemu_version
from harness.processes.connection import await_true
from harness.programs.options import ProgramOptions
from harness.runs.digests import digest_of_harness, digest_of_tests
from harness.runs.hosts import HERE, HostPool, Slots
from harness.runs.options import RunOptions
from harness.runs.runner import SuiteRunner
from harness.runs.suite import suite_arguments
from harness.store import Store

HARNESS = shlex.join([sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())"])
PROGRAMS = ("ssh", "ssh-keygen", "sshd", "rsync")
DEADLINE = 30.0
SLEEPS = """
import os, pathlib, time

def test_that_sleeps(init):
    pathlib.Path(os.environ["DFLY_HARNESS_HOME"], "began").touch()
    time.sleep(0 if pathlib.Path(os.environ["DFLY_HARNESS_HOME"], "awake").exists() else 600)
"""
MINE = """
from beside import ONE

def test_mine(init):
    assert init.getppid() == ONE or init.getpid() == init.pid
"""


@dataclass(frozen=True)
class Box:
    """A host that ssh reaches by the names `box` and `other`; its store is FAR."""

    config: Path
    far: Path
    server: subprocess.Popen[bytes]

    @property
    def command(self) -> str:
        """How the harness is called there."""
        return f"DFLY_HARNESS_HOME={shlex.quote(str(self.far))} {HARNESS}"

    def pool(self, slots: str, store: Store, said: list[str] | None = None) -> HostPool:
        """Return the hosts SLOTS; what they say is added to SAID."""
        progress = said.append if said is not None else lambda _: None
        return HostPool(Slots.parse(slots), store, command=self.command, progress=progress)

    def processes(self) -> list[int]:
        """Return the processes that work for the far store."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"DFLY_HARNESS_HOME={self.far}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def cut_all_connections(self) -> None:
        """End the processes of sshd that serve somebody."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == self.server.pid:
                os.kill(int(folder.name), signal.SIGKILL)


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if missing := [program for program in PROGRAMS if shutil.which(program, path=path) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    folder = tmp_path / "box"
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        "StrictModes no\nPermitRootLogin yes\nPidFile none\nUsePAM no\n"
    )
    (folder / "ssh_config").write_text(
        f"Host box other\n HostName 127.0.0.1\n Port {port}\n IdentityFile {folder}/user\n StrictHostKeyChecking no\n"
        " UserKnownHostsFile /dev/null\n LogLevel ERROR\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # compiled in
    monkeypatch.setenv("DFLY_HARNESS_SSH", f"ssh -F {folder}/ssh_config")
    argv = [shutil.which("sshd", path=path) or "", "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        hello = ["ssh", "-F", str(folder / "ssh_config"), "box", "true"]
        await_true(
            lambda: (
                subprocess.run(hello, capture_output=True, check=False).returncode == 0 or server.poll() is not None
            ),
            "sshd",
            DEADLINE,
        )
        if server.poll() is not None:
            pytest.skip(f"sshd does not run here: {(folder / 'log').read_text().strip()}")
        (tmp_path / "far").mkdir()
        yield Box(folder / "ssh_config", make_store(tmp_path / "far").home, server)
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path)


def oracle_arguments(*tests: str, variant: str = "") -> list[str]:
    return suite_arguments(RunOptions(TargetOptions(), oracle=variant), tests)


def run_command(store: Store, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DFLY_HARNESS_HOME": str(store.home)}
    return subprocess.run(
        [*shlex.split(HARNESS), *words], capture_output=True, text=True, check=False, env=environment, timeout=300
    )


def verdicts(record: Path) -> dict[str, list[str]]:
    compared = json.loads(record.read_text())["tests"]
    return {test["test"]: [each["verdict"] for each in test["judgements"]] for test in compared}


class TestWords:
    """How hosts are named."""

    def test_hosts_and_their_slots_are_read(self) -> None:
        assert Slots.parse("a:4,me@b.example:12") == (Slots("a", 4), Slots("me@b.example", 12))

    @pytest.mark.parametrize(
        "text", ["", "a", "a:", ":3", "a:0", "a:-1", "a:x", "a:1,", "a:1,a:2", "-oProxy=x:1", "a:²"]
    )
    def test_what_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="host"):
            Slots.parse(text)

    @pytest.mark.parametrize("words", [("--hosts", "a:1", "--jobs", "2"), ("--hosts", "nowhere.invalid:1")])
    def test_compare_says_in_one_line_what_is_wrong(self, store: Store, words: tuple[str, ...]) -> None:
        done = run_command(store, "compare", "oracle", "oracle:2020", *words)
        assert done.returncode in {ExitCode.USAGE, ExitCode.HARNESS_FAILED}
        assert len([line for line in done.stderr.splitlines() if line.startswith("dfly-harness: ")]) == 1
        assert "Traceback" not in done.stderr


class TestDraw:
    """Which host makes which run."""

    def drawn(self, pool: HostPool, seeds: range) -> list[str]:
        found = []
        for seed in seeds:
            with pool.place(seed) as host:
                assert host is not None
                found.append(host.name)
        return found

    def test_each_row_of_seeds_takes_every_slot_once_in_an_order_of_its_own(self, store: Store) -> None:
        names = self.drawn(HostPool(Slots.parse("a:1,b:3"), store), range(400))
        rows = [tuple(names[first : first + 4]) for first in range(0, 400, 4)]
        assert all(Counter(row) == {"a": 1, "b": 3} for row in rows)
        assert len(set(rows)) == 4
        # Who alternates between two kernels does not give each a host of its own.
        assert 20 < Counter(names[::2])["a"] < 80

    def test_one_seed_means_one_host(self, store: Store) -> None:
        words = "a:2,b:2,c:1"
        assert self.drawn(HostPool(Slots.parse(words), store), range(50)) == self.drawn(
            HostPool(Slots.parse(words), store), range(50)
        )

    def test_no_more_runs_than_slots_are_under_way_on_a_host(self, store: Store) -> None:
        pool = HostPool(Slots.parse("a:1"), store)
        second = threading.Event()

        def take() -> None:
            with pool.place(1):
                second.set()

        with pool.place(0):
            other = threading.Thread(target=take)
            other.start()
            assert not second.wait(0.2)
        assert second.wait(DEADLINE)
        other.join()

    def test_who_waits_for_a_slot_is_told_of_the_end(self, store: Store) -> None:
        pool = HostPool(Slots.parse("a:1"), store)
        with pool.place(0):
            threading.Timer(0.1, pool.stop).start()
            with pool.place(1) as host:
                assert host is None


class TestRuns:
    """Runs that go there and come back."""

    def test_a_comparison_says_the_same_from_two_hosts(self, box: Box, store: Store, tmp_path: Path) -> None:
        words = ("compare", "oracle", "oracle:setsid-for-leaders", "--suite", "conformance/test_sessions.py", "--fresh")
        far = ("--hosts", f"{HERE}:1,box:2", "--hosts-command", box.command)
        records = [tmp_path / "here.json", tmp_path / "there.json"]
        for record, more in zip(records, ((), far), strict=True):
            done = run_command(store, *words, *more, "--json", str(record))
            assert done.returncode == ExitCode.TEST_FAILED, done.stdout + done.stderr
        assert verdicts(records[0]) == verdicts(records[1])
        logs = [log.read_text() for log in store.home.glob("results/compare-*/*.log")]
        assert {log.startswith("on host box") for log in logs} == {True, False}
        assert not list((box.far / "run").iterdir())

    def test_tests_of_ones_own_are_brought_along(self, box: Box, store: Store, tmp_path: Path) -> None:
        mine = tmp_path / "mine"
        mine.mkdir()
        (mine / "test_mine.py").write_text(MINE)
        (mine / "beside.py").write_text("ONE = 1\n")
        (mine / "large.img").write_text("stays here")
        pool = box.pool("box:1", store)
        pool.check(None)
        run = SuiteRunner(store, pool).run(oracle_arguments(str(mine / "test_mine.py")), 0, tmp_path / "run.json")
        assert run.record is not None
        assert [(result.test, str(result.verdict)) for result in run.record.results] == [
            ("test_mine.py::test_mine", "passed")
        ]
        brought = {file.name for file in box.far.glob("slots/tests-*/*")}
        assert brought >= {"test_mine.py", "beside.py"}
        assert "large.img" not in brought

    def test_a_program_and_its_files_are_brought_along(self, box: Box, store: Store, tmp_path: Path) -> None:
        mine, elsewhere = tmp_path / "programs", tmp_path / "elsewhere"
        for folder in (mine, elsewhere / "given"):
            folder.mkdir(parents=True)
        (mine / "reads.sh").write_text("#!/bin/sh\nread word; [ $word = said ] && exec test -f /tmp/given/one\n")
        (mine / "reads.sh").chmod(0o755)
        (mine / "fails.sh").write_text("#!/bin/sh\nexit 3\n")
        (mine / "fails.sh").chmod(0o755)
        (mine / "expected.toml").write_text(
            '[[expected]]\nprogram = "fails.sh"\ntest = "*"\nreason = "it is made to"\ncontrol = true\n'
        )
        (elsewhere / "input").write_text("said\n")
        (elsewhere / "given" / "one").write_text("1")
        pool = box.pool("box:1", store)
        pool.check(Accelerator.TCG)
        programs = ProgramOptions(files=(mine / "reads.sh", mine / "fails.sh"), stdin=elsewhere / "input")
        options = RunOptions(
            TargetOptions(control=True, accelerator=Accelerator.TCG),
            resolved=ResolvedTarget(),
            programs=programs,
            put=(Put.parse(str(elsewhere / "given")),),
        )
        run = SuiteRunner(store, pool).run(suite_arguments(options), 0, tmp_path / "run.json")
        assert run.record is not None, run.said
        verdicts = {result.test: str(result.verdict) for result in run.record.results}
        assert verdicts == {"reads.sh::whole": "passed", "fails.sh::whole": "known defect"}
        with pytest.raises(UsageError, match="outside the harness's own folder"):
            SuiteRunner(store, pool).run([f"--dfly-put={share() / 'pyproject.toml'}:/tmp/x"], 0, tmp_path / "run.json")

    def test_a_machine_runs_there(self, box: Box, store: Store, tmp_path: Path) -> None:
        pool = box.pool("box:1", store)
        pool.check(Accelerator.TCG)
        options = RunOptions(TargetOptions(control=True, accelerator=Accelerator.TCG), resolved=ResolvedTarget())
        arguments = suite_arguments(options, [str(share() / "suites/conformance/test_sessions.py")])
        run = SuiteRunner(store, pool).run([*arguments, "-k", "setsid_makes"], 0, tmp_path / "run.json")
        assert run.is_whole, run.said
        assert run.record is not None
        assert run.record.target.startswith("CONTROL")
        assert list(box.far.glob("snapshots/*"))
        assert not list(store.home.glob("snapshots/*"))


class TestLoss:
    """Hosts and commands that go away in the middle of a run."""

    def sleeper(self, tmp_path: Path) -> list[str]:
        folder = tmp_path / "sleeper"
        folder.mkdir()
        (folder / "test_sleeper.py").write_text(SLEEPS)
        return oracle_arguments(str(folder / "test_sleeper.py"))

    def began(self, box: Box) -> None:
        await_true(lambda: (box.far / "began").exists(), "the run there to begin", DEADLINE)

    def gone(self, box: Box) -> None:
        await_true(lambda: not box.processes(), "all that ran there to end", DEADLINE)
        await_true(lambda: not list((box.far / "run").iterdir()), "what it left to be gone", DEADLINE)

    def test_the_run_of_a_lost_host_is_made_on_another_one(self, box: Box, store: Store, tmp_path: Path) -> None:
        said: list[str] = []
        pool = box.pool("box:1,other:1", store, said)
        pool.check(None)
        arguments = self.sleeper(tmp_path)

        def cut() -> None:
            self.began(box)
            (box.far / "awake").touch()
            box.cut_all_connections()

        cutter = threading.Thread(target=cut)
        cutter.start()
        run = SuiteRunner(store, pool).run(arguments, 0, tmp_path / "run.json")
        cutter.join()
        assert run.is_whole, run.said
        assert [line for line in said if "is lost, its runs are made elsewhere" in line]
        self.gone(box)

    def test_without_another_one_that_is_the_hosts_failure(self, box: Box, store: Store, tmp_path: Path) -> None:
        pool = box.pool("box:1", store)
        pool.check(None)

        def cut() -> None:
            self.began(box)
            box.cut_all_connections()

        cutter = threading.Thread(target=cut)
        cutter.start()
        with pytest.raises(HarnessError, match="no host is left to make runs on: box: "):
            SuiteRunner(store, pool).run(self.sleeper(tmp_path), 0, tmp_path / "run.json")
        cutter.join()
        self.gone(box)

    def test_ctrl_c_ends_the_runs_there_in_order(self, box: Box, store: Store, tmp_path: Path) -> None:
        pool = box.pool("box:1", store)
        pool.check(None)
        runner = SuiteRunner(store, pool)

        def stop() -> None:
            self.began(box)
            runner.stop()

        stopper = threading.Thread(target=stop)
        stopper.start()
        run = runner.run(self.sleeper(tmp_path), 0, tmp_path / "run.json")
        stopper.join()
        assert (run.record, run.said) == (None, "interrupted")
        self.gone(box)

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_nothing_is_left_there_of_a_command_that_was_killed(
        self, box: Box, store: Store, tmp_path: Path, number: signal.Signals
    ) -> None:
        self.sleeper(tmp_path)
        words = ("compare", "oracle", "oracle:2020", "--suite", str(tmp_path / "sleeper" / "test_sleeper.py"))
        child = subprocess.Popen(
            [*shlex.split(HARNESS), *words, "--hosts", "box:1", "--hosts-command", box.command],
            env={**os.environ, "DFLY_HARNESS_HOME": str(store.home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with child:
            self.began(box)
            child.send_signal(number)
        self.gone(box)


GOOD = {
    "version": harness.__version__,
    "code": digest_of_harness(),
    "suites": digest_of_tests([share() / "suites"]),
    "home": "/nowhere",
    "rsync": True,
    "qemu": "",
    "trouble": "",
}


class TestRefusals:
    """Hosts that are not fit, before anything starts."""

    @pytest.mark.parametrize(
        ("about", "why"),
        [
            ({}, r"version unknown there and"),
            ({"version": "0.0.1"}, r"version 0\.0\.1 there and"),
            ({"code": "x"}, "other code: install the same on both"),
            ({"suites": "x"}, "other code: install the same on both"),
            ({"rsync": False}, "rsync is not installed there"),
            ({"trouble": "qemu-system-x86_64 is not installed"}, "qemu-system-x86_64 is not installed"),
            ({"qemu": "4.2.1"}, r"QEMU is 4\.2\.1 there and"),
        ],
    )
    @pytest.mark.usefixtures("box")
    def test_a_host_that_would_make_other_runs_is_named(
        self, store: Store, tmp_path: Path, about: dict[str, object], why: str
    ) -> None:
        said = {**GOOD, "qemu": qemu_version(), **about} if about else {}
        (tmp_path / "harness").write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(said)}\nEND\n")
        (tmp_path / "harness").chmod(0o755)
        pool = HostPool(Slots.parse("box:1"), store, command=str(tmp_path / "harness"))
        with pytest.raises(HarnessError, match=f"host box: .*{why}") as told:
            pool.check(Accelerator.TCG)
        assert "\n" not in str(told.value)

    @pytest.mark.parametrize(
        ("host", "command", "why"),
        [
            ("nowhere", HARNESS, "it cannot be reached: "),
            ("box", "/no/such/harness", "/no/such/harness is not there"),
            ("box", "echo", "`echo` is no dfly-harness that can be asked"),
            ("box", "sh -c 'echo no such command >&2; exit 2'", "another version there: no such command"),
            ("box", "cat /no/such/file; false", "is no dfly-harness that can be asked: "),
        ],
    )
    @pytest.mark.usefixtures("box")
    def test_a_host_without_harness_is_named(self, store: Store, host: str, command: str, why: str) -> None:
        pool = HostPool(Slots.parse(f"{host}:1"), store, command=command)
        with pytest.raises(HarnessError, match=f"host {host}: .*{why}") as told:
            pool.check(None)
        assert "\n" not in str(told.value)

    @pytest.mark.parametrize("missing", ["ssh", "rsync"])
    def test_a_program_that_is_missing_here_is_named(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
    ) -> None:
        for program in {"ssh", "rsync"} - {missing}:
            (tmp_path / program).write_text("#!/bin/sh\n")
            (tmp_path / program).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("DFLY_HARNESS_SSH", raising=False)
        with pytest.raises(HarnessError, match=f"^{missing} is not installed: other hosts are reached by it"):
            HostPool(Slots.parse("a:1"), store).check(None)

    def test_this_host_alone_needs_neither(self, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        HostPool(Slots.parse(f"{HERE}:2"), store).check(None)
