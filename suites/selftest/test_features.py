# SPDX-License-Identifier: BSD-2-Clause
"""What is known of a kernel: by version, by a look at it, and what follows for tests that ask for features."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from scripted_kernel import HUB_PID, Asked, Fails, Script, ScriptedKernel

from harness.cli import main
from harness.config import share
from harness.errors import UsageError
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.features import FEATURES, Change, Feature, KernelFacts
from harness.images.base import BaseImage
from harness.kernels.artefact import Kernel
from harness.oracle.eras import ERAS, Era
from harness.processes.probes import PROBES, OpenQuestionError, learn_facts, look
from harness.processes.session import Snapshot, known_facts
from harness.report.html import run_page
from harness.results.record import RunRecord
from harness.store import Store

# ---- Versions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("osreldate", "present"),
    [
        (400704, "signal128 bsd_ptys"),
        (500901, "wait6 login33 lpmap thread_titles getrandom wait_reservation getcwd_enoent? pdeathsig? signal128?"
         " bsd_ptys"),
        (600302, "wait6 login33 lpmap thread_titles getrandom wait_reservation getcwd_enoent pdeathsig clock_nanosleep"
         " fexecve pathname_einval posix_fallocate fdatasync bounded_drain lwkt bsd_ptys"),
        (600516, "wait6 login33 lpmap thread_titles getrandom wait_reservation getcwd_enoent pdeathsig clock_nanosleep"
         " fexecve pathname_einval posix_fallocate fdatasync bounded_drain lwkt syscap caps_hole? procfs_exe futimesat"
         " sigmask_race_closed reap_kill clofork bsd_ptys? size_queries?"),
        (600518, "wait6 login33 lpmap thread_titles getrandom wait_reservation getcwd_enoent pdeathsig clock_nanosleep"
         " fexecve pathname_einval posix_fallocate fdatasync bounded_drain lwkt syscap procfs_exe futimesat"
         " sigmask_race_closed reap_kill clofork size_queries"),
    ],
)  # fmt: skip
def test_a_version_promises_features(osreldate: int, present: str) -> None:
    assert KernelFacts(osreldate).summary() == f"{osreldate}: {present}"


def test_the_table_is_in_the_order_of_history_and_its_versions_make_sense() -> None:
    assert list(FEATURES) == [feature.name for feature in FEATURES.values()]
    for feature in FEATURES.values():
        for change in (feature.begins, feature.ends):
            if change is not None:
                assert re.fullmatch(r"[0-9a-f]{10}", change.commit)
                assert re.fullmatch(r"20\d\d-\d\d-\d\d", change.date)
                assert 400000 < change.since < (change.certain or 999999)
        assert re.fullmatch(r"[a-z0-9_]+", feature.name)
    edges = [feature.ends or feature.begins for feature in FEATURES.values() if feature.name != "caps_hole"]
    dates = [edge.date for edge in edges if edge]
    assert len(dates) == len(edges)
    assert dates == sorted(dates)


def test_a_feature_that_came_and_went() -> None:
    feature = Feature("x", "x", Change("0" * 10, "2001-01-01", 10, 12), Change("1" * 10, "2002-02-02", 20, 21))
    answers = {9: False, 10: None, 11: None, 12: True, 19: True, 20: None, 21: False}
    assert {version: feature.decided_by(version) for version in answers} == answers
    dates = {"2000-12-31": False, "2001-01-01": True, "2002-02-01": True, "2002-02-02": False}
    assert {date: feature.present_on(date) for date in dates} == dates


def test_releases_may_have_taken_over_fixes_made_after_them() -> None:
    assert KernelFacts(500802).undecided == ("getcwd_enoent",)
    assert KernelFacts(600001).undecided == ("pathname_einval", "bounded_drain")
    assert KernelFacts(600201).undecided == ()
    assert KernelFacts(600402).undecided == ("sigmask_race_closed", "size_queries")
    assert KernelFacts(600402).has("clofork") is False  # which is news, and no fix


@pytest.mark.parametrize("era", ERAS.values(), ids=str)
def test_dates_and_versions_agree(era: Era) -> None:
    """Of a revision that is known by date nothing is left open, and its version promises nothing else."""
    facts = KernelFacts.of_revision(era.osreldate, era.date)
    assert facts.undecided == ()
    for name, feature in FEATURES.items():
        assert feature.decided_by(era.osreldate) in {None, feature.present_on(era.date)}, name


@pytest.mark.parametrize("era", ERAS.values(), ids=str)
def test_the_specification_has_the_features_of_its_era(era: Era) -> None:
    facts, traits = KernelFacts.of_revision(era.osreldate, era.date), era.traits
    assert {
        "wait6": traits.wait6,
        "login33": traits.login_size == 33,
        "pdeathsig": traits.deathsig,
        "signal128": traits.highest_signal == 128,
        "pathname_einval": traits.pathname_of_no_program == "EINVAL",
        "lwkt": traits.lwkt_flag,
        "syscap": traits.syscap,
        "reap_kill": traits.reap_kill,
        "size_queries": traits.sizes_strings,
    }.items() <= {name: facts.has(name) for name in FEATURES}.items()


def test_a_look_decides_only_what_the_version_does_not() -> None:
    facts = KernelFacts(600516, 1048, {"size_queries": True, "caps_hole": False, "lwkt": False, "bsd_ptys": False})
    assert facts.has("size_queries") is True
    assert facts.has("caps_hole") is False
    assert facts.has("lwkt") is True  # the version says so: a kernel that hides it is wrong, not old
    assert facts.undecided == ()
    assert KernelFacts(600516).undecided == ("caps_hole", "bsd_ptys", "size_queries")
    assert set(KernelFacts().undecided) == set(FEATURES)


@pytest.mark.parametrize(
    ("conditions", "why"),
    [
        (("lwkt", "!signal128"), None),
        (("!lwkt",), "this kernel has lwkt (kernel threads on request only, KERN_PROC_FLAG_LWKT)"),
        (("lwkt", "syscap"), "this kernel has no syscap (syscap_get() and syscap_set(), records of 1048 bytes)"),
    ],
)
def test_conditions_that_do_not_hold_are_named(conditions: tuple[str, ...], why: str | None) -> None:
    assert KernelFacts(600302).lacks(conditions) == why


def test_what_nobody_can_tell_holds_neither_way() -> None:
    for condition in ("sigmask_race_closed", "!sigmask_race_closed"):
        said = KernelFacts(600509).lacks([condition])
        assert said is not None
        assert said.startswith("nobody can tell whether a kernel of version 600509 has sigmask_race_closed")


def test_a_name_that_is_no_features_is_an_error() -> None:
    with pytest.raises(UsageError, match="no kernel feature is called 'lwtk'"):
        KernelFacts(600518).lacks(["!lwtk"])


# ---- Looks ------------------------------------------------------------------------------------------------------


def fails(name: str) -> Script:
    def call(_: Asked) -> int:
        raise Fails(name)

    return call


def gives(value: int) -> Script:
    return lambda _: value


def fcntl(flags: int, *, refuses: str = "") -> Script:
    def call(asked: Asked) -> int:
        if asked.arguments[1] == 2 and refuses:
            raise Fails(refuses)
        return flags if asked.arguments[1] == 1 else 0

    return call


def procctl(known: int, answer: str = "") -> Script:
    def call(asked: Asked) -> int:
        if asked.arguments[2] > known:
            raise Fails("EINVAL")
        if answer:
            raise Fails(answer)
        return 0

    return call


def getcwd(asked: Asked) -> int:
    asked.put(asked.arguments[0], b"/tmp/gone\0")
    return 0


def refused(_: int) -> bytes:
    raise Fails("EPERM")


def unheard_of(_: int) -> bytes:
    raise Fails("EINVAL")


def scripted(kind: dict[str, Script], name: str, which: int) -> ScriptedKernel:
    variables = {} if (mib := MIBS.get(name)) is None else {mib: VARIABLES[name][which]}
    return ScriptedKernel({key: value for key, value in variables.items() if value is not None}, calls=kind)


FOLDERS = {"mkdir": gives(0), "chdir": gives(0), "rmdir": gives(0)}
USER = {"setuid": gives(0)}
NULL = {"open": gives(3)}

#: For each look: calls of a kernel that has the feature, of one that has not, and of one that is neither.
Kinds = tuple[dict[str, Script], dict[str, Script], dict[str, Script]]
KERNELS: dict[str, Kinds] = {
    "wait6": ({"wait6": fails("ECHILD")}, {}, {"wait6": fails("EINVAL")}),
    "lpmap": ({"open": gives(3)}, {"open": fails("ENOENT")}, {"open": fails("EPERM")}),
    "pdeathsig": ({"procctl": procctl(5)}, {"procctl": procctl(3)}, {"procctl": procctl(5, "EPERM")}),
    "getcwd_enoent": (
        {**FOLDERS, "__getcwd": fails("ENOENT")},
        {**FOLDERS, "__getcwd": getcwd},
        {**FOLDERS, "__getcwd": fails("EACCES")},
    ),
    "lwkt": ({}, {}, {"look": gives(0)}),
    "thread_titles": ({"lwp_gettid": gives(1)}, {"lwp_gettid": gives(1)}, {"lwp_gettid": gives(1)}),
    "syscap": ({"syscap_get": gives(0)}, {}, {"syscap_get": fails("EINVAL")}),
    "caps_hole": (
        {**USER, "jail_attach": fails("EINVAL")},
        {**USER, "jail_attach": fails("EPERM")},
        {**USER, "jail_attach": gives(0)},
    ),
    "reap_kill": ({"procctl": procctl(6, "ENOTCONN")}, {"procctl": procctl(5)}, {"procctl": procctl(6)}),
    "clofork": (
        {**NULL, "fcntl": fcntl(2)},
        {**NULL, "fcntl": fcntl(0, refuses="EINVAL")},
        {**NULL, "fcntl": fails("EBADF")},
    ),
    "bsd_ptys": ({"access": gives(0)}, {"access": fails("ENOENT")}, {"access": fails("EACCES")}),
    "size_queries": ({}, {}, {"look": gives(0)}),
}
#: The same for variables; None is one that does not exist.
MIBS = {"lwkt": (1, 14, 0x20), "thread_titles": (1, 14, 7, HUB_PID + 1, 1), "size_queries": (1, 14, 7, HUB_PID + 1)}
VARIABLES: dict[str, tuple[bytes | Callable[[int], bytes] | None, ...]] = {
    "lwkt": (bytes(5000), None, refused),
    "thread_titles": (b"executor\0", unheard_of, refused),
    "size_queries": (b"executor\0", b"", refused),
}
for _call in ("getrandom", "clock_nanosleep", "fexecve", "posix_fallocate", "fdatasync", "futimesat"):
    KERNELS[_call] = ({_call: fails("EBADF")}, {}, {})

#: Looks that need more of a kernel than a script can play; suites/regressions/test_features.py tries them on real ones.
REAL_ONLY = {"bounded_drain", "signal128"}


def test_every_look_is_tried() -> None:
    assert KERNELS.keys() | REAL_ONLY == PROBES.keys()
    assert PROBES.keys() <= FEATURES.keys()


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("present", [True, False])
def test_a_look_tells_kernels_with_the_feature_from_those_without(name: str, present: bool) -> None:
    with scripted(KERNELS[name][not present], name, int(not present)).hub() as hub:
        assert look(hub, name) is present


@pytest.mark.parametrize("name", [name for name, kinds in KERNELS.items() if kinds[2]])
def test_an_answer_of_neither_kind_leaves_the_question_open(name: str) -> None:
    with scripted(KERNELS[name][2], name, 2).hub() as hub, pytest.raises(OpenQuestionError):
        look(hub, name)


def kernel_of(osreldate: int, size: int, calls: dict[str, Script]) -> ScriptedKernel:
    played = ScriptedKernel(names={"kern.osreldate": (1, 24)}, calls=calls)
    played.variables = {(1, 24): osreldate.to_bytes(4, "little"), (1, 14, 1, 700): bytes(size)}
    for pid in range(700, 720):
        played.variables[1, 14, 7, pid] = b"executor\0"
    return played


def test_only_what_the_version_leaves_open_is_looked_at() -> None:
    played = kernel_of(600518, 1048, {})
    with played.hub() as hub:
        assert learn_facts(hub) == KernelFacts(600518, 1048, {})
    assert set(played.asked) == {"__sysctl"}


def test_what_it_leaves_open_is_looked_at() -> None:
    calls = {**USER, "jail_attach": fails("EPERM"), "access": fails("EACCES")}
    played = kernel_of(600516, 1048, calls)
    with played.hub() as hub:
        facts = learn_facts(hub)
    assert facts.found == {"caps_hole": False, "size_queries": True}  # the third answered as neither kind does
    assert facts.undecided == ("bsd_ptys",)


# ---- What is remembered -----------------------------------------------------------------------------------------


def snapshot(folder: Path, *needs: str) -> Snapshot:
    folder.mkdir(parents=True)
    (folder / "warm.json").write_text(json.dumps({"needs": needs}))
    return Snapshot(folder, "token", "identity", 1.0)


def test_a_kernel_is_asked_once_for_each_warm_state(tmp_path: Path) -> None:
    state = snapshot(tmp_path / "state")
    calls = {**USER, "jail_attach": fails("EPERM"), "access": gives(0)}
    with kernel_of(600516, 1048, calls).hub() as hub:
        first = state.facts(hub)
    silent = ScriptedKernel()
    with silent.hub() as hub:
        assert state.facts(hub) == first
    assert silent.asked == []
    assert first.undecided == ()
    (tmp_path / "state" / "facts.json").write_text("{")
    with kernel_of(600516, 1048, {}).hub() as hub:
        assert state.facts(hub).undecided == ("caps_hole", "bsd_ptys")


def test_what_warm_states_know_of_a_kernel_is_found_by_its_blob(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.folder("snapshots")
    with kernel_of(600516, 1048, {"access": gives(0)}).hub() as hub:
        facts = snapshot(folder / "a", "disk", "elf").facts(hub)
    snapshot(folder / "b", "disk", "other")
    assert known_facts(store, "elf", 600516) == facts
    assert known_facts(store, "elf", 600518) == KernelFacts(600518)  # a kernel of that name has been built anew
    assert known_facts(store, "other", 600516) == KernelFacts(600516)


def test_kernel_and_image_show_name_the_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path))
    store = Store()
    store.put(Kernel("k", elf="0" * 64, version="DragonFly", osreldate=600516))
    own = {"kernel": "DragonFly v6.4", "osreldate": 600402}
    for name, recipe in {"built": own, "adopted": {**own, "direct_boot": "k"}, "imported": {}}.items():
        store.put(BaseImage(name, disk="1" * 64, ssh_key="2" * 64, recipe=recipe))
    store.put(BaseImage("with-k", disk="1" * 64, ssh_key="2" * 64, recipe=own, installed_kernel="k"))

    def features(*arguments: str) -> dict[str, bool | None]:
        assert main([*arguments]) == 0
        shown: dict[str, bool | None] = json.loads(capsys.readouterr().out)["features"]
        return shown

    assert [features("kernel", "show", "k")[name] for name in ("lwkt", "clofork", "size_queries")] == [True, True, None]
    assert [features("image", "show", "built")[name] for name in ("lwkt", "syscap")] == [True, False]
    assert features("image", "show", "with-k")["clofork"] is True
    for unknown in ("adopted", "imported"):
        assert set(features("image", "show", unknown).values()) == {None}


def test_the_version_of_an_installed_kernel_is_known_from_its_image(tmp_path: Path) -> None:
    recipe = {"kernel": "DragonFly v6.4.2-RELEASE", "osreldate": 600402}
    image = BaseImage("i", disk="1" * 64, ssh_key="2" * 64, recipe=recipe)
    target = DragonFlyTarget(image, None, Store(tmp_path), {})
    assert target.osreldate == 600402
    assert target.label == "DragonFly: the installed kernel of image i (DragonFly v6.4.2-RELEASE)"
    other = DragonFlyTarget(replace(image, recipe={**recipe, "direct_boot": "k"}), None, Store(tmp_path), {})
    assert (other.osreldate, other.label) == (0, "DragonFly: the installed kernel of image i")


def test_reports_name_the_features() -> None:
    features = KernelFacts(600302, 992).summary()
    record = RunRecord("DragonFly: kernel k", is_dragonfly=True, features=features)
    assert "600302, records of 992 bytes: wait6 login33" in run_page(record)


# ---- Tests that ask for features --------------------------------------------------------------------------------

INNER = """
import pytest

@pytest.mark.feature("!lwkt", "signal128")
def test_holds(init):
    assert init.getpid() == init.pid

@pytest.mark.feature("syscap", reason="restrictions came in 2023")
def test_too_old(init):
    raise AssertionError

@pytest.mark.eras(since=500317, reason="since 5.4")
def test_too_old_by_version(init):
    raise AssertionError

@pytest.mark.defect(feature="caps_hole", reason="everybody is root")
def test_mended(init):
    raise AssertionError
"""

STUB = """
import pytest
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.features import KernelFacts
from harness.plugin.supply import GuestSupply

class Stub:
    started = 0
    guest = None

def rig(self):
    Stub.started += 1
    return Stub

GuestSupply.ready = rig
GuestSupply.kernel_facts = property(lambda self: KernelFacts(VERSION, 1048, FOUND if Stub.started else {}))

@pytest.fixture
def init():
    return None

def pytest_terminal_summary(terminalreporter):
    terminalreporter.line(f"machines: {Stub.started}")
"""

UNSETTLED = """
import pytest

@pytest.mark.feature("lwkt")
def test_known_before(init):
    pass

@pytest.mark.feature("!size_queries")
def test_not_this_one(init):
    raise AssertionError

@pytest.mark.feature("size_queries")
def test_this_one(init):
    pass

@pytest.mark.defect(feature="caps_hole", reason="everybody is root")
def test_shows(init):
    raise AssertionError
"""


def inner(folder: Path, code: str, *arguments: str, stub: str = "") -> tuple[int, str]:
    (folder / "test_inner.py").write_text(code)
    (folder / "conftest.py").write_text(stub)
    argv = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(folder), f"--rootdir={folder}"]
    argv += ["-p", "harness.plugin.entry", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=share(), check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_test_says_which_features_it_is_about(tmp_path: Path) -> None:
    status, output = inner(tmp_path, INNER, "--dfly-oracle", "--dfly-defects")
    assert "1 failed, 1 passed, 2 skipped" in output
    assert status == 1
    assert "this kernel has no syscap (syscap_get() and" in output
    assert "not applicable to 400704: since 5.4" in output


def test_with_any_era_nothing_is_left_out(tmp_path: Path) -> None:
    _, output = inner(tmp_path, INNER, "--dfly-oracle", "--dfly-any-era")
    assert "3 failed, 1 passed" in output


@pytest.mark.parametrize(
    ("version", "outcome"),
    [
        (600502, "1 failed"),  # never had it
        (600510, "1 skipped"),
        (600516, "1 skipped"),  # nobody can tell before it runs
        (600518, "1 failed"),  # mended
    ],
)
def test_a_defect_excuses_only_kernels_that_may_have_it(tmp_path: Path, version: int, outcome: str) -> None:
    code = UNSETTLED[UNSETTLED.index("@pytest.mark.defect") :]
    _, output = inner(tmp_path, f"import pytest\n{code}", stub=stub(version, {}))
    assert f"\n{outcome} in" in output, output


def stub(version: int, found: dict[str, bool]) -> str:
    return f"VERSION, FOUND = {version}, {found}\n{STUB}"


@pytest.mark.parametrize(
    ("version", "found", "outcome", "machines"),
    [
        (600516, {"size_queries": True, "caps_hole": True}, "1 failed, 2 passed, 1 skipped", True),
        (600516, {"size_queries": False, "caps_hole": True}, "2 failed, 1 passed, 1 skipped", True),
        (600516, {}, "1 failed, 1 passed, 2 skipped", True),
        (600518, {}, "1 failed, 2 passed, 1 skipped", False),
        (0, {"lwkt": True, "size_queries": True, "caps_hole": False}, "1 failed, 2 passed, 1 skipped", True),
    ],
)
def test_what_only_the_running_kernel_tells_is_settled_when_it_runs(
    tmp_path: Path, version: int, found: dict[str, bool], outcome: str, machines: bool
) -> None:
    _, output = inner(tmp_path, UNSETTLED, "--dfly-defects", stub=stub(version, found))
    assert outcome in output, output
    assert ("machines: 0" not in output) is machines


def test_a_feature_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    code = "import pytest\n@pytest.mark.feature('lwtk')\ndef test_it(init): pass\n"
    status, output = inner(tmp_path, code, "--dfly-oracle")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "no kernel feature is called 'lwtk'" in output
    assert "Traceback" not in output
