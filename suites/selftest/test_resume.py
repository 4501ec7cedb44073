# SPDX-License-Identifier: BSD-2-Clause
"""Nothing is lost with the process: results are on disk as they come, are read, and are gone on with."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from harness.config import HOME_VARIABLE, share
from harness.errors import HarnessError
from harness.guests.targets import ResolvedTarget
from harness.kernels.source import KERN_PROC
from harness.results.partial import CUT_OFF, UNDER_WAY, PartialRecord, partial_of, read_partial
from harness.results.record import RunRecord, TestResult, find_record, read_record
from harness.results.summary import conclusion
from harness.results.verdict import Verdict
from harness.runs.runner import SuiteRunner
from harness.store import Store

CLI = (sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())")
# The run is killed in its third test, once what came before is on disk, and only the first time.
DIES = """
import os, signal, time
from pathlib import Path

HERE = Path(__file__).parent

def test_one(init):
    with (HERE / "turns").open("a") as turns:
        turns.write("x")
def test_two(init): assert init.pid == 0
def test_that_does_not_survive(init, request):
    marker, known = HERE / "killed", HERE / "run.json.partial"
    if not marker.exists():
        end = time.monotonic() + 20
        while b"test_two" not in known.read_bytes().partition(b'"result"')[2] and time.monotonic() < end:
            time.sleep(0.02)
        marker.touch()
        os.kill(os.getppid() if hasattr(request.config, "workerinput") else os.getpid(), signal.SIGKILL)
def test_four(init): pass
"""


def run(*arguments: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    argv = [*CLI, *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, cwd=folder or share(), check=False, timeout=120)


def verdicts(record: RunRecord) -> list[tuple[str, str]]:
    return [(result.test.rpartition("::")[2], str(result.verdict)) for result in record.results]


WHOLE = {
    "test_one": "passed",
    "test_two": "failed",
    "test_that_does_not_survive": "passed",
    "test_four": "passed",
}


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_a_run_that_is_killed_leaves_a_record_that_is_read_and_gone_on_with(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    (tmp_path / "test_inner.py").write_text(DIES)
    file = tmp_path / "run.json"
    file.write_text("what an earlier run left")
    words: list[str | Path] = ["run", "--oracle", tmp_path, "--order", "written", *workers, "--json", "run.json"]
    killed = run(*words, folder=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stdout
    assert not file.exists()  # nobody takes the earlier run's record for this one's

    record = read_record(file)
    assert verdicts(record)[:2] == [("test_one", "passed"), ("test_two", "failed")]
    assert [test.rpartition("::")[2] for test in record.not_run] == ["test_that_does_not_survive", "test_four"]
    assert (record.incomplete, record.exit_status) == (CUT_OFF, 3)
    shown = run("report", "run.json", folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert f"Incomplete: {CUT_OFF}" in shown.stdout
    assert "2 tests have no result" in shown.stdout
    assert "1 of 2 tests speaks against this kernel" in shown.stdout

    resumed = run("run", "--resume", file, *workers)
    assert resumed.returncode == 1, resumed.stdout + resumed.stderr
    record, first = read_record(file), record
    assert dict(verdicts(record)) == WHOLE
    assert len(record.results) == len(WHOLE)  # none twice
    assert (record.incomplete, record.not_run, record.started) == ("", (), first.started)
    assert (tmp_path / "turns").read_text() == "x"  # what is known is not run again
    assert not partial_of(file).exists()


def test_a_run_that_is_killed_while_it_is_resumed_is_resumed_again(tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(DIES)
    words = ("run", "--oracle", tmp_path, "--order", "written", "--json", "run.json")
    assert run(*words, folder=tmp_path).returncode == -signal.SIGKILL
    (tmp_path / "killed").unlink()
    assert run("run", "--resume", "run.json", folder=tmp_path).returncode == -signal.SIGKILL
    assert run("run", "--resume", "run.json", folder=tmp_path).returncode == 1
    assert dict(verdicts(read_record(tmp_path / "run.json"))) == WHOLE
    assert (tmp_path / "turns").read_text() == "x"
    again = run("run", "--resume", "run.json", folder=tmp_path)  # nothing is left to do
    assert again.returncode == 1, again.stdout + again.stderr
    assert dict(verdicts(read_record(tmp_path / "run.json"))) == WHOLE


def test_a_finished_run_that_is_gone_on_with_is_one_run_in_the_store(tmp_path: Path) -> None:
    home = tmp_path / "home"
    environment = {**os.environ, HOME_VARIABLE: str(home)}
    (tmp_path / "test_inner.py").write_text(
        "from pathlib import Path\n"
        "def test_one(init): pass\n"
        "def test_host(init):\n"
        "    if not (mark := Path(__file__).with_name('mark')).exists():\n"
        "        mark.touch()\n"
        "        raise MemoryError\n"
    )
    argv = [*CLI, "run", "--oracle", str(tmp_path / "test_inner.py"), "--json", str(tmp_path / "r.json")]
    for words, status in ((argv, 3), ([*CLI, "run", "--resume", str(tmp_path / "r.json")], 0)):
        done = subprocess.run(
            words, capture_output=True, text=True, cwd=share(), check=False, timeout=120, env=environment
        )
        assert done.returncode == status, done.stdout + done.stderr
    (kept,) = (home / "results").iterdir()
    assert read_record(kept) == read_record(tmp_path / "r.json")
    assert verdicts(read_record(kept)) == [("test_one", "passed"), ("test_host", "passed")]


def test_a_run_under_way_is_read_and_not_gone_on_with(tmp_path: Path) -> None:
    known = RunRecord("t", is_dragonfly=False, command=("x",), folder=str(tmp_path))
    writer = PartialRecord(tmp_path / "run.json", known, ["a", "b"])
    writer.add(TestResult("a", Verdict.FAILED), is_first=True)
    record = read_record(tmp_path / "run.json")
    assert (record.incomplete, record.not_run) == (UNDER_WAY, ("b",))
    done = run("run", "--resume", tmp_path / "run.json")
    assert done.returncode == 2
    assert UNDER_WAY in done.stdout + done.stderr
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_the_last_word_on_a_test_counts_and_a_line_that_is_cut_off_does_not(tmp_path: Path) -> None:
    writer = PartialRecord(tmp_path / "run.json", RunRecord("t", is_dragonfly=True), ["a", "b", "c"])
    writer.add(TestResult("a", Verdict.FAILED), is_first=True)
    writer.add(TestResult("a", Verdict.FAILED, again=(TestResult("a", Verdict.PASSED, pristine=True),)))
    writer.add(TestResult("b", Verdict.PASSED))
    writer.add(TestResult("b", Verdict.PANIC, reason="noticed late"), is_death=True)
    writer.close(keep_file=True)
    file = tmp_path / "run.json.partial"
    file.write_bytes(file.read_bytes() + b'{"result": {"test": "c", "verd')
    record = read_partial(file)
    assert [(result.test, result.words) for result in record.results] == [
        ("a", "failed, then passed on a pristine machine (flaky: 1 of 2)"),
        ("b", "panic"),
    ]
    assert record.not_run == ("c",)


def test_what_a_full_disk_did_not_take_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = PartialRecord(tmp_path / "run.json", RunRecord("t", is_dragonfly=True), ["a", "b", "c"])
    whole = os.write

    def full(number: int, data: bytes) -> int:
        if full.room <= 0:  # type: ignore[attr-defined]
            raise OSError(errno.ENOSPC, "full")
        taken = whole(number, data[: full.room])  # type: ignore[attr-defined]
        full.room -= taken  # type: ignore[attr-defined]
        return taken

    full.room = 70  # type: ignore[attr-defined]  # one line, and the next in part
    monkeypatch.setattr(os, "write", full)
    for test in "ab":
        writer.add(TestResult(test, Verdict.PASSED))
    assert [result.test for result in read_partial(writer.file).results] == []
    full.room = 10_000  # type: ignore[attr-defined]
    writer.add(TestResult("c", Verdict.PASSED))
    assert [result.test for result in read_partial(writer.file).results] == ["a", "b", "c"]
    writer.close()


def test_a_disk_that_takes_no_beginning_of_a_record_is_no_place_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_number: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="full"):
            PartialRecord(tmp_path / "run.json", RunRecord("t", is_dragonfly=True), ["a"])
    assert list(tmp_path.iterdir()) == []


# A file system of 16 KiB at $0 without any room left, of which nobody else knows.
FULL_DISK = (
    "unshare", "-rm", "sh", "-c",
    'mount -t tmpfs -o size=16k none "$0" && head -c 16384 /dev/zero >"$0/full";'
    ' "$@"; status=$?; ls -A "$0"; exit $status',
)  # fmt: skip


def run_beside_full_disk(disk: Path, *arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs a file system of its own (unshare --mount)")
    disk.mkdir()
    argv = [*FULL_DISK, str(disk), *CLI, *map(str, arguments)]
    return subprocess.run(
        argv, capture_output=True, text=True, cwd=share(), check=False, timeout=120,
        env={**os.environ, HOME_VARIABLE: str(home)},
    )  # fmt: skip


def test_where_the_disk_of_a_record_is_full_it_is_kept_in_the_store(tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(
        "from pathlib import Path\n"
        f"HOME = Path({str(tmp_path)!r}) / 'home'\n"
        "def test_one(init): assert list((HOME / 'results').glob('*.partial'))[0].stat().st_size > 0\n"
    )
    disk = tmp_path / "disk"
    done = run_beside_full_disk(
        disk, "run", "--oracle", tmp_path / "test_inner.py", "--json", disk / "x.json", home=tmp_path / "home"
    )
    assert done.returncode == 3, done.stdout
    assert "the run's record could not be written: [Errno 28]" in done.stdout
    assert "what is known is in" not in done.stdout
    assert done.stdout.rstrip().endswith("\nfull")  # nothing of the run is left there
    (kept,) = (tmp_path / "home" / "results").iterdir()
    assert f"record: {kept}" in done.stdout
    assert verdicts(read_record(kept)) == [("test_one", "passed")]


@pytest.mark.parametrize("target", [["--oracle"], ["--control"]])
def test_a_store_without_room_is_told_before_anything_is_run(tmp_path: Path, target: list[str]) -> None:
    disk, ran = tmp_path / "disk", tmp_path / "ran"
    (tmp_path / "test_inner.py").write_text(f"def test_one(init): open({str(ran)!r}, 'w')\n")
    done = run_beside_full_disk(disk, "run", *target, tmp_path / "test_inner.py", "--json", disk / "x.json", home=disk)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "no room for" in done.stdout + done.stderr
    assert "network" not in done.stdout + done.stderr
    assert not ran.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "oracle", "oracle:setsid-for-leaders", "-k", "setsid"],
        ["bisect", "--source", ".", "--good", "HEAD", "--bad", "HEAD", "--", "conformance"],
        ["bench", "--control"],
    ],
)
def test_so_is_it_before_many_runs(tmp_path: Path, words: list[str]) -> None:
    disk = tmp_path / "disk"
    done = run_beside_full_disk(disk, *words, home=disk)
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stderr.startswith("dfly-harness: no room for")
    assert len(done.stderr.strip().splitlines()) == 1


# A read-only file system at $0.
READ_ONLY = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o ro,size=200m none "$0" && exec "$@"')
# The same file system seen by a user who owns nothing of it.
ANOTHER_USER = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def may_be(how: tuple[str, ...], folder: Path) -> bool:
    """Tell whether HOW works here, and the harness with it: its packages may lie where others see nothing."""
    home = [str(folder)] if how is READ_ONLY else []
    try:
        argv = [*how, *home, *CLI[:2], "import harness.cli"]
        return subprocess.run(argv, capture_output=True, cwd=share(), check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("how", "why"),
    [(READ_ONLY, "Read-only file system"), (ANOTHER_USER, "Permission denied")],
    ids=["read-only", "another's"],
)
@pytest.mark.parametrize(
    "words",
    [
        ["run", "--control"],
        ["compare", "control", "oracle", "-k", "setsid"],
        ["bisect", "--source", ".", "--good", "HEAD", "--bad", "HEAD", "--", "conformance"],
    ],
    ids=lambda words: words[0],
)
def test_a_store_that_is_not_ours_is_told_before_anything_is_run(
    words: list[str], how: tuple[str, ...], why: str
) -> None:
    with tempfile.TemporaryDirectory() as home:  # pytest's own folders are shut to others
        Path(home).chmod(0o755)
        if not may_be(how, Path(home)):
            pytest.skip(f"needs {how[0]}")
        argv = [*how, *([home] if how is READ_ONLY else []), *CLI, *words]
        done = subprocess.run(
            argv, capture_output=True, text=True, cwd=share(), check=False, timeout=120,
            env={**os.environ, HOME_VARIABLE: home, "HOME": home},
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"dfly-harness: the store {home} cannot be written ({why}): set DFLY_HARNESS_HOME to")


def test_a_full_disk_is_not_blamed_on_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object) -> None:
        raise HarnessError("apt-get download failed (write failed: No space left on device): check the network")

    monkeypatch.setattr("harness.guests.targets.build_control_image", build)
    with pytest.raises(HarnessError, match=r"^the disk is full: ") as caught:
        ResolvedTarget().open(Store(tmp_path))
    assert "network" not in str(caught.value)


@pytest.mark.parametrize("words", [["--kernel", "x"], ["-k", "x"], ["suites/conformance"], ["--defects"]])
def test_a_resumed_run_is_the_one_that_was_begun(tmp_path: Path, words: list[str]) -> None:
    RunRecord("t", is_dragonfly=False, command=("x",), folder=str(tmp_path)).write(Store(), tmp_path / "r.json")
    done = run("run", "--resume", tmp_path / "r.json", *words)
    assert done.returncode == 2
    assert "leave out tests and all other options" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_run_has_a_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = RunRecord("t", is_dragonfly=False)
    whole = record.write(store)
    assert find_record(whole.stem, store) == whole == find_record("-", store)
    assert find_record(str(whole), store) == whole


# ---- Many runs ---------------------------------------------------------------------------------------------------

KILLED = """
import os, signal

def test_good(init): pass
def test_killed(init): os.kill(os.getpid(), signal.SIGKILL)
def test_never(init): pass
"""


def test_a_killed_run_of_many_hands_over_what_it_learnt(tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(KILLED)
    runner = SuiteRunner(Store(tmp_path / "store"))
    words = [str(tmp_path), f"--rootdir={tmp_path}", "-p", "harness.plugin.entry", "--dfly-oracle"]
    done = runner.run(words, 0, tmp_path / "run.part")
    assert done.record is not None
    assert verdicts(done.record) == [("test_good", "passed")]
    assert [test.rpartition("::")[2] for test in done.lost] == ["test_killed", "test_never"]
    assert "killed by signal 9" in done.said
    assert not done.is_whole
    assert "2 tests have no result" in conclusion(done.record)
    assert sorted(file.name for file in tmp_path.iterdir() if file.name.startswith((".run", "run"))) == [
        "run.log",
        "run.part",
    ]


def test_a_run_of_many_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_inner.py").write_text("import time\ndef test_that_lasts(init): time.sleep(600)\n")
    monkeypatch.setattr("harness.runs.runner._RUN_DEADLINE", 5.0)
    words = [str(tmp_path), f"--rootdir={tmp_path}", "-p", "harness.plugin.entry", "--dfly-oracle"]
    begun = time.monotonic()
    done = SuiteRunner(Store(tmp_path / "store")).run(words, 0, tmp_path / "run.part")
    assert time.monotonic() - begun < 60
    assert not done.is_whole
    assert "pytest was killed by signal 9" in done.said


PARENT = """
import sys
from pathlib import Path
from harness.runs.runner import SuiteRunner
from harness.store import Store

folder = Path(sys.argv[1])
words = [str(folder), f"--rootdir={folder}", "-p", "harness.plugin.entry", *sys.argv[2:]]
SuiteRunner(Store()).run(words, 0, folder / "run.part")
"""
BUILDS = """
import sys
from pathlib import Path
from harness.kernels.build import CommandBuilder, build_kernel
from harness.kernels.source import open_source
from harness.store import Store

folder = Path(sys.argv[1])
store = Store(folder / "store")
command = f"touch {folder}/begun; sleep 300 & wait; : {{source}} {{output}}"
build_kernel(store, open_source(store, folder / "tree"), CommandBuilder(command))
"""
WAITS = """
import os, time
from pathlib import Path

def test_first(init): pass
def test_that_lasts(init):
    (Path(__file__).parent / f"at-{os.getpid()}").touch()
    time.sleep(300)
"""


def group_of(folder: Path) -> list[int]:
    """Return the processes that have FOLDER on their command line, or work in a machine's folder of such a process."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\\0", b" ").decode()
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state != "Z":
            found[int(entry.name)] = (int(parent), command)
    ours = {pid for pid, (_, command) in found.items() if str(folder) in command}
    while more := {pid for pid, (parent, _) in found.items() if parent in ours} - ours:
        ours |= more
    return sorted(ours - {os.getpid()})


def await_(what: str, condition: object, seconds: float = 120.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}, in vain"
        time.sleep(0.05)


@pytest.mark.parametrize("target", [("--dfly-oracle",), ("--dfly-oracle", "-n", "2"),
                                    pytest.param(("--dfly-control",), marks=pytest.mark.on_vm)])  # fmt: skip
def test_who_makes_many_runs_and_is_killed_leaves_no_orphan(tmp_path: Path, target: tuple[str, ...]) -> None:
    (tmp_path / "test_inner.py").write_text(WAITS)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), *target], stdout=subprocess.DEVNULL)
    await_("the run to begin", lambda: list(tmp_path.glob("at-*")), 300)
    orphans = group_of(tmp_path)
    assert len(orphans) >= 2
    parent.kill()
    parent.wait(10)
    machines = [pid for pid in orphans if pid != parent.pid]
    await_("the orphans to notice", lambda: not any(Path(f"/proc/{pid}").exists() for pid in machines), 120)


def test_who_builds_and_is_killed_leaves_no_compiler(tmp_path: Path) -> None:
    file = tmp_path / "tree" / KERN_PROC
    file.parent.mkdir(parents=True)
    file.write_text("struct proc *pfind(pid_t pid);\n")
    parent = subprocess.Popen([sys.executable, "-c", BUILDS, str(tmp_path)], stdout=subprocess.DEVNULL)
    await_("the build to begin", (tmp_path / "begun").exists)
    orphans = [pid for pid in group_of(tmp_path) if pid != parent.pid]
    assert len(orphans) >= 2  # the shell and what it started
    parent.kill()
    parent.wait(10)
    await_("the orphans to notice", lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans), 60)


def test_a_run_that_takes_the_place_of_another_shares_no_file_with_it(tmp_path: Path) -> None:
    """The first one still lives when the second one begins: as after a crash on a machine where nobody notices."""
    (tmp_path / "test_inner.py").write_text(WAITS)
    words = [str(tmp_path), f"--rootdir={tmp_path}", "-p", "harness.plugin.entry", "--dfly-oracle"]
    argv = [sys.executable, "-m", "pytest", "-q", *words, f"--dfly-json={tmp_path / '.run.part.99-0'}"]
    orphan = subprocess.Popen(argv, stdout=subprocess.DEVNULL, cwd=share())
    await_("the first run to begin", lambda: list(tmp_path.glob("at-*")))
    (tmp_path / "test_inner.py").write_text("def test_other(init): pass\n")
    done = SuiteRunner(Store()).run(words, 0, tmp_path / "run.part")
    assert done.is_whole
    assert done.record is not None
    assert verdicts(done.record) == [("test_other", "passed")]
    assert (tmp_path / ".run.part.99-0.partial").exists()  # which is the living one's
    orphan.send_signal(signal.SIGINT)
    orphan.wait(120)
    left = json.loads((tmp_path / ".run.part.99-0").read_text())
    assert Counter(result["test"].rpartition("::")[2] for result in left["results"])["test_first"] == 1
    assert verdicts(read_record(tmp_path / "run.part")) == [("test_other", "passed")]
