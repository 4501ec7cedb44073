# SPDX-License-Identifier: BSD-2-Clause
"""What is installed without a checkout does everything: suites, recipes, pages, the manual, completions, a plugin."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pexpect
import pytest
from installed import ROOT, Installed, build_wheel, needs_checkout

from harness.cli.completion import SHELLS
from harness.config import HOME_VARIABLE

pytestmark = needs_checkout
#: What of the checkout is of no use without it.
ONLY_HERE = re.compile(r"\.(ci|github|git\w+|editorconfig|pre-commit-config)|[\w-]+\.(md|yml|ini|toml)$|LICENSE$")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed.make(wheel, tmp_path_factory.mktemp("installed"))


def test_the_wheel_has_every_file_of_the_checkout(wheel: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    known = [name for name in listed if not ONLY_HERE.match(name) and (ROOT / name).exists()]
    with zipfile.ZipFile(wheel) as archive:
        there = {name.replace("harness/_share/", "") for name in archive.namelist()}
    assert [name for name in known if name not in there] == []


def test_commands_that_need_no_machine_work(installed: Installed) -> None:
    done = installed.run(["dfly-harness", "run", "--oracle", "2026", "-k", "setsid", "-q", "--json", "run.json"])
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((installed.work / "run.json").read_text())
    assert {each["test"].partition("/test_")[0] for each in record["results"]} == {"suites/conformance"}
    for line in (
        ["report", "run.json"],
        ["report", "run.json", "--html", "run.html", "--tap", "run.tap", "--kyua", "run.db"],
        ["history"],
        ["image", "releases"],
        ["kernel", "list"],
        ["store", "path"],
        ["run", "lockstep", "--collect-only", "-q", "--oracle", "2026"],
    ):
        done = installed.run(["dfly-harness", *line])
        assert done.returncode == 0, done.stdout + done.stderr
    done = installed.run(["dfly-harness", "compare", "oracle", "oracle:setsid-for-leaders", "-k", "setsid"])
    assert done.returncode == 1, done.stdout + done.stderr
    assert "6 broken" in done.stdout


def test_it_says_where_it_is(installed: Installed) -> None:
    code = "import harness; from harness.config import share; print(harness.__file__, share() / 'docs' / 'index.md')"
    done = installed.run(["python", "-c", code])
    assert all(Path(place).is_file() for place in done.stdout.split()), done.stderr
    assert all(place.startswith(str(installed.folder)) for place in done.stdout.split())


@pytest.mark.on_vm
def test_machines_are_started_from_it(installed: Installed) -> None:
    # The store of the selftests: a home of its own would have to fetch the control guest.
    store = {HOME_VARIABLE: os.environ[HOME_VARIABLE]}
    done = installed.run(["dfly-harness", "run", "--control", "-k", "test_wait and zombie", "-q"], **store)
    assert done.returncode == 0, done.stdout + done.stderr
    done = installed.run(["dfly-harness", "shell", "--control", "uname", "-n"], **store)
    assert (done.returncode, done.stdout) == (0, "control\n"), done.stderr


MINE = "def test_mine(init):\n    assert init.fork().getppid() == init.getpid()\n"


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_pytest_has_the_fixtures_as_soon_as_one_of_our_options_is_there(
    installed: Installed, workers: list[str]
) -> None:
    (installed.work / "test_mine.py").write_text(MINE)
    done = installed.run(["python", "-m", "pytest", *workers, "test_mine.py", "--dfly-oracle=2026"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ORACLE, NOT A KERNEL" in done.stdout
    assert "1 passed" in done.stdout


def test_a_pytest_that_asks_for_nothing_is_left_alone(installed: Installed) -> None:
    (installed.work / "test_theirs.py").write_text("def test_theirs(): assert 1 == 2\n")
    code = "import sys, pytest; s = pytest.main(['test_theirs.py']); print([m for m in sys.modules if 'harness.' in m])"
    done = installed.run(["python", "-c", code])
    assert "target" not in done.stdout, "it says nothing of a kernel"
    assert "1 failed" in done.stdout
    assert done.stdout.splitlines()[-1] == "['harness.plugin', 'harness.options', 'harness.plugin.waking']"


def test_the_manual_is_installed_and_well_formed(installed: Installed) -> None:
    page = installed.folder / "venv" / "share" / "man" / "man1" / "dfly-harness.1"
    assert page.read_bytes() == (ROOT / "docs" / "dfly-harness.1").read_bytes()
    if shutil.which("groff") is None:
        pytest.skip("needs groff")
    argv = ["groff", "-man", "-ww", "-Tutf8", "-P-cbou", str(page)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "\n   image import\n" in done.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_takes_its_completions(installed: Installed, shell: str) -> None:
    done = installed.run(["dfly-harness", "completion", shell])
    assert done.returncode == 0, done.stderr
    assert "--kyua" in done.stdout
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    (installed.work / "completions").write_text(done.stdout)
    assert installed.run([shell, "-n", "completions"]).returncode == 0
    ask = {
        "bash": "source completions; COMP_WORDS=(dfly-harness report --ky); COMP_CWORD=2; COMP_POINT=24;"
        ' COMP_LINE="dfly-harness report --ky"; _shtab_dfly_harness; echo "${COMPREPLY[@]}"',
        "fish": "source completions; complete -C 'dfly-harness report --ky'",
    }
    if shell in ask:
        assert installed.run([shell, "-c", ask[shell]]).stdout.split()[:1] == ["--kyua"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_completes_a_line_that_is_typed(installed: Installed) -> None:
    functions = installed.work / "functions"
    functions.mkdir()
    (functions / "_dfly-harness").write_text(installed.run(["dfly-harness", "completion", "zsh"]).stdout)
    with pexpect.spawn("zsh", ["-f", "-i"], timeout=60, encoding="utf-8", env={"TERM": "dumb", **os.environ}) as zsh:
        zsh.sendline(f"fpath=({functions} $fpath); autoload -Uz compinit; compinit -u -D; print rea''dy")
        zsh.expect("ready")
        zsh.send("dfly-harness report --ky\t")
        zsh.expect("--kyua")


def test_the_page_of_dependencies_names_them_all() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    rows = re.findall(r"^\| ([\w.-]+) \| ([\d.]*) \|", (ROOT / "docs" / "dependencies.md").read_text(), re.MULTILINE)
    asked = [re.fullmatch(r"([\w.-]+)(?:\[\w+\])?(?:>=([\d.]+))?", each) for each in wanted]
    assert sorted(rows) == sorted((each[1], each[2] or "") for each in asked if each is not None)
